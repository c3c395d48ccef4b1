"""The latent-space energy-based prior model: its densities, in the paper's order. Open this first.

    p0(z)         = N(0, sigma_0^2 I)                                    reference prior
    p_alpha(z)    ~ exp(f_alpha(z)) p0(z)                                prior, eq. 1
    p_beta(x | z) = N(g_beta(z), sigma_l^2 I)                            likelihood, eq. 2 and 8 (*)
    p(z | x, t)   ~ p_beta(x | z)^t p_alpha(z)                           power posterior, eq. 21

Any pair of callables f_alpha, g_beta with the signatures of `types.py` makes a model.

(*) by default; `models/likelihoods.py` has others.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import chex
import haiku as hk
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.fields import ENCODER_LOSSES
from thermo_ebm.models import likelihoods, own
from thermo_ebm.models.conv_transpose import ConvTranspose, convolution_for_backend, for_backend
from thermo_ebm.models.encoder import ENCODERS, Encoding
from thermo_ebm.models.generator import make_generator_network
from thermo_ebm.models.likelihoods import LIKELIHOODS, ImageLikelihood, gaussian
from thermo_ebm.models.own import Networks
from thermo_ebm.models.prior import (
    PRIORS,
    Prior,
    PriorParts,
    PriorSettings,
    standard_gaussian,
    tilted_gaussian,
)
from thermo_ebm.randomness import ENCODER
from thermo_ebm.types import Array, GeneratorFn, Params, PRNGKey, PyTree, TiltFn


@jax.tree_util.register_static
class LatentEBM(NamedTuple):
    """A model: two pure functions, the two standard deviations, and the kinds of its densities.

    A compiled function takes a model, or a value that contains one, as a constant.
    """

    # f_alpha, the negative energy: (alpha, z [num, latent_dim]) -> [num]; more is more probable
    tilt: TiltFn
    generator: GeneratorFn  # g_beta: (beta, z [num, latent_dim]) -> [num, *image_shape]
    init: Callable[[PRNGKey], Params]
    latent_dim: int
    prior_sigma: float  # sigma_0
    likelihood_sigma: float  # sigma_l
    # (tilt, latent_dim, prior_sigma) -> the prior
    make_prior: Callable[[TiltFn, int, float], Prior] = tilted_gaussian
    # sigma_l -> the likelihood of images given the generator's outputs
    make_likelihood: Callable[[float], ImageLikelihood] = gaussian
    # (phi, x [num, *image_shape]) -> q(z | x); None: the model has no encoder
    encoder: Callable[[PyTree, Array], Encoding] | None = None

    @property
    def prior(self) -> Prior:
        """The prior p_alpha with its reference p0."""
        return self.make_prior(self.tilt, self.latent_dim, self.prior_sigma)

    @property
    def likelihood(self) -> ImageLikelihood:
        """p(x | z) of images given the generator's outputs at z."""
        return self.make_likelihood(self.likelihood_sigma)


class ModelSettings(NamedTuple):
    """The fields of `config.model`, with the paper's values for CIFAR-10 (table 6).

    Field names are those of the configuration with dots replaced by underscores.
    """

    latent_dim: int = 100  # D
    prior_sigma: float = 1.0  # sigma_0
    likelihood_sigma: float = 0.3  # sigma_l
    likelihood_name: str = "gaussian"  # in `models.likelihoods.LIKELIHOODS`
    prior_name: str = "mlp"  # in `models.prior.PRIORS`
    prior_features: int = 100
    prior_leak: float = 0.1
    prior_activation: str = "leaky_relu"  # or gelu
    generator_features: int = 64  # ngf
    generator_leak: float = 0.2
    generator_widths: Sequence[int] = (16, 8, 4, 2)
    generator_strides: Sequence[int] = (1, 2, 2, 2, 1)
    generator_kernel_size: int = 4
    generator_first_size: int = 0  # of the first layer's output; 0 for the kernel's size
    encoder_name: str = "none"  # in `models.encoder.ENCODERS`


def make_model(
    config: ConfigDict | None = None,
    channels: int | None = None,
    conv_transpose: ConvTranspose | None = None,
    **settings: Any,
) -> LatentEBM:
    """Builds the networks of table 6, from a configuration or from plain keyword arguments.

    >>> import jax
    >>> model = make_model(
    ...     channels=1, latent_dim=2, generator_features=4, generator_widths=(2, 1),
    ...     generator_strides=(1, 2, 1),
    ... )
    >>> params = jax.eval_shape(model.init, jax.random.key(0))
    >>> jax.eval_shape(model.generator, params["generator"], jax.numpy.zeros((5, 2))).shape
    (5, 8, 8, 1)

    Args:
      config: a complete configuration, or its `config.model`; None for the paper's values. Own
        networks (`model.factory`) need a complete one.
      channels: channels of the image; by default `config.data.channels` if a complete
        configuration is given, else 3.
      conv_transpose: the form of the transposed convolution; by default the fastest on this
        backend.
      **settings: fields of `ModelSettings`, which replace the configuration's.

    Returns:
      The model. Nothing is computed until its functions are called.

    Raises:
      ValueError: for a name that is not a field of `ModelSettings`, an unknown prior,
        likelihood or encoder, or strides that do not fit the widths.
    """
    networks = Networks()
    if config is not None and "model" in config:
        channels = config.data.channels if channels is None else channels
        networks, loss, config = own.networks(config), config.loss.name, config.model
        if loss in ENCODER_LOSSES:
            settings = {"encoder_name": "mirror"} | settings
    elif config is not None and config.get("factory"):
        raise ValueError("a model with a factory needs the complete configuration")
    fields = _fields(config) | settings
    fields.pop("factory", None)
    if unknown := fields.keys() - set(ModelSettings._fields):
        raise ValueError(
            f"{', '.join(sorted(unknown))}: not a field of the model; there are "
            f"{', '.join(ModelSettings._fields)}"
        )
    for name in ("generator_widths", "generator_strides"):
        if name in fields:
            fields[name] = tuple(fields[name])
    form = conv_transpose or for_backend(jax.default_backend())
    return _build(ModelSettings(**fields), 3 if channels is None else channels, form, networks)


