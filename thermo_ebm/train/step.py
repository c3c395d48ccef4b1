"""One training step, as a pure function of one repetition's state on one device.

A `Task` holds what stays the same throughout a run: the model, the loss and the optimisers. The
functions here run inside `pmap` over `AXIS` (see `spmd.py`); batches, losses, gradients and
statistics are those of the whole batch, whatever the number of devices.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm import likelihood
from thermo_ebm.collectives import all_sum
from thermo_ebm.config.build import (
    dial_settings,
    likelihood_settings,
    loss_settings,
    make_objective,
)
from thermo_ebm.gradients import dial, halves
from thermo_ebm.gradients.dial import DialSettings
from thermo_ebm.gradients.noise import GradientNoise, gradient_noise
from thermo_ebm.gradients.statistics import GradientStatistics, gradient_statistics
from thermo_ebm.likelihood import LikelihoodSettings
from thermo_ebm.losses import LossSettings, VanillaAux
from thermo_ebm.losses.objective import Objective
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.thermo.schedule import Schedule, annealed_power, make_schedule
from thermo_ebm.train import optimisers
from thermo_ebm.train.batches import Layout, gather
from thermo_ebm.train.optimisers import Optimisers
from thermo_ebm.train.state import (
    CHAINS,
    DIAL,
    INIT,
    LIKELIHOOD,
    NOISE,
    VALIDATION,
    EpochSums,
    TrainState,
    begin_epoch,
    zero_sums,
)
from thermo_ebm.types import Array, Batch, Params, PRNGKey

AXIS = "devices"


class Task(NamedTuple):
    """The model, loss and optimisers of a run."""

    model: LatentEBM
    objective: Objective  # over the whole batch
    settings: LossSettings  # of the thermodynamic loss: its schedule
    anneal_steps: int  # over which "annealed_power" changes p
    final_power: float  # p at their end
    dial: DialSettings
    optimisers: Optimisers
    batch_size: int  # of one update: `dial.accumulate` batches
    steps_per_epoch: int
    num_train: int
    num_val: int
    val_batches: int
    clip_norm: float  # 0 clips nothing
    max_skipped_steps: int
    grad_noise_draws: int
    likelihood: LikelihoodSettings
    likelihood_images: int
    streaming: bool  # whether `run_steps` gets a dispatch's images alone


class Gradient(NamedTuple):
    """The gradient of one update, the same on every device."""

    loss: Array
    aux: Any
    mean: Params  # g
    difference: Params | None  # d (see `gradients/halves.py`); None where it has no meaning


def updates_per_epoch(config: ConfigDict) -> int:
    """Steps of an epoch, which leaves out an incomplete last batch."""
    return config.data.num_train // (config.batch_size * config.dial.accumulate)


def make_task(config: ConfigDict, axis_name: str | None = AXIS) -> Task:
    """Builds the task of a checked configuration."""
    model = make_model(config.model, config.data.channels)
    steps_per_epoch = updates_per_epoch(config)
    val_batches = -(-config.data.num_val // config.batch_size)
    return Task(
        model=model,
        objective=make_objective(config, model, axis_name),
        settings=loss_settings(config),
        anneal_steps=config.loss.anneal_epochs * steps_per_epoch,
        final_power=config.loss.final_power,
        dial=dial_settings(config),
        optimisers=optimisers.make_optimisers(config.optimizer, steps_per_epoch),
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
        num_train=config.data.num_train,
        num_val=config.data.num_val,
        val_batches=min(config.val_batches or val_batches, val_batches),
        clip_norm=config.optimizer.clip_norm,
        max_skipped_steps=min(config.divergence.max_skipped_steps, steps_per_epoch),
        grad_noise_draws=config.logging.grad_noise_draws,
        likelihood=likelihood_settings(config),
        likelihood_images=config.evaluation.likelihood.num_images,
        streaming=config.data.streaming,
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
        sums=zero_sums(task.settings.num_temperatures),
        skipped=zero,
        skipped_in_row=zero,
        dial=dial.init_dial(),
        schedule=first_schedule(task),
    )
    return begin_epoch(state, zero)


def first_schedule(task: Task) -> Schedule:
    """The schedule before the first step, its slopes finite."""
    settings = task.settings
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    return jax.tree.map(jnp.float32, schedule)


def current_schedule(task: Task, state: TrainState) -> Schedule:
    """The temperatures of the next step."""
    settings = task.settings
    if settings.schedule == "equal_barrier":
        return state.schedule
    power: float | Array = settings.power
    if settings.schedule == "annealed_power":
        power = annealed_power(settings.power, task.final_power, state.step / task.anneal_steps)
    return make_schedule(settings.schedule, settings.num_temperatures, power)


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
    num = task.batch_size * task.dial.accumulate
    indices = jax.lax.dynamic_slice_in_dim(
        state.order, state.step % task.steps_per_epoch * num, num
    )
    key, schedule = _step_key(state, CHAINS), current_schedule(task, state)
    found = batch_gradient(task, state.params, indices, part, layout, key, schedule)
    statistics = gradient_statistics(found.mean)
    info, grads = _dialled(task, state, found)
    params, optimiser = optimisers.update(task.optimisers, grads, state.optimiser, state.params)
    # The variance is finite only if every entry of the gradient is; a finite gradient can still
    # take the parameters, or the optimisers' moments, out of the finite numbers.
    good = jnp.isfinite(found.loss) & jnp.isfinite(statistics.var)
    good &= _all_finite((params, optimiser))
    sums = _observations(task, found, statistics, info)
    stepped = state._replace(
        params=params,
        optimiser=optimiser,
        sums=jax.tree.map(jnp.add, state.sums, sums),
        skipped_in_row=jnp.zeros((), jnp.int32),
        dial=state.dial if found.difference is None else dial.observe(state.dial, found.difference),
    )
    skipped = state._replace(skipped=state.skipped + 1, skipped_in_row=state.skipped_in_row + 1)
    chosen = jax.tree.map(lambda a, b: jnp.where(good, a, b), stepped, skipped)
    return chosen._replace(step=state.step + 1)


def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]))


def _step_key(state: TrainState, use: int) -> PRNGKey:
    key = jax.random.fold_in(jax.random.fold_in(state.key, use), state.branch)
    return jax.random.fold_in(key, state.step)


def _dialled(task: Task, state: TrainState, found: Gradient) -> tuple[dial.DialInfo, Params]:
    """The gradient for the optimisers: clipped, then with the noise that the dial sets.

    Clipping acts on the mean gradient; the difference shrinks by the same factor.
    """
    grads, difference = found.mean, found.difference
    info = dial.choose_amplification(task.dial, state.dial)
    if task.clip_norm:
        grads, difference = _clipped(task.clip_norm, grads, difference)
    if not dial.is_used(task.dial) or difference is None:
        return info, grads
    return info, dial.amplify(grads, difference, info.amplification, _step_key(state, DIAL))


def _clipped(
    limit: float, grads: Params, difference: Params | None
) -> tuple[Params, Params | None]:
    """Both gradients, scaled so that the norm of the first does not exceed the limit."""
    norm = jnp.sqrt(halves.square(grads))

    def clip(leaf: Array) -> Array:
        return jnp.where(norm < limit, leaf, leaf / norm * limit)

    return jax.tree.map(clip, grads), jax.tree.map(clip, difference)


def _observations(
    task: Task, found: Gradient, statistics: GradientStatistics, info: dial.DialInfo
) -> EpochSums:
    """What one step adds to the epoch's sums."""
    zero = zero_sums(task.settings.num_temperatures)
    sums = zero._replace(
        loss=found.loss,
        grad_mean=statistics.mean,
        grad_var=statistics.var,
        grad_var_prior=statistics.var_prior,
        grad_var_generator=statistics.var_generator,
        steps=jnp.ones((), jnp.int32),
        amplification=info.amplification,
        saturated=info.saturated,
        acceptance_prior=found.aux.acceptance[0],
        acceptance_posterior=found.aux.acceptance[1:].mean(),
    )
    if not isinstance(found.aux, VanillaAux):
        sums = sums._replace(
            effective_sample_size=found.aux.effective_sample_size,
            round_trips=found.aux.round_trips,
            swap_probability=jnp.append(found.aux.swap_probability, 0.0),
            rejection=found.aux.rejection,
        )
    if found.difference is None:
        return sums
    return _with_noise(sums, found.mean, found.difference, info)


