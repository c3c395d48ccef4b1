"""One training step, as a pure function of one repetition's state on one device.

A `Task` is what stays the same through a run: the model, the loss and the optimisers. The
functions here run inside `pmap` over `AXIS` (see `programs.py`); batches, losses, gradients and
statistics are those of the whole batch, whatever the number of devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from thermo_ebm.collectives import all_sum
from thermo_ebm.config.build import make_loss
from thermo_ebm.gradients.noise import GradientNoise, gradient_noise
from thermo_ebm.gradients.statistics import gradient_statistics
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.train import optimisers
from thermo_ebm.train.batches import Layout, gather
from thermo_ebm.train.optimisers import Optimisers
from thermo_ebm.train.state import (
    CHAINS,
    INIT,
    NOISE,
    VALIDATION,
    EpochSums,
    TrainState,
    begin_epoch,
    zero_sums,
)
from thermo_ebm.types import Array, Batch, Params, PRNGKey

AXIS = "devices"

LossFn = Callable[[Params, Batch, PRNGKey], tuple[Array, Any]]


class Task(NamedTuple):
    """What a run trains, and how."""

    model: LatentEBM
    loss: LossFn  # (params, batch, key) -> loss over the whole batch, its parts
    optimisers: Optimisers
    batch_size: int
    steps_per_epoch: int
    num_train: int
    num_val: int
    val_batches: int
    clip_norm: float  # 0 clips nothing
    max_skipped_steps: int
    grad_noise_draws: int


def make_task(config: ConfigDict, axis_name: str | None = AXIS) -> Task:
    """Builds the task of a checked configuration. An epoch leaves out an incomplete last batch."""
    model = make_model(config.model, config.data.channels)
    steps_per_epoch = config.data.num_train // config.batch_size
    val_batches = -(-config.data.num_val // config.batch_size)
    return Task(
        model=model,
        loss=make_loss(config, model, axis_name),
        optimisers=optimisers.make_optimisers(config.optimizer, steps_per_epoch),
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
        num_train=config.data.num_train,
        num_val=config.data.num_val,
        val_batches=min(config.val_batches or val_batches, val_batches),
        clip_norm=config.optimizer.clip_norm,
        max_skipped_steps=min(config.divergence.max_skipped_steps, steps_per_epoch),
        grad_noise_draws=config.logging.grad_noise_draws,
    )


def init_state(task: Task, seed: Array) -> TrainState:
    """The state before the first step; the seed is a scalar."""
    key = jax.random.key(seed)
    params = task.model.init(jax.random.fold_in(key, INIT))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        params=params,
        optimiser=optimisers.init(task.optimisers, params),
        step=zero,
        key=key,
        branch=zero,
        order=jnp.arange(task.num_train, dtype=jnp.int32),
        sums=zero_sums(),
        skipped=zero,
        skipped_in_row=zero,
    )
    return begin_epoch(state, zero)


def train_step(task: Task, state: TrainState, part: Array, layout: Layout) -> TrainState:
    """One step: batch, loss, gradient, statistics, update (eq. 4 by both Adams).

    A step whose loss or gradient is not finite changes no parameter and is counted.

    Args:
      task: the task.
      state: the repetition's state, the same on every device.
      part: this device's training images, uint8 [per_device, *image_shape].
      layout: of the training images.

    Returns:
      The new state, the same on every device.
    """
    first = state.step % task.steps_per_epoch * task.batch_size
    indices = jax.lax.dynamic_slice_in_dim(state.order, first, task.batch_size)
    batch = gather(part, indices, jnp.ones(task.batch_size), layout, AXIS)
    loss, grads = _gradient(task, state.params, batch, _step_key(state))
    statistics = gradient_statistics(grads)
    if task.clip_norm:
        grads, _ = optax.clip_by_global_norm(task.clip_norm).update(grads, optax.EmptyState())
    params, optimiser = optimisers.update(task.optimisers, grads, state.optimiser, state.params)
    # The variance is finite only if every entry of the gradient is; a finite gradient can still
    # take the parameters, or the optimisers' moments, out of the finite numbers.
    good = jnp.isfinite(loss) & jnp.isfinite(statistics.var) & _all_finite((params, optimiser))
    stepped = state._replace(
        params=params,
        optimiser=optimiser,
        sums=jax.tree.map(
            jnp.add, state.sums, EpochSums(loss, *statistics, jnp.ones((), jnp.int32))
        ),
        skipped_in_row=jnp.zeros((), jnp.int32),
    )
    skipped = state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
    chosen = jax.tree.map(lambda a, b: jnp.where(good, a, b), stepped, skipped)
    return chosen._replace(step=state.step + 1)


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _step_key(state: TrainState) -> PRNGKey:
    key = jax.random.fold_in(jax.random.fold_in(state.key, CHAINS), state.branch)
    return jax.random.fold_in(key, state.step)


def _gradient(task: Task, params: Params, batch: Batch, key: PRNGKey) -> tuple[Array, Params]:
    """Loss and gradient over the whole batch, the same on every device."""
    (loss, _), grads = jax.value_and_grad(task.loss, has_aux=True)(params, batch, key)
    return loss, all_sum(grads, AXIS)


def run_steps(
    task: Task, state: TrainState, stop: Array, limit: Array, part: Array, layout: Layout
) -> TrainState:
    """Steps until `stop` steps are done in all, or `limit` were taken, or too many were skipped."""

    def going(carry: tuple[Array, TrainState]) -> Array:
        taken, state = carry
        too_many = state.skipped_in_row >= task.max_skipped_steps
        return (taken < limit) & (state.step < stop) & ~too_many

    def body(carry: tuple[Array, TrainState]) -> tuple[Array, TrainState]:
        taken, state = carry
        return taken + 1, train_step(task, state, part, layout)

    return jax.lax.while_loop(going, body, (jnp.zeros((), jnp.int32), state))[1]


def validate(task: Task, state: TrainState, part: Array, layout: Layout) -> tuple[Array, Any]:
    """Loss and its parts on the first validation images, weighted by the images of each batch."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, VALIDATION), state.step)

    def one(index: Array) -> tuple[Array, Any]:
        indices = index * task.batch_size + jnp.arange(task.batch_size)
        mask = (indices < task.num_val).astype(jnp.float32)
        batch = gather(part, jnp.minimum(indices, task.num_val - 1), mask, layout, AXIS)
        results = task.loss(state.params, batch, jax.random.fold_in(key, index))
        return jax.tree.map(lambda value: value * mask.sum(), results)

    sums = jax.lax.map(one, jnp.arange(task.val_batches))
    count = min(task.val_batches * task.batch_size, task.num_val)
    return jax.tree.map(lambda value: value.sum(axis=0) / count, sums)


def measure_noise(task: Task, state: TrainState, part: Array, layout: Layout) -> GradientNoise:
    """The gradient's variance over repeated draws of batch and chains, parameters fixed."""

    def gradient(batch_key: PRNGKey, chain_key: PRNGKey) -> Params:
        shape = (task.batch_size,)
        indices = jax.random.choice(batch_key, task.num_train, shape, replace=False)
        batch = gather(part, indices, jnp.ones(shape), layout, AXIS)
        return _gradient(task, state.params, batch, chain_key)[1]

    key = jax.random.fold_in(jax.random.fold_in(state.key, NOISE), state.step)
    return gradient_noise(gradient, key, task.grad_noise_draws)
