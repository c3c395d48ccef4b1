"""What is measured after an epoch, inside `pmap`: validation loss, likelihood, gradient noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm import likelihood
from thermo_ebm.collectives import all_sum
from thermo_ebm.gradients.noise import GradientNoise, gradient_noise
from thermo_ebm.randomness import GRADIENT_NOISE, LIKELIHOOD, VALIDATION
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.train.batches import Layout, gather
from thermo_ebm.train.gradient import batch_gradient
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.tasks import AXIS, Task, current_schedule
from thermo_ebm.types import Array, Params, PRNGKey


def validate(task: Task, state: TrainState, part: Array, layout: Layout) -> tuple[Array, Any]:
    """Loss and its parts on the first validation images, weighted by the images of each batch."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, VALIDATION), state.step)

    def one(index: Array) -> tuple[Array, Any]:
        indices = index * task.batch_size + jnp.arange(task.batch_size)
        mask = (indices < task.num_val).astype(jnp.float32)
        batch = gather(part, jnp.minimum(indices, task.num_val - 1), mask, layout, AXIS)
        results = task.objective.loss(
            state.params, batch, jax.random.fold_in(key, index), current_schedule(task, state)
        )
        return jax.tree.map(lambda value: value * mask.sum(), results)

    sums = jax.lax.map(one, jnp.arange(task.val_batches))
    count = min(task.val_batches * task.batch_size, task.num_val)
    return jax.tree.map(lambda value: value.sum(axis=0) / count, sums)


class MeanLikelihood(NamedTuple):
    """Mean log-likelihood of the first validation images, in nats per image."""

    mean: Array  # by MBAR
    stderr: Array  # standard error of the mean for these images, from the chains alone


def evaluate_likelihood(
    task: Task, state: TrainState, part: Array, layout: Layout
) -> MeanLikelihood:
    """The held-out log-likelihood by the same estimator for all losses."""
    num, settings = min(task.likelihood_images, task.num_val), task.likelihood
    batch = gather(part, jnp.arange(num), jnp.ones(num), layout, AXIS)
    key = jax.random.fold_in(jax.random.fold_in(state.key, LIKELIHOOD), state.step)
    schedule = make_schedule("power", settings.num_temperatures, settings.power)
    found = likelihood.estimate(
        task.model,
        state.params,
        batch,
        schedule.temperatures,
        key,
        settings,
        AXIS,
    )
    # Padding repeats an image, whose figures are finite if the image's are.
    sums = (
        (found.log_marginal_likelihood * batch.mask).sum(),
        ((found.stderr * batch.mask) ** 2).sum(),
    )
    total, variance = all_sum(sums, AXIS)
    return MeanLikelihood(total / num, jnp.sqrt(variance) / num)


def measure_noise(task: Task, state: TrainState, part: Array, layout: Layout) -> GradientNoise:
    """The gradient's variance over repeated draws of batch and chains, parameters fixed."""

    schedule = current_schedule(task, state)

    def gradient(batch_key: PRNGKey, chain_key: PRNGKey) -> Params:
        shape = (task.batch_size * task.gradient_noise.accumulate,)
        indices = jax.random.choice(batch_key, task.num_train, shape, replace=False)
        return batch_gradient(task, state.params, indices, part, layout, chain_key, schedule).mean

    key = jax.random.fold_in(jax.random.fold_in(state.key, GRADIENT_NOISE), state.step)
    return gradient_noise(gradient, key, task.grad_noise_draws)
