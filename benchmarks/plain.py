"""The plain form of the training step, with which the fast form is compared in time and value.

The plain form is written in the usual way of LEBM code: one chain for one example, under vmap; the
temperatures one after another in a scan; the framework's transposed convolution. It draws the same
random numbers and takes the same gradients as `thermo_ebm.losses`, so that both agree up to
rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.config.build import sampler_settings
from thermo_ebm.losses import VANILLA, LossSettings, is_differentiated
from thermo_ebm.losses.thermodynamic import MBAR_ITERATIONS
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood, log_prior, make_model
from thermo_ebm.randomness import all_chain_keys
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.sampling.chunks import tile
from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.integral import neighbour_kl, quadrature_correction, quadrature_weights
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.types import Array, Batch, Params, PRNGKey

Loss = Callable[[Params, Batch, PRNGKey], Array]


class _Form(NamedTuple):
    """What the losses are made of."""

    model: LatentEBM
    sampler: SamplerSettings


def make_loss(config: ConfigDict) -> Loss:
    """The loss that a configuration names, in its plain form."""
    model = make_model(config.model, config.data.channels)
    model = model._replace(generator=make_generator(config.model))
    form, settings = _Form(model, sampler_settings(config)), LossSettings.from_config(config)

    def loss(params: Params, batch: Batch, key: PRNGKey) -> Array:
        # The framework's convolution takes the kernel the other way round; turned once per step.
        turned = jax.tree.map(lambda w: w[::-1, ::-1] if w.ndim == 4 else w, params["generator"])
        params = params | {"generator": turned}
        if settings == VANILLA:
            return _vanilla_loss(form, params, batch, key)
        return _thermodynamic_loss(form, params, batch, key, settings)

    return loss


def make_generator(config: ConfigDict) -> Callable[[Any, Array], Array]:
    """g_beta of `config.model` for kernels turned by half a circle: z [num, D] -> images."""
    strides, leak = tuple(config.generator.strides), config.generator.leak

    def generator(beta: Any, z: Array) -> Array:
        x = z[:, None, None]
        for i, stride in enumerate(strides):
            x = jax.nn.leaky_relu(x, leak) if i else x
            weights, bias = beta[f"layer_{i}"]["w"], beta[f"layer_{i}"]["b"]
            padding = "SAME" if i else "VALID"
            x = jax.lax.conv_transpose(x, weights, (stride, stride), padding) + bias
        return jnp.tanh(x)

    return generator


def _chain(
    model: LatentEBM, log_density: Callable[[Array], Array], key: PRNGKey, settings: ChainSettings
) -> Array:
    """One chain of one example (eq. 9), [latent_dim]."""

    def noise(k: Array | int) -> Array:
        return jax.random.normal(jax.random.fold_in(key, k), (model.latent_dim,))

    def step(z: Array, k: Array) -> tuple[Array, None]:
        drift = settings.step_size * jax.grad(log_density)(z)
        return z + drift + jnp.sqrt(2 * settings.step_size) * noise(k), None

    start = model.prior_sigma * noise(0)
    return jax.lax.scan(step, start, jnp.arange(1, settings.num_steps + 1))[0]


def _prior_chain(form: _Form, params: Params, key: PRNGKey) -> Array:
    def log_density(z: Array) -> Array:
        return log_prior(form.model, params["prior"], z[None])[0]

    return _chain(form.model, log_density, key, form.sampler.prior)


def _posterior_chain(form: _Form, params: Params, x: Array, t: Array, key: PRNGKey) -> Array:
    def log_density(z: Array) -> Array:
        prior = log_prior(form.model, params["prior"], z[None])[0]
        return t * log_likelihood(form.model, params["generator"], x[None], z[None])[0] + prior

    return _chain(form.model, log_density, key, form.sampler.posterior)


def _likelihoods(form: _Form, beta: Any, x: Array, z: Array) -> Array:
    """log p_beta(x | z) of each example, [num]."""
    return jax.vmap(lambda x, z: log_likelihood(form.model, beta, x[None], z[None])[0])(x, z)


def _tilts(form: _Form, alpha: Any, z: Array) -> Array:
    return jax.vmap(lambda z: form.model.tilt(alpha, z[None])[0])(z)


def _vanilla_loss(form: _Form, params: Params, batch: Batch, key: PRNGKey) -> Array:
    fixed = jax.lax.stop_gradient(params)
    x, (prior_keys, keys) = _repeated(form, batch), _keys(form, batch, key, 2)
    z_prior = jax.vmap(lambda key: _prior_chain(form, fixed, key))(prior_keys)
    z = jax.vmap(lambda x, key: _posterior_chain(form, fixed, x, jnp.ones(()), key))(x, keys)
    likelihood = _likelihoods(form, params["generator"], x, z).mean()
    difference = (
        _tilts(form, params["prior"], z).mean() - _tilts(form, params["prior"], z_prior).mean()
    )
    return -(likelihood + difference)


def _repeated(form: _Form, batch: Batch) -> Array:
    """The images once for each of their chains, [M * num, ...]."""
    return tile(batch.images, form.sampler.chains_per_image)


def _keys(form: _Form, batch: Batch, key: PRNGKey, num: int) -> list[PRNGKey]:
    """Keys of the chains at each temperature, [M * num] each."""
    per_image = form.sampler.chains_per_image
    keys = all_chain_keys(key, jnp.arange(num), batch.position, per_image)
    return list(keys.reshape(num, -1))


def _thermodynamic_loss(
    form: _Form, params: Params, batch: Batch, key: PRNGKey, settings: LossSettings
) -> Array:
    fixed = jax.lax.stop_gradient(params)
    chains = {
        "prior": params["prior"] if settings.prior_gradient == "langevin" else fixed["prior"],
        "generator": params["generator"]
        if settings.generator_gradient == "langevin"
        else fixed["generator"],
    }
    direct = settings.generator_gradient in ("detached", "langevin")
    beta = params["generator"] if direct else fixed["generator"]
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    x, keys = _repeated(form, batch), _keys(form, batch, key, settings.num_temperatures + 1)

    def one_temperature(_: None, inputs: tuple[Array, PRNGKey]) -> tuple[None, tuple]:
        t, keys = inputs
        z = jax.vmap(lambda x, key: _posterior_chain(form, chains, x, t, key))(x, keys)
        return None, (z, _likelihoods(form, beta, x, z))

    z_0 = jax.vmap(lambda key: _prior_chain(form, chains, key))(keys[0])
    first = _likelihoods(form, beta, x, z_0)
    scanned = (schedule.temperatures[1:], jnp.stack(keys[1:]))
    _, (z, rest) = jax.lax.scan(one_temperature, None, scanned)
    z, likelihood = jnp.concatenate([z_0[None], z]), jnp.concatenate([first[None], rest])
    loss = -_integral(schedule, likelihood, z, form.sampler.chains_per_image, settings)
    fixed_z = jax.lax.stop_gradient(z)
    return loss + _surrogate(form, params, x, fixed_z, likelihood, schedule, settings)


def _integral(
    schedule: Schedule, likelihood: Array, z: Array, per_image: int, settings: LossSettings
) -> Array:
    """The corrected quadrature, from l [T, M * num] and latents [T, M * num, latent_dim]."""
    expected = likelihood.mean(axis=1)
    integral = jnp.sum(quadrature_weights(settings.quadrature, schedule) * expected)
    if settings.correction == "none":
        return integral
    if settings.correction == "pooled_gaussian":
        moments = shrunk_moments(z, jnp.ones(z.shape[1]))
        forward, backward = neighbour_kl(moments)
    else:
        of_image = jnp.moveaxis(likelihood.reshape(len(likelihood), per_image, -1), 2, 0)
        ratio = ratios.neighbour_ratios(schedule.temperatures, of_image).mean(axis=0)
        steps, fixed = jnp.diff(schedule.temperatures), jax.lax.stop_gradient(expected)
        forward, backward = ratio - steps * fixed[:-1], steps * fixed[1:] - ratio
    correction = quadrature_correction(
        schedule, expected, forward, backward, settings.kl_form, settings.quadrature
    )
    if not is_differentiated(settings):
        correction = jax.lax.stop_gradient(correction)
    return integral + settings.kl_weight * correction


def _surrogate(
    form: _Form,
    params: Params,
    x: Array,
    z: Array,
    likelihood: Array,
    schedule: Schedule,
    settings: LossSettings,
) -> Array:
    """Zero, with the gradients that do not come from the integral."""
    value, per_image = jnp.zeros(()), form.sampler.chains_per_image
    weights = jnp.zeros((len(z) - 1, x.shape[0])).at[-1].set(1.0)  # of t = 1 alone
    if settings.generator_gradient == "reweighted":
        by_image = jnp.moveaxis(likelihood[1:].reshape(len(z) - 1, per_image, -1), 2, 0)
        hot = ratios.posterior_weights(schedule.temperatures[1:], by_image, MBAR_ITERATIONS)
        weights = per_image * jnp.moveaxis(hot, 0, 2).reshape(weights.shape)

    def mean(values: Callable[[Array], Array]) -> Array:
        """Over the posterior, from the chains of t_1 .. t_N, one temperature after another."""

        def add(total: Array, temperature: tuple[Array, Array]) -> tuple[Array, None]:
            weight, z = temperature
            return total + jnp.mean(weight * values(z)), None

        return jax.lax.scan(add, jnp.zeros(()), (weights, z[1:]))[0]

    if settings.prior_gradient == "contrastive":
        value += _tilts(form, params["prior"], z[0]).mean()
        value -= mean(lambda z: _tilts(form, params["prior"], z))
    if settings.generator_gradient in ("posterior", "reweighted"):
        value -= mean(lambda z: _likelihoods(form, params["generator"], x, z))
    return value - jax.lax.stop_gradient(value)