def from_decoder(
    decoder: GeneratorFn,
    latent_dim: int,
    likelihood: ImageLikelihood,
    log_prior: TiltFn | None = None,
) -> LatentEBM:
    """A model around a decoder of your own, for `log_marginal_likelihood` and the chains.

    Its parameters are `{"prior": those of log_prior, "generator": those of the decoder}`.

    Args:
      decoder: (parameters, z [num, latent_dim]) -> outputs [num, *image_shape], of which
        `likelihood` makes a density.
      latent_dim: D.
      likelihood: a value of `models/likelihoods.py`, or your own.
      log_prior: (parameters, z) -> log-density up to a constant, [num]; None for N(0, I).
    """

    def tilt(alpha: chex.ArrayTree, z: Array) -> Array:
        if log_prior is None:
            return jnp.zeros(len(z))
        return log_prior(alpha, z) + jnp.sum(z**2, axis=-1) / 2

    def init(key: PRNGKey) -> Params:
        raise NotImplementedError("the parameters of this model are your own")

    return LatentEBM(
        tilt=tilt,
        generator=decoder,
        init=init,
        latent_dim=latent_dim,
        prior_sigma=1.0,
        likelihood_sigma=1.0,  # `likelihood` has its own
        make_prior=standard_gaussian if log_prior is None else tilted_gaussian,
        make_likelihood=lambda _: likelihood,
    )


def _fields(config: ConfigDict | None) -> dict[str, Any]:
    """The fields of `config.model` under their names in `ModelSettings`; none of None."""
    fields: dict[str, Any] = {}
    for name, value in ({} if config is None else config).items():
        if isinstance(value, ConfigDict):
            fields |= {f"{name}_{inner}": entry for inner, entry in value.items()}
        else:
            fields[name] = value
    return fields


@functools.lru_cache(maxsize=32)  # equal models are one, whose functions are compiled once
def _build(
    settings: ModelSettings, channels: int, conv_transpose: ConvTranspose, networks: Networks
) -> LatentEBM:
    for field, table in (
        ("prior_name", PRIORS),
        ("likelihood_name", LIKELIHOODS),
        ("encoder_name", ENCODERS),
    ):
        if (name := getattr(settings, field)) not in table:
            raise ValueError(f"{field} must be one of {', '.join(table)}, not {name!r}.")
    likelihood = LIKELIHOODS[settings.likelihood_name]
    prior = PRIORS[settings.prior_name](
        PriorSettings(
            settings.latent_dim,
            settings.prior_features,
            settings.prior_leak,
            settings.prior_activation,
        )
    )
    if networks.prior is not None:
        prior = _own_prior(networks.prior, settings.latent_dim)
    output = functools.partial(likelihood.output, settings.likelihood_sigma)
    first_size = settings.generator_first_size or settings.generator_kernel_size
    layers: dict[str, Any] = {
        "features": settings.generator_features,
        "widths": settings.generator_widths,
        "strides": settings.generator_strides,
        "kernel_size": settings.generator_kernel_size,
        "first_size": first_size,
        "leak": settings.generator_leak,
    }
    generator = _transform(
        make_generator_network(
            **layers,
            channels=channels,
            conv_transpose=conv_transpose,
            output=output,
        )
    )
    if networks.generator is not None:
        generator = _with_output(networks.generator, _transform(output))
    make_encoder_network, encoder = ENCODERS[settings.encoder_name], None
    if networks.encoder is not None:
        encoder = _own_encoder(networks.encoder)
    elif make_encoder_network is not None:
        convolution = convolution_for_backend(jax.default_backend())
        encoder = _transform(
            make_encoder_network(**layers, latent_dim=settings.latent_dim, convolution=convolution)
        )
    mean_of = likelihood.make(settings.likelihood_sigma).mean

    def init(key: PRNGKey) -> Params:
        key_prior, key_generator = jax.random.split(key)
        z = jnp.zeros((1, settings.latent_dim))
        params = {"prior": prior.init(key_prior), "generator": generator.init(key_generator, z)}
        if encoder is not None:
            image = jax.eval_shape(lambda z: mean_of(generator.apply(params["generator"], z)), z)
            x = jnp.zeros(image.shape)
            params["encoder"] = encoder.init(jax.random.fold_in(key, ENCODER), x)
        return params

    return LatentEBM(
        tilt=prior.tilt,
        generator=generator.apply,
        init=init,
        latent_dim=settings.latent_dim,
        prior_sigma=settings.prior_sigma,
        likelihood_sigma=settings.likelihood_sigma,
        make_prior=prior.make_prior,
        make_likelihood=likelihood.make,
        encoder=None if encoder is None else encoder.apply,
    )


