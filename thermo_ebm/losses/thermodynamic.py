"""Maximum likelihood by thermodynamic integration (eq. 27), and where its gradients come from."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.collectives import masked_mean
from thermo_ebm.losses.settings import LossSettings, check_settings
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood
from thermo_ebm.sampling.chains import SamplerSettings, map_in_chunks, tempered_chains, tile
from thermo_ebm.thermo.integral import neighbour_kl, thermodynamic_integral
from thermo_ebm.thermo.moments import shrunk_moments
from thermo_ebm.thermo.schedule import SCHEDULES
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch


class ThermodynamicAux(NamedTuple):
    """What the thermodynamic loss is made of."""

    temperatures: Array  # t_i, [num_temperatures + 1]
    expected_log_likelihood: Array  # E_i, [num_temperatures + 1]
    kl_forward: Array  # KL(p_i, p_(i+1)), [num_temperatures]
    kl_backward: Array  # KL(p_(i+1), p_i), [num_temperatures]


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
    check_batch(batch)
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
