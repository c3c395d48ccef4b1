"""Maximum likelihood directly: the loss whose gradient is that of eq. 6 and 7."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import masked_mean
from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood, with_compute_dtype
from thermo_ebm.sampling.chains import SamplerSettings, chain_keys, posterior_chains, prior_chains
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch


class VanillaAux(NamedTuple):
    """What the vanilla loss is made of, each a mean over the batch."""

    log_likelihood: Array  # E_post[log p_beta(x | z)], scalar
    energy_posterior: Array  # E_post[f_alpha(z)], scalar
    energy_prior: Array  # E_prior[f_alpha(z)], scalar


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
    check_batch(batch)
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
