"""One training step, as a pure function of one repetition's state on one device.

The functions here run inside `pmap` over `task.AXIS` (see `programs.py`); batches, losses,
gradients and statistics are those of the complete batch, whatever the number of devices.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm import readings, scopes
from thermo_ebm.collectives import all_sum
from thermo_ebm.data import to_unit
from thermo_ebm.data.flips import flip
from thermo_ebm.gradients import amplification, halves
from thermo_ebm.gradients.averages import update_average
from thermo_ebm.gradients.optimisers import (
    Displacement,
    NoisyGradient,
    OptimiserState,
    choose_gradients,
    num_updates,
    update,
)
from thermo_ebm.gradients.statistics import GradientStatistics, gradient_statistics
from thermo_ebm.losses import LossTerms
from thermo_ebm.randomness import AMPLIFICATION, CHAINS, FLIPS
from thermo_ebm.sampling.path import Ladder, Observation, updated
from thermo_ebm.train.state import (
    EpochSums,
    TrainState,
    current_ladder,
    step_key,
)
from thermo_ebm.train.task import AXIS, Task
from thermo_ebm.types import Array, Batch, Params, PRNGKey


class Batches(NamedTuple):
    """Images of some batches, of which each device has its share."""

    images: Array  # uint8 [..., num_batches, share, *image_shape]
    numbers: Array  # int32 [..., num_batches, share], of the images in the data set


class Gradient(NamedTuple):
    """The gradient of one update, the same on every device."""

    loss: Array
    aux: LossTerms
    mean: Params  # g
    difference: Params | None  # d (see `gradients/halves.py`); None where it has no meaning
    observed: Observation | None  # of the chains' path; None if the gradient goes through them


def run_steps(
    task: Task, state: TrainState, stop: Array, limit: Array, batches: Batches
) -> TrainState:
    """Runs steps until `stop` steps are done, `limit` were taken, or too many were skipped.

    Args:
      task: the task.
      state: the repetition's state, the same on every device.
      stop: a number of steps, int32.
      limit: steps to be taken at most, int32.
      batches: of these steps, [num_batches, share, ...].
    """
    accumulate = task.gradient_noise.accumulate
    limit = jnp.minimum(limit, batches.images.shape[0] // accumulate)

    def is_running(carry: tuple[Array, TrainState]) -> Array:
        taken, state = carry
        too_many = state.skipped_in_row >= task.max_skipped_steps
        return (taken < limit) & (state.step < stop) & ~too_many

    def body(carry: tuple[Array, TrainState]) -> tuple[Array, TrainState]:
        taken, state = carry
        of_step = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, taken * accumulate, accumulate), batches
        )
        return taken + 1, train_step(task, state, of_step)

    return jax.lax.while_loop(is_running, body, (jnp.zeros((), jnp.int32), state))[1]


def train_step(task: Task, state: TrainState, batches: Batches) -> TrainState:
    """One step: batch, loss, gradient, statistics, update (eq. 4).

    A step whose loss or gradient is not finite is counted and changes no parameter.

    Args:
      task: the task.
      state: the repetition's state, the same on every device.
      batches: the `gradient_noise.accumulate` batches of the step.

    Returns:
      The new state, the same on every device.
    """
    with jax.named_scope(scopes.LOSS_AND_GRADIENT):
        key, ladder = step_key(state, CHAINS), current_ladder(task, state)
        if task.config.data.flip:
            batches = flipped(batches, step_key(state, FLIPS))
        gradient = batch_gradient(task, state.params, batches, key, ladder)
    with jax.named_scope(scopes.UPDATE):
        return _updated(task, state, gradient)


def flipped(batches: Batches, key: PRNGKey) -> Batches:
    """The batches with each image, or its mirror image, as the key and its number have it."""
    return batches._replace(images=flip(batches.images, batches.numbers, key))


def device_batch(images: Array, batch_size: int) -> Batch:
    """This device's share of a batch, from uint8 images [share, *image_shape].

    Padding, in the last shares, repeats the last example with mask 0, so that chains of padding
    diverge only if those of that example do.
    """
    slots = jax.lax.axis_index(AXIS) * images.shape[0] + jnp.arange(images.shape[0])
    mask = (slots < batch_size).astype(jnp.float32)
    return Batch(to_unit(images), jnp.minimum(slots, batch_size - 1), mask)


def batch_gradient(
    task: Task, params: Params, batches: Batches, key: PRNGKey, ladder: Ladder
) -> Gradient:
    """Loss and gradient over all images of the batches of one update.

    Examples keep their positions in the complete batch: n accumulated batches equal one batch n
    times as large.

    Args:
      task: the task.
      params: the parameters.
      batches: of one update.
      key: of the chains.
      ladder: of the chains.
    """
    size, num, objective = task.config.batch_size, batches.images.shape[0], task.objective
    surrogate = partial(objective.surrogate, ladder)

    def of_batch(number: Array | int, images: Array) -> tuple[halves.HalvedSums, Array, Any, Any]:
        batch = device_batch(images, size)
        batch = batch._replace(position=batch.position + number * size)
        if objective.differentiated:
            return *_through_chains(task, params, batch, key, ladder), None
        chains = objective.draw(params, batch, key, ladder)
        sums, terms = halves.halved_sums(
            surrogate, params, batch, chains.states, task.halves_together
        )
        loss, aux = objective.summary(terms, chains, batch.mask, ladder.schedule)
        return sums, loss, aux, objective.observe(params, ladder.path, chains, batch, key)

    if num == 1:
        sums, loss, aux, observed = of_batch(0, batches.images[0])
    else:
        shapes = jax.eval_shape(of_batch, 0, batches.images[0])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total: Any, batch: tuple[Array, Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_batch(*batch)), None

        (sums, loss, aux, observed), _ = jax.lax.scan(add, zeros, (jnp.arange(num), batches.images))
        loss, aux = jax.tree.map(lambda leaf: leaf / num, (loss, aux))
    mean, difference = halves.combine(sums, AXIS)
    return Gradient(loss, aux, mean, difference if objective.mean_of_images else None, observed)


def _through_chains(
    task: Task, params: Params, batch: Batch, key: PRNGKey, ladder: Ladder
) -> tuple[halves.HalvedSums, Array, Any]:
    """The gradient through the chains, for each half if it is a mean over images."""
    differentiate = jax.value_and_grad(task.objective.loss, has_aux=True)
    if not task.objective.mean_of_images:  # all in one half: there is no difference to measure
        (loss, aux), grads = differentiate(params, batch, key, ladder)
        count = jnp.stack([all_sum(batch.mask.sum(), AXIS), jnp.zeros(())])
        grads = jax.tree.map(lambda leaf: jnp.stack([count[0] * leaf, 0 * leaf]), grads)
        # `combine` adds counts over devices; gradients are shares of the complete batch's.
        return halves.HalvedSums(grads, count / jax.lax.psum(1.0, AXIS)), loss, aux

    def of_half(rows: Array, exists: Array) -> tuple[Array, Any, Params, Array]:
        half = Batch(batch.images[rows], batch.position[rows], exists * batch.mask[rows])
        (loss, aux), grads = differentiate(params, half, key, ladder)
        return loss, aux, grads, half.mask.sum()

    rows, exists = halves.halves_of(batch.images.shape[0], batch.position[0])
    loss, aux, grads, on_device = jax.vmap(of_half)(rows, exists)
    count = all_sum(on_device, AXIS)

    def counted(leaf: Array) -> Array:
        """Multiplies by the images of each half; a half without images has no mean."""
        number = count.reshape(-1, *[1] * (leaf.ndim - 1))
        return jnp.where(number > 0, number * leaf, 0.0)

    def mean(leaf: Array) -> Array:
        return counted(leaf).sum(axis=0) / count.sum()

    sums = halves.HalvedSums(jax.tree.map(counted, grads), on_device)
    return sums, mean(loss), jax.tree.map(mean, aux)


def _updated(task: Task, state: TrainState, gradient: Gradient) -> TrainState:
    """The state after the update by a gradient, or unchanged but for the count of skipped steps."""
    statistics, path = gradient_statistics(gradient.mean), state.path
    if path is not None and gradient.observed is not None:
        acceptance, best = gradient.aux.acceptance, task.best_acceptance
        path = updated(path, gradient.observed, acceptance, best)
    gradient = _clipped(task, gradient)
    info, gradient_noise, moments = _amplified(task, state, gradient)
    params, optimiser, displacements = update(
        task.optimisers, moments, state.optimiser, state.params
    )
    # The variance is finite only if every entry of the gradient is; a finite gradient can still
    # take the parameters, or the optimisers' moments, out of the finite numbers.
    good = jnp.isfinite(gradient.loss) & jnp.isfinite(statistics.var)
    leaves = jax.tree.leaves((params, optimiser, path))
    good &= jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))
    measured = measurements(gradient, statistics, info, moments[0].noise)
    measured |= _step_sizes(displacements)
    complete = readings.complete(measured, jnp.nan)
    sums = EpochSums(jnp.ones((), jnp.int32), complete, gradient.aux.rejection)
    stepped = state._replace(
        params=params,
        optimiser=optimiser,
        sums=jax.tree.map(jnp.add, state.sums, sums),
        skipped_in_row=jnp.zeros((), jnp.int32),
        path=path,
        gradient_noise=gradient_noise,
        average=_averaged(task, state, params, optimiser),
    )
    skipped = state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
    new = jax.tree.map(lambda a, b: jnp.where(good, a, b), stepped, skipped)
    return new._replace(step=state.step + 1)


def _averaged(
    task: Task, state: TrainState, params: Params, optimiser: OptimiserState
) -> Params | None:
    """The average of the parameters after an update, if the run keeps one."""
    decay = task.config.optimizer.ema_decay
    if state.average is None:
        return None
    return {
        name: update_average(average, params[name], decay, num_updates(optimiser[name]))
        for name, average in state.average.items()
    }


def _clipped(task: Task, gradient: Gradient) -> Gradient:
    """The gradient with a norm of at most `clip_norm`; the difference shrinks by the same factor.

    Noise and signal are measured after this, of what the optimisers get. The factor depends on the
    batch, so that the mean of the clipped gradient has another direction than the mean of g.
    """
    limit = task.config.optimizer.clip_norm
    if not limit:
        return gradient
    norm = jnp.sqrt(halves.square(gradient.mean))

    def clip(leaf: Array) -> Array:
        return jnp.where(norm < limit, leaf, leaf / norm * limit)

    mean, difference = jax.tree.map(clip, (gradient.mean, gradient.difference))
    return gradient._replace(mean=mean, difference=difference)


def _amplified(
    task: Task, state: TrainState, gradient: Gradient
) -> tuple[
    amplification.AmplificationInfo,
    amplification.AmplificationState,
    tuple[NoisyGradient, NoisyGradient],
]:
    """The gradients of the optimisers' moments, with the noise that `gradient_noise` asks for."""
    settings, mean, difference = task.gradient_noise, gradient.mean, gradient.difference
    info, after = amplification.choose_amplification(settings, state.gradient_noise, difference)
    info = amplification.after_warm_up(settings, info, state.step)
    plain = NoisyGradient(mean, difference)
    if not amplification.changes_noise(settings) or difference is None:
        return info, after, (plain, plain)
    key, factor = step_key(state, AMPLIFICATION), jnp.sqrt(info.amplification)
    amplified = NoisyGradient(
        amplification.amplify(mean, difference, info.amplification, key),
        jax.tree.map(lambda leaf: factor * leaf, difference),
    )
    return info, after, choose_gradients(settings.second_moment, plain, amplified)


