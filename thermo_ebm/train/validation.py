"""What is measured after an epoch: validation loss, held-out likelihood, gradient noise and bias.

The functions here run inside `pmap` over `task.AXIS`, for one repetition.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.collectives import all_sum, masked_mean
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.gradients import bias, noise
from thermo_ebm.gradients.bias import GradientBias
from thermo_ebm.gradients.noise import NoiseSums
from thermo_ebm.likelihood import LikelihoodSettings, annealed_smc, verdict
from thermo_ebm.likelihood.proposal import prepare_from
from thermo_ebm.losses import Objective, vanilla_objective
from thermo_ebm.randomness import (
    GRADIENT_BIAS,
    GRADIENT_NOISE,
    LIKELIHOOD,
    NOISE_FLIPS,
    VALIDATION,
)
from thermo_ebm.sampling.arrival import continue_chains
from thermo_ebm.sampling.chains import Latents
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.train.state import TrainState, current_ladder
from thermo_ebm.train.step import Batches, batch_gradient, device_batch, flipped
from thermo_ebm.train.task import AXIS, Task
from thermo_ebm.types import Array, Params, PRNGKey

BIAS_BATCHES = 8  # of training images, on which the gradient's bias is measured
# One estimator of the held-out log p(x) for every run, so that the values can be compared.
HELD_OUT_IMAGES = 64
HELD_OUT_SETTINGS = LikelihoodSettings(
    error=0.5,  # of an image that counts as reliable
    num_temperatures=48,
    num_pairs=2048,
    num_probes=512,
    prior_chains=512,
    prior_temperatures=48,
)


class MeanLikelihood(NamedTuple):
    """Mean log p(x) of the first validation images, in nats per image."""

    mean: Array
    stderr: Array  # standard error of the mean for these images, from the chains alone
    reliable: Array  # share of the images whose estimate can be relied on; 0 if no image's can


def validate(task: Task, state: TrainState, batches: Batches) -> tuple[Array, Any]:
    """Loss and its terms on the validation images, weighted by the images of each batch.

    Args:
      task: the task.
      state: the repetition's state.
      batches: of the validation images, in order; beyond the last image it is repeated.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, VALIDATION), state.step)
    size, num_val = task.config.batch_size, task.config.data.num_val

    def weighted(index: Array) -> tuple[Array, Any]:
        batch = device_batch(batches.images[index], size)
        first = jax.lax.axis_index(AXIS) * len(batch.mask)
        exists = index * size + first + jnp.arange(len(batch.mask)) < num_val
        batch = batch._replace(mask=batch.mask * exists)
        batch_key = jax.random.fold_in(key, index)
        ladder = current_ladder(task, state)
        results = task.objective.loss(state.params, batch, batch_key, ladder)
        count = jnp.minimum(num_val - index * size, size).astype(jnp.float32)
        return jax.tree.map(lambda value: value * count, results)

    num_batches = batches.images.shape[0]
    sums = jax.lax.map(weighted, jnp.arange(num_batches))
    count = min(num_batches * size, num_val)
    return jax.tree.map(lambda value: value.sum(axis=0) / count, sums)


def evaluate_likelihood(task: Task, state: TrainState, batches: Batches) -> MeanLikelihood:
    """The held-out log p(x) by the same estimator for all losses.

    Args:
      task: the task.
      state: the repetition's state.
      batches: one batch of the first `HELD_OUT_IMAGES` validation images.
    """
    num, settings = min(HELD_OUT_IMAGES, task.config.data.num_val), HELD_OUT_SETTINGS
    batch = device_batch(batches.images[0], num)
    key = jax.random.fold_in(jax.random.fold_in(state.key, LIKELIHOOD), state.step)
    shape = batch.images.shape[1:]
    preparation = prepare_from(task.model, state.params, key, shape, settings.compiled())
    schedule = annealed_smc.pilot(preparation, batch.images, key, settings.compiled())
    num_temperatures = jnp.full(len(batch.mask), settings.num_temperatures)
    schedule = schedule._replace(num_temperatures=num_temperatures)
    estimates = annealed_smc.estimate(preparation, batch.images, schedule, key, settings.compiled())
    # Padding repeats an image, whose figures are finite if the image's are.
    values, stderr = estimates.log_marginal_likelihood, estimates.stderr
    reliable = verdict.are_reliable(estimates, settings)
    sums = [jnp.sum(batch.mask * leaf) for leaf in (values, stderr**2, reliable)]
    total, variance, num_reliable = all_sum(sums, AXIS)
    error = jnp.sqrt(variance / num**2 + preparation.prior.stderr**2)
    is_known = verdict.is_reliable_prior(preparation.prior, settings.prior_chains)
    share = jnp.where(is_known, num_reliable / num, 0.0)
    return MeanLikelihood(total / num, error, share)


