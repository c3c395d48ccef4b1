"""What is measured after an epoch: validation loss, held-out likelihood, gradient noise.

The functions here run inside `pmap` over `task.AXIS`, for one repetition.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm import likelihood
from thermo_ebm.collectives import all_sum
from thermo_ebm.gradients import noise
from thermo_ebm.gradients.noise import NoiseSums
from thermo_ebm.likelihood import LikelihoodSettings
from thermo_ebm.randomness import GRADIENT_NOISE, LIKELIHOOD, VALIDATION
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.train.state import TrainState, current_path, current_schedule
from thermo_ebm.train.step import Batches, batch_gradient, device_batch
from thermo_ebm.train.task import AXIS, Task
from thermo_ebm.types import Array, Params, PRNGKey

# One estimator of the held-out log p(x) for every run, so that the values can be compared.
HELD_OUT_IMAGES = 64
HELD_OUT_SETTINGS = LikelihoodSettings(
    num_temperatures=24, chains_per_image=8, steps_per_temperature=10, prior_steps=100, pilots=0
)


class MeanLikelihood(NamedTuple):
    """Mean log p(x) of the first validation images, in nats per image."""

    mean: Array  # by MBAR
    stderr: Array  # standard error of the mean for these images, from the chains alone


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
        schedule, path = current_schedule(task, state), current_path(task, state)
        results = task.objective.loss(state.params, batch, batch_key, schedule, path)
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
    schedule = make_schedule("power", settings.num_temperatures, settings.power)
    estimate = likelihood.estimate(
        task.model,
        state.params,
        batch,
        schedule.temperatures,
        key,
        settings,
        AXIS,
    )
    # Padding repeats an image, whose figures are finite if the image's are.
    values, stderr = estimate.log_marginal_likelihood * batch.mask, estimate.stderr * batch.mask
    sums = values.sum(), (stderr**2).sum()
    total, variance = all_sum(sums, AXIS)
    return MeanLikelihood(total / num, jnp.sqrt(variance) / num)


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
    schedule = current_schedule(task, state)

    def gradient(of_update: Batches, chain_key: PRNGKey) -> Params:
        params, path = state.params, state.path
        return batch_gradient(task, params, of_update, chain_key, schedule, path).mean

    of_updates = jax.tree.map(lambda leaf: leaf.reshape(2, -1, *leaf.shape[1:]), batches)
    chain_keys = noise.block_keys(_noise_key(state), sums.blocks)[2:]
    is_resolved = noise.is_resolved(sums, task.grad_noise_draws)
    added = noise.add_block(gradient, sums, of_updates, chain_keys)
    sums = jax.tree.map(lambda old, new: jnp.where(is_resolved, old, new), sums, added)
    return sums, noise.is_resolved(sums, task.grad_noise_draws)


def _noise_key(state: TrainState) -> PRNGKey:
    return jax.random.fold_in(jax.random.fold_in(state.key, GRADIENT_NOISE), state.step)
