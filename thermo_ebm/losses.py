"""The two objectives: maximum likelihood directly (vanilla) and by thermodynamic integration.

A loss is the negative log-likelihood in nats per image. Its value and its gradient are chosen
apart: where a gradient comes from is a field of `LossSettings`, and no choice changes the value.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.collectives import masked_mean
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood, with_compute_dtype
from thermo_ebm.sampling.chains import (
    SamplerSettings,
    chain_keys,
    map_in_chunks,
    posterior_chains,
    prior_chains,
    tempered_chains,
    tile,
)
from thermo_ebm.thermo.integral import neighbour_kl, thermodynamic_integral
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import SCHEDULES
from thermo_ebm.types import Array, Batch, Params, PRNGKey

PRIOR_GRADIENTS = ("langevin", "contrastive", "none")
GENERATOR_GRADIENTS = ("langevin", "detached", "posterior")


class LossSettings(NamedTuple):
    """The thermodynamic loss: its schedule, its quadrature, and where its gradients come from."""

    num_temperatures: int = 10  # N_t
    schedule: str = "power"
    power: float = 1.0  # p
    quadrature: str = "trapezium"
    kl_form: str = "difference"  # "none" leaves the correction out
    kl_weight: float = 1.0  # eta
    kl_shrinkage: str = "oas"
    prior_gradient: str = "contrastive"
    generator_gradient: str = "detached"


class VanillaAux(NamedTuple):
    """What the vanilla loss is made of, each a mean over the batch."""

    log_likelihood: Array  # E_post[log p_beta(x | z)], scalar
    energy_posterior: Array  # E_post[f_alpha(z)], scalar
    energy_prior: Array  # E_prior[f_alpha(z)], scalar


class ThermodynamicAux(NamedTuple):
    """What the thermodynamic loss is made of."""

    temperatures: Array  # t_i, [num_temperatures + 1]
    expected_log_likelihood: Array  # E_i, [num_temperatures + 1]
    kl_forward: Array  # KL(p_i, p_(i+1)), [num_temperatures]
    kl_backward: Array  # KL(p_(i+1), p_i), [num_temperatures]


def vanilla_loss(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    key: PRNGKey,
    sampler: SamplerSettings,
    axis_name: str | None = None,
) -> tuple[Array, VanillaAux]:
    """The loss whose gradient is the maximum-likelihood gradient of eq. 6 and 7, chains detached.

    L = -(E_post[log p_beta(x | z)] + E_post[f_alpha(z)] - E_prior[f_alpha(z)])

    Args:
      model: the model.
      params: alpha and beta.
      batch: this device's examples.
      key: consumed.
      sampler: the chains.
      axis_name: the pmapped axis the batch is spread over, if any.

    Returns:
      The loss over the whole batch, a scalar in nats per image, and its parts. With an axis, its
      gradient is this device's share: sum it over the devices.
    """
    _check_batch(batch)
    fixed = jax.lax.stop_gradient(params)
    in_chains = with_compute_dtype(model, jnp.dtype(sampler.precision))
    keys = [chain_keys(key, jnp.array(i), batch.position) for i in range(2)]
    z_prior = prior_chains(in_chains, fixed.alpha, keys[0], sampler.prior)
    ones = jnp.ones(batch.images.shape[0])
    z_post = posterior_chains(in_chains, fixed, batch.images, ones, keys[1], sampler.posterior)
    parts = VanillaAux(
        log_likelihood=log_likelihood(model, params.beta, batch.images, z_post),
        energy_posterior=model.energy(params.alpha, z_post),
        energy_prior=model.energy(params.alpha, z_prior),
    )
    aux = VanillaAux(*masked_mean(jnp.stack(parts), batch.mask, axis_name))
    return -(aux.log_likelihood + aux.energy_posterior - aux.energy_prior), aux


def thermodynamic_loss(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    key: PRNGKey,
    sampler: SamplerSettings,
    settings: LossSettings,
    axis_name: str | None = None,
) -> tuple[Array, ThermodynamicAux]:
    """The negative thermodynamic integral (eq. 27), with the gradients that `settings` choose.

    `prior_gradient`: where alpha's gradient comes from.
      "langevin": through all K steps of the chains (the paper's text).
      "contrastive": E_1[grad f] - E_0[grad f], the derivative of the exact integral, from the
        chains at t = 1 and t = 0.
      "none": chains detached and nothing else.

    `generator_gradient`: where beta's comes from.
      "langevin": the total derivative, through the chains too.
      "detached": the quadrature's weighted sum of E_i over fixed chains.
      "posterior": E_1 over fixed chains, the derivative of the exact integral.

    Args:
      model: the model.
      params: alpha and beta.
      batch: this device's examples.
      key: consumed.
      sampler: the chains.
      settings: the loss.
      axis_name: the pmapped axis the batch is spread over, if any.

    Returns:
      The loss over the whole batch, a scalar in nats per image, and its parts. With an axis, its
      gradient is this device's share: sum it over the devices.

    Raises:
      ValueError: for an unknown name in `settings`.
    """
    _check_batch(batch)
    check_settings(settings)
    temperatures = SCHEDULES[settings.schedule](settings.num_temperatures, settings.power)
    z = tempered_chains(
        model,
        _only_if(
            params, settings.prior_gradient == "langevin", settings.generator_gradient == "langevin"
        ),
        batch.images,
        batch.position,
        temperatures,
        key,
        sampler,
    )
    # "posterior" takes nothing from the quadrature itself.
    in_integral = _only_if(params, False, settings.generator_gradient != "posterior")
    aux = _integrand(model, in_integral.beta, batch, temperatures, z, sampler, settings, axis_name)
    loss = -_estimate(aux, settings)

    fixed_z = jax.lax.stop_gradient(z)
    if settings.prior_gradient == "contrastive":
        energies = [model.energy(params.alpha, fixed_z[i]) for i in (-1, 0)]
        posterior, prior = masked_mean(jnp.stack(energies), batch.mask, axis_name)
        loss += _gradient_only(prior - posterior)
    if settings.generator_gradient == "posterior":
        values = log_likelihood(model, params.beta, batch.images, fixed_z[-1])
        loss += _gradient_only(-masked_mean(values, batch.mask, axis_name))
    return loss, aux


def check_settings(settings: LossSettings) -> None:
    """Raises ValueError for a gradient that does not exist; the rest is checked where used."""
    for field, names in (
        ("prior_gradient", PRIOR_GRADIENTS),
        ("generator_gradient", GENERATOR_GRADIENTS),
    ):
        name = getattr(settings, field)
        if name not in names:
            raise ValueError(f"{field} must be one of {', '.join(names)}, not {name!r}.")


def _integrand(
    model: LatentEBM,
    beta: chex.ArrayTree,
    batch: Batch,
    temperatures: Array,
    z: Array,
    sampler: SamplerSettings,
    settings: LossSettings,
    axis_name: str | None,
) -> ThermodynamicAux:
    """E_i and the divergences between neighbours, over the whole batch."""

    def chunk(z: Array) -> Array:
        x = tile(batch.images, z.shape[0])
        values = log_likelihood(model, beta, x, z.reshape(-1, z.shape[-1]))
        return values.reshape(z.shape[:2])

    # Recomputed on the way back, so that chunks bound the memory of the gradient as well.
    fn = jax.checkpoint(chunk) if sampler.temperature_chunk else chunk
    values = map_in_chunks(fn, z, sampler.temperature_chunk)
    moments = shrunk_moments(z, batch.mask, settings.kl_shrinkage, axis_name)
    return ThermodynamicAux(
        temperatures,
        masked_mean(values, batch.mask, axis_name),
        *neighbour_kl(moments),
    )


def _estimate(aux: ThermodynamicAux, settings: LossSettings) -> Array:
    """The estimate of log p(x) that `settings` ask for."""
    temperatures, expected_log_likelihood, kl_forward, kl_backward = aux
    if settings.kl_form == "none":
        return thermodynamic_integral(
            temperatures, expected_log_likelihood, quadrature=settings.quadrature
        )
    return thermodynamic_integral(
        temperatures,
        expected_log_likelihood,
        kl_forward,
        kl_backward,
        settings.kl_weight,
        settings.kl_form,
        settings.quadrature,
    )


def _only_if(params: Params, alpha: bool, beta: bool) -> Params:
    """The parameters, differentiable only where asked for."""
    fixed = jax.lax.stop_gradient(params)
    return Params(params.alpha if alpha else fixed.alpha, params.beta if beta else fixed.beta)


def _gradient_only(surrogate: Array) -> Array:
    """Zero, with the gradient of `surrogate`."""
    return surrogate - jax.lax.stop_gradient(surrogate)


def _check_batch(batch: Batch) -> None:
    num = batch.images.shape[0]
    chex.assert_shape([batch.position, batch.mask], (num,))
    chex.assert_type([batch.images, batch.mask], float)