def noise_numbers(task: Task, state: TrainState, block: Array) -> Array:
    """Numbers of the images of a block's two updates, int32 [2 * accumulate, batch_size]."""
    batch_keys = noise.block_keys(_noise_key(state), block)[:2]
    num_train, shape = task.config.data.num_train, (task.images_per_step,)
    draws = [jax.random.choice(key, num_train, shape, replace=False) for key in batch_keys]
    return jnp.concatenate(draws).reshape(-1, task.config.batch_size)


def add_noise_block(
    task: Task, state: TrainState, sums: NoiseSums, batches: Batches
) -> tuple[NoiseSums, Array]:
    """Adds a block to the crossed design of batches and chains, parameters fixed.

    Args:
      task: the task.
      state: the repetition's state.
      sums: over the blocks so far.
      batches: those of `noise_numbers` for the next block.

    Returns:
      The sums, unchanged if they were resolved, and whether they are resolved now.
    """
    ladder = current_ladder(task, state)

    def gradient(of_update: Batches, chain_key: PRNGKey) -> Params:
        return batch_gradient(task, state.params, of_update, chain_key, ladder).mean

    of_updates = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batches)
    if task.config.data.flip:
        key = jax.random.fold_in(jax.random.fold_in(state.key, NOISE_FLIPS), state.step)
        flip_keys = noise.block_keys(key, sums.blocks)[:2]
        of_updates = jax.vmap(flipped)(of_updates, flip_keys)
    chain_keys = noise.block_keys(_noise_key(state), sums.blocks)[2:]
    is_resolved = noise.is_resolved(sums, task.grad_noise_draws)
    added = noise.add_block(gradient, sums, of_updates, chain_keys)
    sums = jax.tree.map(lambda old, new: jnp.where(is_resolved, old, new), sums, added)
    return sums, noise.is_resolved(sums, task.grad_noise_draws)


def gradient_bias(task: Task, state: TrainState, batches: Batches) -> dict[str, GradientBias]:
    """The bias of the mean gradient, by parameter group, against chains that have arrived.

    Args:
      task: the task.
      state: the repetition's state.
      batches: a fixed set of batches of training images, at least 3.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, GRADIENT_BIAS), state.step)
    ladder, params = current_ladder(task, state), state.params
    objective, size = task.objective, task.config.batch_size
    sampler = sampler_settings(task.config)._replace(start="prior")
    arrived = vanilla_objective(task.model, sampler, AXIS)

    def of_batch(index: Array) -> tuple[Params, Params]:
        batch = device_batch(batches.images[index], size)
        chains_key, rest_key = jax.random.split(jax.random.fold_in(key, index))
        chains = objective.draw(params, batch, chains_key, ladder)

        def mean_gradient(of: Objective, ladder: Ladder, states: Latents) -> Params:
            def mean(params: Params) -> Array:
                values = of.surrogate(ladder, params, batch.images, states)[0]
                return masked_mean(values, batch.mask, AXIS)

            return all_sum(jax.grad(mean)(params), AXIS)

        if objective.differentiated:
            used = jax.grad(objective.loss, has_aux=True)(params, batch, chains_key, ladder)
            used = all_sum(used[0], AXIS)
        else:
            used = mean_gradient(objective, ladder, chains.states)
        ends = continue_chains(task.model, params, batch, chains.states, rest_key, axis_name=AXIS)
        return used, mean_gradient(arrived, Ladder(ladder.schedule), ends)

    gradients = jax.lax.map(of_batch, jnp.arange(batches.images.shape[0]))
    return {group: bias.gradient_bias(*(g[group] for g in gradients)) for group in params}


def bias_numbers(task: Task) -> np.ndarray:
    """Numbers of the training images on which the bias is measured, [num, batch_size]."""
    size, num_train = task.config.batch_size, task.config.data.num_train
    num = min(BIAS_BATCHES, num_train // size)
    return np.arange(num * size).reshape(num, size)


def _noise_key(state: TrainState) -> PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(state.key, GRADIENT_NOISE), state.step)
