"""Chains continued until they have arrived, whatever sampler they come from.

Hamiltonian trajectories at t = 1 in the metric G + I / sigma_0^2, with G from probes at the states
themselves and a step size that adapts in the first third of the trajectories; the prior's chains
likewise, in the metric I. How many trajectories are enough is the caller's to find: E_1 no longer
rises.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.randomness import PROBE, STEP_NOISE, all_chain_keys, normal
from thermo_ebm.sampling import linear_reference
from thermo_ebm.sampling.chains import (
    Adaptation,
    ChainSettings,
    Latents,
    posterior_target,
    prior_target,
    run_chain,
)
from thermo_ebm.sampling.chunks import tile
from thermo_ebm.sampling.kernels import Info, Target, find_kernel
from thermo_ebm.sampling.linear_reference import LinearReference
from thermo_ebm.sampling.path import Path, curvature_products, inverse_factors
from thermo_ebm.types import Array, Batch, Params, PRNGKey

NUM_LEAPFROG = 4
FIRST_STEP_SIZE = 0.5  # in the metric


class Rounds(NamedTuple):
    """Trajectories of the continuation."""

    posterior: int = 30
    prior: int = 60


ENOUGH = Rounds()
FROM_PRIOR_ROUNDS = 100  # trajectories of posterior chains that begin at p0
PRIOR_STEPS_FROM_P0 = 200  # steps of chains of p_alpha that begin at p0


def posterior_latents(
    model: LatentEBM,
    params: Params,
    x: Array,
    key: PRNGKey,
    reference: LinearReference | None = None,
) -> Array:
    """One latent of each posterior p(z | x), from chains that run until arrival.

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape] in [-1, 1].
      key: consumed.
      reference: q(z | x), where the chains begin; None: they begin at p0, and take longer.

    Returns:
      [num, D].
    """
    num, rounds = x.shape[0], ENOUGH.posterior
    batch = Batch(x, jnp.arange(num), jnp.ones(num))
    start_key, key = jax.random.split(key)
    start_keys = jax.random.split(start_key, num)
    if reference is None:
        start, rounds = model.prior.sample_reference(start_keys), FROM_PRIOR_ROUNDS
    else:
        noise = normal(start_keys, STEP_NOISE, model.latent_dim)
        start = linear_reference.draw(reference, linear_reference.mean(reference, x), noise)
    states = Latents(start[None, None], start[None, None])
    moved = continue_chains(model, params, batch, states, key, Rounds(rounds, prior=0))
    return moved.ladder[0, 0]


def continue_chains(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    states: Latents,
    key: PRNGKey,
    rounds: Rounds = ENOUGH,
    axis_name: str | None = None,
) -> Latents:
    """States of prior and posterior after further trajectories.

    Args:
      model: the model.
      params: alpha and beta.
      batch: this device's examples.
      states: of the prior's chains, and of a ladder that ends at t = 1.
      key: consumed.
      rounds: numbers of trajectories.
      axis_name: the pmapped axis the batch is spread over, if any.

    Returns:
      The new states, at t = 1 alone: [1, M, num, D] each.
    """
    prior, posterior = states.prior[0], states.ladder[-1]
    per_image, num, dim = posterior.shape
    indices = jnp.arange(2)
    keys = all_chain_keys(key, indices, batch.position, per_image).reshape(2, -1)
    weights = jnp.tile(batch.mask, per_image)
    total = all_sum(weights.sum(), axis_name)
    flat = posterior.reshape(-1, dim)
    probe_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys[1], PROBE)
    products = curvature_products(model, params, flat, probe_keys, weights)
    curvature = all_sum(products, axis_name) / total
    factors = inverse_factors(model, None, curvature, jnp.ones(1))
    at_posterior = posterior_target(
        model, params, tile(batch.images, per_image), jnp.ones(len(flat)), path=Path(None, factors)
    )
    at_prior = prior_target(model, params["prior"], len(flat))

    def moved(target: Target, start: Array, keys: PRNGKey, num_rounds: int, size: float) -> Array:
        def update(log_step_size: Array, info: Info, k: Array) -> Array:
            acceptance = all_sum(jnp.sum(weights * info.acceptance), axis_name) / total
            change = acceptance - find_kernel("hmc").best_acceptance
            return log_step_size + jnp.where(k <= num_rounds // 3, change, 0.0)

        adaptation = Adaptation(jnp.log(jnp.float32(size)), update)
        settings = ChainSettings(adaptation, num_rounds, "hmc", NUM_LEAPFROG)
        return run_chain(target, start, keys, settings).latents.reshape(per_image, num, dim)

    prior_size = FIRST_STEP_SIZE * model.prior_sigma
    prior = moved(at_prior, prior.reshape(-1, dim), keys[0], rounds.prior, prior_size)
    posterior = moved(at_posterior, flat, keys[1], rounds.posterior, FIRST_STEP_SIZE)
    return Latents(posterior[None], prior[None])