def _own_prior(network: own.Functions, latent_dim: int) -> PriorParts:
    """A prior whose tilt is a user's network."""

    def init(key: PRNGKey) -> chex.ArrayTree:
        return network.init(key, jnp.zeros((1, latent_dim)))

    return PriorParts(init, network.apply, tilted_gaussian)


def _own_encoder(network: own.Functions) -> hk.Transformed:
    """A user's network of images, whose outputs [num, 2 * latent_dim] are m and log s."""

    def apply(params: chex.ArrayTree, x: Array) -> Encoding:
        return Encoding(*jnp.split(network.apply(params, x), 2, axis=1))

    return hk.Transformed(network.init, apply)


def _with_output(network: own.Functions, output: hk.Transformed) -> hk.Transformed:
    """A user's network, then the likelihood's output, each with its parameters."""

    def init(key: PRNGKey, z: Array) -> chex.ArrayTree:
        params = network.init(key, z)
        # No likelihood draws the first value of a parameter of its output.
        return {"network": params, "output": output.init(None, network.apply(params, z))}

    def apply(params: chex.ArrayTree, z: Array) -> Array:
        return output.apply(params["output"], network.apply(params["network"], z))

    return hk.Transformed(init, apply)


def _transform(network: Callable[[Array], Any]) -> hk.Transformed:
    """A Haiku function as a pair of pure functions; the networks draw no random numbers."""
    return cast(hk.Transformed, hk.without_apply_rng(hk.transform(network)))


def log_prior(model: LatentEBM, alpha: chex.ArrayTree, z: Array) -> Array:
    """log p_alpha(z) up to the constant log Z_alpha (eq. 1). [num, latent_dim] -> [num]."""
    chex.assert_shape(z, (None, model.latent_dim))
    return model.prior.log_density(alpha, z)


def observed_only(model: LatentEBM, observed: Array | None) -> LatentEBM:
    """The model of the observed data values alone; of all if `observed` is None.

    The generator's outputs stay those of complete images.

    Args:
      model: of complete images.
      observed: bool [*image_shape].

    Raises:
      ValueError: the likelihood has no densities of single data values.
    """
    if observed is None:
        return model
    likelihood = likelihoods.observed_only(model.likelihood, observed)
    return model._replace(make_likelihood=lambda sigma: likelihood)


def mean_images(model: LatentEBM, beta: chex.ArrayTree, z: Array) -> Array:
    """E[x | z] under p_beta(x | z): [num, latent_dim] -> [num, *image_shape] in [-1, 1]."""
    return model.likelihood.mean(model.generator(beta, z))


def log_likelihood(model: LatentEBM, beta: chex.ArrayTree, x: Array, z: Array) -> Array:
    """log p_beta(x | z) in nats, normalised (eq. 8 for the Gaussian likelihood).

    Args:
      model: the model.
      beta: the generator's parameters.
      x: images [num, *image_shape].
      z: latents [num, latent_dim].

    Returns:
      [num].
    """
    chex.assert_shape(z, (x.shape[0], model.latent_dim))
    return model.likelihood.log_density(x, model.generator(beta, z))


def log_power_posterior(
    model: LatentEBM, params: Params, x: Array, z: Array, temperature: Array
) -> Array:
    """log p(z | x, t) = t log p_beta(x | z) + log p_alpha(z) up to a constant (eq. 21).

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape].
      z: latents [num, latent_dim].
      temperature: t, a scalar or [num].

    Returns:
      [num].
    """
    return temperature * log_likelihood(model, params["generator"], x, z) + log_prior(
        model, params["prior"], z
    )


def with_compute_dtype(model: LatentEBM, dtype: jnp.dtype) -> LatentEBM:
    """The same model with its networks evaluated in `dtype` and their outputs given in float32.

    This is the precision policy of chains on an accelerator: parameters are unchanged, only the
    arithmetic inside the networks uses `dtype`. With float32 the model is returned unchanged.
    """
    if dtype == jnp.float32:
        return model

    def lower(tree: chex.ArrayTree) -> chex.ArrayTree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)

    def tilt(alpha: chex.ArrayTree, z: Array) -> Array:
        return model.tilt(lower(alpha), z.astype(dtype)).astype(jnp.float32)

    def generator(beta: chex.ArrayTree, z: Array) -> Array:
        return model.generator(lower(beta), z.astype(dtype)).astype(jnp.float32)

    return model._replace(tilt=tilt, generator=generator)
