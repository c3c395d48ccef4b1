"""The plain form of the training step: what the fast one is compared with, in time and in value.

Written the way LEBM code usually is: one chain for one example, under vmap; the temperatures one
after another in a scan; the framework's transposed convolution. It draws the same random numbers
and takes the same gradients as `thermo_ebm.losses`, so that both agree to rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.config.build import loss_settings, sampler_settings
from thermo_ebm.losses import LossSettings
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood, log_prior, make_model
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, chain_keys
from thermo_ebm.thermo.integral import neighbour_kl, thermodynamic_integral
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import make_schedule
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
    form, settings = _Form(model, sampler_settings(config)), loss_settings(config)

    def loss(params: Params, batch: Batch, key: PRNGKey) -> Array:
        # The framework's convolution takes the kernel the other way round; turned once a step.
        turned = jax.tree.map(lambda w: w[::-1, ::-1] if w.ndim == 4 else w, params.beta)
        params = params._replace(beta=turned)
        if config.loss.name == "vanilla":
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
        return log_prior(form.model, params.alpha, z[None])[0]

    return _chain(form.model, log_density, key, form.sampler.prior)


def _posterior_chain(form: _Form, params: Params, x: Array, t: Array, key: PRNGKey) -> Array:
    def log_density(z: Array) -> Array:
        prior = log_prior(form.model, params.alpha, z[None])[0]
        return t * log_likelihood(form.model, params.beta, x[None], z[None])[0] + prior

    return _chain(form.model, log_density, key, form.sampler.posterior)


def _likelihoods(form: _Form, beta: Any, x: Array, z: Array) -> Array:
    """log p_beta(x | z) of each example, [num]."""
    return jax.vmap(lambda x, z: log_likelihood(form.model, beta, x[None], z[None])[0])(x, z)


def _energies(form: _Form, alpha: Any, z: Array) -> Array:
    return jax.vmap(lambda z: form.model.energy(alpha, z[None])[0])(z)


def _vanilla_loss(form: _Form, params: Params, batch: Batch, key: PRNGKey) -> Array:
    fixed = jax.lax.stop_gradient(params)
    prior_keys, keys = (chain_keys(key, jnp.array(i), batch.position) for i in range(2))
    z_prior = jax.vmap(lambda key: _prior_chain(form, fixed, key))(prior_keys)
    z = jax.vmap(lambda x, key: _posterior_chain(form, fixed, x, jnp.ones(()), key))(
        batch.images, keys
    )
    likelihood = _likelihoods(form, params.beta, batch.images, z).mean()
    energy = _energies(form, params.alpha, z).mean() - _energies(form, params.alpha, z_prior).mean()
    return -(likelihood + energy)


def _thermodynamic_loss(
    form: _Form, params: Params, batch: Batch, key: PRNGKey, settings: LossSettings
) -> Array:
    fixed = jax.lax.stop_gradient(params)
    chains = Params(
        params.alpha if settings.prior_gradient == "langevin" else fixed.alpha,
        params.beta if settings.generator_gradient == "langevin" else fixed.beta,
    )
    beta = fixed.beta if settings.generator_gradient == "posterior" else params.beta
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    temperatures = schedule.temperatures
    keys = [
        chain_keys(key, jnp.array(i), batch.position) for i in range(settings.num_temperatures + 1)
    ]

    def one_temperature(_: None, inputs: tuple[Array, PRNGKey]) -> tuple[None, tuple]:
        t, keys = inputs
        z = jax.vmap(lambda x, key: _posterior_chain(form, chains, x, t, key))(batch.images, keys)
        return None, (z, _likelihoods(form, beta, batch.images, z).mean())

    z_0 = jax.vmap(lambda key: _prior_chain(form, chains, key))(keys[0])
    first = _likelihoods(form, beta, batch.images, z_0).mean()
    scanned = (temperatures[1:], jnp.stack(keys[1:]))
    _, (z, rest) = jax.lax.scan(one_temperature, None, scanned)
    z = jnp.concatenate([z_0[None], z])
    loss = -_integral(temperatures, jnp.append(first, rest), z, batch.mask, settings)
    return loss + _surrogate(form, params, batch, jax.lax.stop_gradient(z), settings)


def _integral(
    temperatures: Array, expected: Array, z: Array, mask: Array, settings: LossSettings
) -> Array:
    if settings.kl_form == "none":
        return thermodynamic_integral(temperatures, expected, quadrature=settings.quadrature)
    divergences = neighbour_kl(shrunk_moments(z, mask, settings.kl_shrinkage))
    weight, form, quadrature = settings.kl_weight, settings.kl_form, settings.quadrature
    return thermodynamic_integral(temperatures, expected, *divergences, weight, form, quadrature)


def _surrogate(
    form: _Form, params: Params, batch: Batch, z: Array, settings: LossSettings
) -> Array:
    """Zero, with the gradients that do not come from the integral."""
    value = jnp.zeros(())
    if settings.prior_gradient == "contrastive":
        value += _energies(form, params.alpha, z[0]).mean()
        value -= _energies(form, params.alpha, z[-1]).mean()
    if settings.generator_gradient == "posterior":
        value -= _likelihoods(form, params.beta, batch.images, z[-1]).mean()
    return value - jax.lax.stop_gradient(value)
