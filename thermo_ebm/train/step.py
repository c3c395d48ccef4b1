"""One training step, as a pure function of one repetition's state on one device.

The functions here run inside `pmap` over `tasks.AXIS` (see `spmd.py`); batches, losses, gradients
and statistics are those of the whole batch, whatever the number of devices.
"""

from typing import Any

import jax
import jax.numpy as jnp

from thermo_ebm import readings, scopes
from thermo_ebm.gradients import amplification, halves
from thermo_ebm.gradients.statistics import GradientStatistics, gradient_statistics
from thermo_ebm.randomness import AMPLIFICATION, CHAINS
from thermo_ebm.train import optimisers
from thermo_ebm.train.batches import Layout
from thermo_ebm.train.gradient import Gradient, batch_gradient
from thermo_ebm.train.state import EpochSums, TrainState
from thermo_ebm.train.tasks import Task, current_schedule, step_key
from thermo_ebm.types import Array, Params


def train_step(task: Task, state: TrainState, part: Array, layout: Layout) -> TrainState:
    """One step: batch, loss, gradient, statistics, update (eq. 4 by both Adams).

    A step whose loss or gradient is not finite is counted and changes no parameter.

    Args:
      task: the task.
      state: the repetition's state, the same on every device.
      part: this device's training images, uint8 [per_device, *image_shape].
      layout: of the training images.

    Returns:
      The new state, the same on every device.
    """
    num = task.batch_size * task.gradient_noise.accumulate
    indices = jax.lax.dynamic_slice_in_dim(
        state.order, state.step % task.steps_per_epoch * num, num
    )
    key, schedule = step_key(state, CHAINS), current_schedule(task, state)
    with jax.named_scope(scopes.LOSS_AND_GRADIENT):
        found = batch_gradient(task, state.params, indices, part, layout, key, schedule)
    with jax.named_scope(scopes.UPDATE):
        return _updated(task, state, found)


def _updated(task: Task, state: TrainState, found: Gradient) -> TrainState:
    """The state after the update by a gradient, or unchanged but for the count of skipped steps."""
    statistics = gradient_statistics(found.mean)
    info, grads = _amplified(task, state, found)
    params, optimiser = optimisers.update(task.optimisers, grads, state.optimiser, state.params)
    # The variance is finite only if every entry of the gradient is; a finite gradient can still
    # take the parameters, or the optimisers' moments, out of the finite numbers.
    good = jnp.isfinite(found.loss) & jnp.isfinite(statistics.var)
    good &= _all_finite((params, optimiser))
    measured = measurements(task, found, statistics, info)
    measured = readings.complete(measured, jnp.nan)
    sums = EpochSums(jnp.ones((), jnp.int32), measured, found.aux.rejection)
    stepped = state._replace(
        params=params,
        optimiser=optimiser,
        sums=jax.tree.map(jnp.add, state.sums, sums),
        skipped_in_row=jnp.zeros((), jnp.int32),
        gradient_noise=state.gradient_noise
        if found.difference is None
        else amplification.observe(state.gradient_noise, found.difference),
    )
    skipped = state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
    chosen = jax.tree.map(lambda a, b: jnp.where(good, a, b), stepped, skipped)
    return chosen._replace(step=state.step + 1)


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _amplified(
    task: Task, state: TrainState, found: Gradient
) -> tuple[amplification.AmplificationInfo, Params]:
    """The gradient for the optimisers: clipped, then with the noise that `gradient_noise` asks for.

    Clipping acts on the mean gradient; the difference shrinks by the same factor.
    """
    grads, difference = found.mean, found.difference
    info = amplification.choose_amplification(task.gradient_noise, state.gradient_noise)
    if task.clip_norm:
        grads, difference = _clipped(task.clip_norm, grads, difference)
    if not amplification.changes_noise(task.gradient_noise) or difference is None:
        return info, grads
    return info, amplification.amplify(
        grads, difference, info.amplification, step_key(state, AMPLIFICATION)
    )


def _clipped(
    limit: float, grads: Params, difference: Params | None
) -> tuple[Params, Params | None]:
    """Both gradients, scaled so that the norm of the first does not exceed the limit."""
    norm = jnp.sqrt(halves.square(grads))

    def clip(leaf: Array) -> Array:
        return jnp.where(norm < limit, leaf, leaf / norm * limit)

    return jax.tree.map(clip, grads), jax.tree.map(clip, difference)


def measurements(
    task: Task,
    gradient: Gradient,
    statistics: GradientStatistics,
    info: amplification.AmplificationInfo,
) -> dict[str, Array]:
    """The readings of one step, scalars by the names of `readings.per_step()`."""
    aux = gradient.aux
    measured = {
        "train_loss": gradient.loss,
        "train_grad_mean": statistics.mean,
        "train_grad_var": statistics.var,
        "train_grad_var_prior": statistics.var_prior,
        "train_grad_var_generator": statistics.var_generator,
        "gradient_noise_amplification": info.amplification,
        "gradient_noise_saturated": info.saturated,
        "acceptance_prior": aux.acceptance[0],
        "acceptance_posterior": aux.acceptance[1:].mean(),
        "effective_sample_size": aux.effective_sample_size,
        "round_trips": aux.round_trips,
        "swap_rate": aux.swap_probability.mean(),
        "global_barrier": aux.rejection.sum(),
    }
    if gradient.difference is not None:
        measured |= _noise(gradient.mean, gradient.difference, info)
    return measured


def _noise(
    mean: Params, difference: Params, info: amplification.AmplificationInfo
) -> dict[str, Array]:
    """The noise |d|^2 per parameter and the signal; not finite for one image, without halves."""
    noise = halves.square(difference) / halves.size(difference)
    groups = {
        f"train_grad_noise_{group}": halves.square(part) / halves.size(part)
        for group, part in difference.items()
    }
    return groups | {
        "train_grad_noise": noise,
        "train_grad_signal": halves.square(mean) / halves.size(mean) - noise,
        "train_update_noise": info.amplification * noise,
    }


def run_steps(
    task: Task, state: TrainState, stop: Array, limit: Array, part: Array, layout: Layout
) -> TrainState:
    """Runs steps until `stop` steps are done, `limit` were taken, or too many were skipped."""

    def going(carry: tuple[Array, TrainState]) -> Array:
        taken, state = carry
        too_many = state.skipped_in_row >= task.max_skipped_steps
        return (taken < limit) & (state.step < stop) & ~too_many

    def body(carry: tuple[Array, TrainState]) -> tuple[Array, TrainState]:
        taken, state = carry
        return taken + 1, train_step(task, state, part, layout)

    return jax.lax.while_loop(going, body, (jnp.zeros((), jnp.int32), state))[1]