def _step_sizes(displacements: dict[str, Displacement]) -> dict[str, Array]:
    """The squares of `train_step_size` and `train_step_noise`, of each group and of all."""
    if not displacements:
        return {}
    total = Displacement(*(sum(parts) for parts in zip(*displacements.values(), strict=True)))
    groups = {f"_{group}": part for group, part in displacements.items()} | {"": total}
    return {
        f"train_step_{name}{group}": square / part.norm
        for group, part in groups.items()
        for name, square in (("size", part.mean), ("noise", part.noise))
    }


def measurements(
    gradient: Gradient,
    statistics: GradientStatistics,
    info: amplification.AmplificationInfo,
    noise: Params | None,
) -> dict[str, Array]:
    """The readings of one step, scalars by the names of `readings.per_step()`.

    Args:
      gradient: that of the step, after clipping.
      statistics: over the entries of the gradient before clipping.
      info: of the amplification.
      noise: d as the optimisers get it; None where it has no meaning.
    """
    aux = gradient.aux
    measured = {
        "train_loss": gradient.loss,
        "train_grad_mean": statistics.mean,
        "train_grad_var": statistics.var,
        "train_grad_var_prior": statistics.var_prior,
        "train_grad_var_generator": statistics.var_generator,
        "train_grad_var_encoder": statistics.var_encoder,
        "train_encoder_kl": aux.encoder_kl,
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
        measured |= _noise(gradient.mean, gradient.difference)
    if noise is not None:
        measured["train_update_noise"] = halves.square(noise) / halves.size(noise)
    return measured


def _noise(mean: Params, difference: Params) -> dict[str, Array]:
    """The noise |d|^2 per parameter and the signal; not finite for one image, without halves."""
    noise = halves.square(difference) / halves.size(difference)
    groups = {
        f"train_grad_noise_{group}": halves.square(part) / halves.size(part)
        for group, part in difference.items()
    }
    return groups | {
        "train_grad_noise": noise,
        "train_grad_signal": halves.square(mean) / halves.size(mean) - noise,
    }
