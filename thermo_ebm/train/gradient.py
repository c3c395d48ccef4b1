"""The gradient of one update and its difference between the batch's halves, inside `pmap`.

Losses and gradients are those of the whole batch, whatever the number of devices.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum
from thermo_ebm.gradients import halves
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.train.batches import Layout, gather
from thermo_ebm.train.tasks import AXIS, Task
from thermo_ebm.types import Array, Batch, Params, PRNGKey


class Gradient(NamedTuple):
    """The gradient of one update, the same on every device."""

    loss: Array
    aux: Any
    mean: Params  # g
    difference: Params | None  # d (see `gradients/halves.py`); None where it has no meaning


def batch_gradient(
    task: Task,
    params: Params,
    indices: Array,
    part: Array,
    layout: Layout,
    key: PRNGKey,
    schedule: Schedule,
) -> Gradient:
    """Loss and gradient over the complete batch, in as many parts as are accumulated.

    Examples keep their positions in the complete batch: n accumulated batches equal one batch n
    times as large.
    """
    size = task.batch_size

    def of_batch(number: Array | int, indices: Array) -> tuple[halves.HalvedSums, Array, Any]:
        batch = gather(part, indices, jnp.ones(size), layout, AXIS)
        batch = batch._replace(position=batch.position + number * size)
        if task.objective.differentiated:
            return _through_chains(task, params, batch, key, schedule)
        return _over_fixed_chains(task, params, batch, key, schedule)

    if len(indices) == size:
        sums, loss, aux = of_batch(0, indices)
    else:
        sums, loss, aux = _accumulated(of_batch, indices.reshape(-1, size))
    mean, difference = halves.combine(sums, AXIS)
    return Gradient(loss, aux, mean, difference if task.objective.mean_of_images else None)


def _accumulated(of_batch: Any, indices: Array) -> tuple[halves.HalvedSums, Array, Any]:
    """Sums of gradients, and means of losses, over batches [num, batch_size]."""
    num = indices.shape[0]
    shapes = jax.eval_shape(of_batch, 0, indices[0])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: Any, one: tuple[Array, Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, of_batch(*one)), None

    (sums, loss, aux), _ = jax.lax.scan(add, zeros, (jnp.arange(num), indices))
    return sums, loss / num, jax.tree.map(lambda leaf: leaf / num, aux)


def _over_fixed_chains(
    task: Task, params: Params, batch: Batch, key: PRNGKey, schedule: Schedule
) -> tuple[halves.HalvedSums, Array, Any]:
    """Chains once for the whole batch, then the gradient of each half."""
    objective = task.objective
    sums, parts, chains = halves.objective_sums(
        objective, params, batch, key, schedule, task.halves_together
    )
    return sums, *objective.summary(parts, chains, batch.mask, schedule)


def _through_chains(
    task: Task, params: Params, batch: Batch, key: PRNGKey, schedule: Schedule
) -> tuple[halves.HalvedSums, Array, Any]:
    """The gradient through the chains, for each half if it is a mean over images."""
    differentiate = jax.value_and_grad(task.objective.loss, has_aux=True)
    rows, there = halves.halves_of(batch.images.shape[0], batch.position[0])
    if not task.objective.mean_of_images:  # all in one half: there is no difference to measure
        (loss, aux), grads = differentiate(params, batch, key, schedule)
        count = jnp.stack([all_sum(batch.mask.sum(), AXIS), jnp.zeros(())])
        grads = jax.tree.map(lambda leaf: jnp.stack([count[0] * leaf, 0 * leaf]), grads)
        # `combine` adds counts over devices; gradients are shares of the whole batch's.
        return halves.HalvedSums(grads, count / _num_devices()), loss, aux

    def of_half(rows: Array, there: Array) -> tuple[Array, Any, Params, Array]:
        half = Batch(batch.images[rows], batch.position[rows], there * batch.mask[rows])
        (loss, aux), grads = differentiate(params, half, key, schedule)
        return loss, aux, grads, half.mask.sum()

    loss, aux, grads, own = jax.vmap(of_half)(rows, there)
    count = all_sum(own, AXIS)

    def counted(leaf: Array) -> Array:
        """Multiplies by the images of each half; a half without images has no mean."""
        number = count.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(number > 0, number * leaf, 0.0)

    def mean(leaf: Array) -> Array:
        return counted(leaf).sum(axis=0) / count.sum()

    sums = halves.HalvedSums(jax.tree.map(counted, grads), own)
    return sums, mean(loss), jax.tree.map(mean, aux)


def _num_devices() -> Array:
    return jax.lax.psum(1.0, AXIS)
