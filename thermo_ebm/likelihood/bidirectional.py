"""Bounds on log p(x) from both sides, on images simulated from the model (Grosse et al. 2015).

An image x = g(z) + sigma_l epsilon with z from the prior comes with an exact sample of its
posterior, namely z. Chains that start at this z and are annealed down to t = 0 give weights with

    log w' = -sum_k (t_k - t_(k-1)) l(z_k),        E w' = 1 / p(x),

so that -log mean w' is a stochastic upper bound on log p(x), just as log mean w of the chains
annealed up is a lower bound. The gap between the two bounds the error of both, on images like the
model's own. The upper bound assumes that z is a sample of p_alpha: long chains draw z
(`settings.simulation_steps`).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.likelihood.annealing import Annealer, LikelihoodSettings
from thermo_ebm.likelihood.estimators import forward_log_weights, log_mean_exp, summarise
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.randomness import STEP_NOISE, chain_keys, normal
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch


class Bounds(NamedTuple):
    """Bounds and estimate for each simulated image, in nats."""

    lower: Array  # from chains annealed from the prior to the posterior, [num]
    log_marginal_likelihood: Array  # MBAR's estimate from those chains, [num]
    stderr: Array  # standard error of MBAR's estimate, [num]
    upper: Array  # from chains annealed from the image's own latent to the prior, [num]


def simulate(
    model: LatentEBM,
    params: Params,
    positions: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
) -> tuple[Array, Array]:
    """Simulates images from the model; returns them with the latents that made them.

    Args:
      model: the model.
      params: alpha and beta.
      positions: [num], from which each image's random numbers come.
      key: consumed.
      settings: `simulation_steps` is the length of the prior's chains.

    Returns:
      x, [num, *image_shape], not clipped to [-1, 1]; and z, [num, latent_dim].
    """
    chex.assert_rank(positions, 1)
    latent_key, noise_key = jax.random.split(key)
    single = settings._replace(chains_per_image=1, prior_steps=settings.simulation_steps)
    mask = jnp.ones(positions.shape[0])
    annealer = Annealer(model, params, single, positions, mask, latent_key)
    z = annealer.prior_latents()[0][0]
    mean = model.generator(params["generator"], z)
    keys = chain_keys(noise_key, 0, positions)
    noise = normal(keys, STEP_NOISE, mean[0].size).reshape(mean.shape)
    return mean + model.likelihood_sigma * noise, z


def bidirectional(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    latents: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
) -> Bounds:
    """Both bounds and the estimate between them; can be jitted.

    Args:
      model: the model.
      params: alpha and beta.
      batch: images from `simulate`, with positions and mask as for `estimate`.
      latents: the latents that made the images, [num, latent_dim].
      temperatures: t_0 = 0 .. t_N = 1, [num_temperatures + 1].
      key: consumed.
      settings: the estimator.
    """
    check_batch(batch)
    chex.assert_shape(latents, (batch.images.shape[0], model.latent_dim))
    up_key, down_key = jax.random.split(key)
    up = Annealer(model, params, settings, batch.position, batch.mask, up_key)
    z, log_step_size = up.prior_latents()
    rising = up.anneal(batch.images, z, temperatures, log_step_size)
    estimate = summarise(up, batch.images, temperatures, rising)
    exact = jnp.broadcast_to(latents, (settings.chains_per_image, *latents.shape))
    down = up._replace(key=down_key)
    falling = down.anneal(batch.images, exact, temperatures[::-1], rising.log_step_size)
    upper = -log_mean_exp(forward_log_weights(temperatures[::-1], falling.log_likelihood))[0]
    return Bounds(estimate.annealed, estimate.log_marginal_likelihood, estimate.stderr, upper)