def _with_noise(sums: EpochSums, g: Params, d: Params, info: dial.DialInfo) -> EpochSums:
    noise = halves.square(d) / halves.size(d)
    measured = jnp.isfinite(noise)  # not of a single image, which has no halves
    figures = {
        "noise": noise,
        "noise_prior": halves.square(d.alpha) / halves.size(d.alpha),
        "noise_generator": halves.square(d.beta) / halves.size(d.beta),
        "signal": halves.square(g) / halves.size(d) - noise,
        "update_noise": info.amplification * noise,
    }
    kept = {name: jnp.where(measured, value, 0.0) for name, value in figures.items()}
    return sums._replace(noise_steps=measured.astype(jnp.int32), **kept)


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
    chains = objective.draw(params, batch, key, schedule)
    sums, parts = halves.halved_sums(
        lambda params, images, z: objective.surrogate(params, images, z, schedule),
        params,
        batch,
        chains.latents,
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
    """The held-out log-likelihood, by the same estimator for all losses."""
    num, settings = min(task.likelihood_images, task.num_val), task.likelihood
    batch = gather(part, jnp.arange(num), jnp.ones(num), layout, AXIS)
    key = jax.random.fold_in(jax.random.fold_in(state.key, LIKELIHOOD), state.step)
    schedule = make_schedule("power", settings.num_temperatures, settings.power)
    found = likelihood.estimate(
        task.model,
        state.params,
        batch.images,
        batch.position,
        schedule.temperatures,
        key,
        settings,
        batch.mask,
        AXIS,
    )
    # Padding repeats an image, whose figures are finite if the image's are.
    sums = (found.log_likelihood * batch.mask).sum(), ((found.stderr * batch.mask) ** 2).sum()
    total, variance = all_sum(sums, AXIS)
    return MeanLikelihood(total / num, jnp.sqrt(variance) / num)


def measure_noise(task: Task, state: TrainState, part: Array, layout: Layout) -> GradientNoise:
    """The gradient's variance over repeated draws of batch and chains, parameters fixed."""

    schedule = current_schedule(task, state)

    def gradient(batch_key: PRNGKey, chain_key: PRNGKey) -> Params:
        shape = (task.batch_size * task.dial.accumulate,)
        indices = jax.random.choice(batch_key, task.num_train, shape, replace=False)
        return batch_gradient(task, state.params, indices, part, layout, chain_key, schedule).mean

    key = jax.random.fold_in(jax.random.fold_in(state.key, NOISE), state.step)
    return gradient_noise(gradient, key, task.grad_noise_draws)
