"""The latent-space energy-based prior model: its densities, in the paper's order. Open this first.

    p0(z)         = N(0, sigma_0^2 I)                                    reference prior
    p_alpha(z)    ~ exp(f_alpha(z)) p0(z)                                prior, eq. 1
    p_beta(x | z) = N(g_beta(z), sigma_l^2 I)                            likelihood, eq. 2 and 8
    p(z | x, t)   ~ p_beta(x | z)^t p_alpha(z)                           power posterior, eq. 21

Any pair of callables f_alpha, g_beta with the signatures of `types.py` makes a model.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import chex
import haiku as hk
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.models.conv_transpose import ConvTranspose, for_backend
from thermo_ebm.models.generator import make_generator_network
from thermo_ebm.models.prior import make_prior_network
from thermo_ebm.types import Array, EnergyFn, GeneratorFn, Params, PRNGKey


class LatentEBM(NamedTuple):
    """A model: two pure functions and the two standard deviations."""

    energy: EnergyFn  # f_alpha: (alpha, z [num, latent_dim]) -> [num]
    generator: GeneratorFn  # g_beta: (beta, z [num, latent_dim]) -> [num, *image_shape]
    init: Callable[[PRNGKey], Params]
    latent_dim: int
    prior_sigma: float  # sigma_0
    likelihood_sigma: float  # sigma_l


def make_model(
    config: ConfigDict, channels: int, conv_transpose: ConvTranspose | None = None
) -> LatentEBM:
    """Builds the networks of table 6 from `config.model`.

    Args:
      config: `config.model`.
      channels: channels of the image.
      conv_transpose: the form of the transposed convolution; by default the fastest here.

    Returns:
      The model. Nothing is computed until its functions are called.
    """
    prior = _transform(make_prior_network(config.prior.features, config.prior.leak))
    generator = _transform(
        make_generator_network(
            features=config.generator.features,
            widths=config.generator.widths,
            strides=config.generator.strides,
            channels=channels,
            kernel_size=config.generator.kernel_size,
            leak=config.generator.leak,
            conv_transpose=conv_transpose or for_backend(jax.default_backend()),
        )
    )

    def init(key: PRNGKey) -> Params:
        key_prior, key_generator = jax.random.split(key)
        z = jnp.zeros((1, config.latent_dim))
        return Params(prior.init(key_prior, z), generator.init(key_generator, z))

    return LatentEBM(
        energy=prior.apply,
        generator=generator.apply,
        init=init,
        latent_dim=config.latent_dim,
        prior_sigma=config.prior_sigma,
        likelihood_sigma=config.likelihood_sigma,
    )


def _transform(network: Callable[[Array], Array]) -> hk.Transformed:
    """A Haiku function as a pair of pure ones; the networks draw no random numbers."""
    return cast(hk.Transformed, hk.without_apply_rng(hk.transform(network)))


def log_prior(model: LatentEBM, alpha: chex.ArrayTree, z: Array) -> Array:
    """log p_alpha(z) up to the constant log Z_alpha (eq. 1). [num, latent_dim] -> [num]."""
    chex.assert_shape(z, (None, model.latent_dim))
    return model.energy(alpha, z) - jnp.sum(z**2, axis=-1) / (2 * model.prior_sigma**2)


def log_likelihood(model: LatentEBM, beta: chex.ArrayTree, x: Array, z: Array) -> Array:
    """log p_beta(x | z) in nats, normalised (eq. 8).

    Args:
      model: the model.
      beta: the generator's parameters.
      x: images [num, *image_shape].
      z: latents [num, latent_dim].

    Returns:
      [num].
    """
    chex.assert_shape(z, (x.shape[0], model.latent_dim))
    mean = model.generator(beta, z)
    chex.assert_equal_shape([x, mean])
    dim = math.prod(x.shape[1:])
    variance = model.likelihood_sigma**2
    squared_error = jnp.sum((x - mean) ** 2, axis=tuple(range(1, x.ndim)))
    return -squared_error / (2 * variance) - dim / 2 * math.log(2 * math.pi * variance)


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
    return temperature * log_likelihood(model, params.beta, x, z) + log_prior(
        model, params.alpha, z
    )


def with_compute_dtype(model: LatentEBM, dtype: jnp.dtype) -> LatentEBM:
    """The same model with its networks evaluated in `dtype` and their outputs given in float32.

    The precision policy of chains on an accelerator: parameters stay as they are, only the
    arithmetic inside the networks changes. With float32 the model comes back unchanged.
    """
    if dtype == jnp.float32:
        return model

    def lower(tree: chex.ArrayTree) -> chex.ArrayTree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)

    def energy(alpha: chex.ArrayTree, z: Array) -> Array:
        return model.energy(lower(alpha), z.astype(dtype)).astype(jnp.float32)

    def generator(beta: chex.ArrayTree, z: Array) -> Array:
        return model.generator(lower(beta), z.astype(dtype)).astype(jnp.float32)

    return model._replace(energy=energy, generator=generator)
