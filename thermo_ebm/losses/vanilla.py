"""Direct maximum likelihood: the loss whose gradient is that of eq. 6 and 7."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import masked_mean
from thermo_ebm.losses.likelihoods import log_likelihoods, tilts
from thermo_ebm.losses.settings import check_sampler
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import SamplerSettings, TemperedChains, tempered_chains
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch

_ENDS = (0.0, 1.0)  # the temperatures of prior and posterior


class VanillaAux(NamedTuple):
    """Terms of the vanilla loss, each a mean over the batch."""

    log_likelihood: Array  # E_post[log p_beta(x | z)], scalar
    tilt_posterior: Array  # E_post[f_alpha(z)], scalar
    tilt_prior: Array  # E_prior[f_alpha(z)], scalar
    acceptance: Array  # acceptance rates of the chains of prior and posterior, [2]


class VanillaParts(NamedTuple):
    """Terms of the vanilla loss for each image, means over its chains."""

    log_likelihood: Array  # [num]
    tilt_posterior: Array  # [num]
    tilt_prior: Array  # [num]


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

    The value of L is not the negative log-likelihood; for converged chains, its gradient is that of
    the negative log-likelihood.

    Args:
      model: the model.
      params: alpha and beta.
      batch: this device's examples.
      key: consumed.
      sampler: the chains.
      axis_name: the pmapped axis the batch is spread over, if any.

    Returns:
      The loss over the whole batch, a scalar in nats per image, and its parts. With an axis, the
      gradient is this device's share: sum the shares over the devices.

    Raises:
      ValueError: for an unknown kernel or fewer than one chain per image.
    """
    check_batch(batch)
    check_sampler(sampler)
    chains = vanilla_draws(model, params, batch, key, sampler)
    values, parts = vanilla_surrogate(model, params, batch.images, chains.latents, sampler)
    loss, aux = vanilla_summary(parts, chains, batch.mask, axis_name)
    mean = masked_mean(values, batch.mask, axis_name)
    return jax.lax.stop_gradient(loss) + mean - jax.lax.stop_gradient(mean), aux


def vanilla_draws(
    model: LatentEBM, params: Params, batch: Batch, key: PRNGKey, sampler: SamplerSettings
) -> TemperedChains:
    """Detached chains of the prior and of the posterior, [2, M, num, latent_dim]."""
    return tempered_chains(
        model,
        jax.lax.stop_gradient(params),
        batch.images,
        batch.position,
        jnp.array(_ENDS),
        key,
        sampler._replace(exchange_every=0),
    )


def vanilla_surrogate(
    model: LatentEBM, params: Params, images: Array, latents: Array, sampler: SamplerSettings
) -> tuple[Array, VanillaParts]:
    """Each image's share of the loss [num], to be differentiated, and its parts."""
    likelihood = log_likelihoods(
        model, params["generator"], images, latents[1:], sampler.image_chunk
    )
    parts = VanillaParts(
        log_likelihood=likelihood[0].mean(axis=0),
        tilt_posterior=tilts(model, params["prior"], latents[1]).mean(axis=0),
        tilt_prior=tilts(model, params["prior"], latents[0]).mean(axis=0),
    )
    values = -(parts.log_likelihood + parts.tilt_posterior - parts.tilt_prior)
    return values, jax.lax.stop_gradient(parts)


def vanilla_summary(
    parts: VanillaParts, chains: TemperedChains, mask: Array, axis_name: str | None
) -> tuple[Array, VanillaAux]:
    """The loss's value and its parts over the whole batch."""
    means = masked_mean(jnp.stack(parts), mask, axis_name)
    acceptance = masked_mean(chains.acceptance, mask, axis_name)
    aux = VanillaAux(means[0], means[1], means[2], acceptance)
    return -(aux.log_likelihood + aux.tilt_posterior - aux.tilt_prior), aux
