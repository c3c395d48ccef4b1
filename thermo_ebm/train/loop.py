"""The loop: from a configuration and a folder to trained repetitions, whatever interrupts it.

`train` groups the repetitions, `_Group` is what one group trains with, and `_train_group`
dispatches steps and, between two dispatches, writes epochs, saves, looks for signals and rolls
back.
"""

import contextlib
import enum
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.config import sampler_settings
from thermo_ebm.data import Dataset
from thermo_ebm.sampling.chains import ChainSettings
from thermo_ebm.sampling.images import sample_images
from thermo_ebm.sampling.langevin import normal
from thermo_ebm.train import checkpoints, programs, progress, repetition
from thermo_ebm.train.batches import make_layout, split_over_devices
from thermo_ebm.train.interrupts import catch_interrupts
from thermo_ebm.train.programs import Programs
from thermo_ebm.train.progress import Reporter, make_reporter
from thermo_ebm.train.repetition import Repetition
from thermo_ebm.train.state import PICTURES, TrainState
from thermo_ebm.train.step import Task, init_state, make_task

NUM_PICTURES = 64


class Outcome(enum.Enum):
    """How training ended; values are the program's exit codes."""

    DONE = 0
    INTERRUPTED = 3
    DIVERGED = 4


class _Group(NamedTuple):
    """What one group of repetitions trains with."""

    config: ConfigDict
    task: Task
    programs: Programs
    dataset: Dataset  # this process's share, for pictures
    train: jax.Array  # [num_devices, per_device, *image_shape] uint8, on the devices
    validation: jax.Array
    draw: Callable[..., Any]  # (params, key) -> samples and the fixed latent's image
    total_steps: int


def train(config: ConfigDict, workdir: Path) -> Outcome:
    """Trains every repetition of a checked configuration that is not yet done.

    Args:
      config: checked by `config.check`.
      workdir: a folder that the caller holds (`rundir.hold`) and whose configuration it checked.

    Returns:
      How it ended. A diverged repetition does not stop the others.

    Raises:
      UserError: the data cannot be loaded, or a checkpoint cannot be read or written.
    """
    task = make_task(config)
    total_steps = config.num_epochs * task.steps_per_epoch
    todo = [
        number
        for number in range(config.num_repetitions)
        if not repetition.is_done(workdir, number, total_steps)
    ]
    for number in sorted(set(range(config.num_repetitions)) - set(todo)):
        progress.say(f"repetition {number} is done: skipped")
    if not todo:
        return Outcome.DONE
    dataset = data.load(config.data, (jax.process_index(), jax.process_count()))
    outcomes = [Outcome.DONE]
    size = config.parallel_repetitions
    with catch_interrupts() as interrupted:
        for numbers in (todo[i : i + size] for i in range(0, len(todo), size)):
            group = _make_group(config, task, dataset, len(numbers), total_steps)
            outcomes.append(_open_and_train(group, workdir, numbers, interrupted))
            if outcomes[-1] is Outcome.INTERRUPTED:
                return Outcome.INTERRUPTED
    return Outcome.DIVERGED if Outcome.DIVERGED in outcomes else Outcome.DONE


def _make_group(
    config: ConfigDict, task: Task, dataset: Dataset, size: int, total_steps: int
) -> _Group:
    train, validation = (
        programs.spread(split_over_devices(images, make_layout(count)))
        for images, count in (
            (dataset.train, task.num_train),
            (dataset.validation, task.num_val),
        )
    )
    draw = jax.jit(partial(_draw, task, sampler_settings(config).prior))
    compiled = programs.make_programs(task, size)
    return _Group(config, task, compiled, dataset, train, validation, draw, total_steps)


def _draw(task: Task, settings: ChainSettings, params: Any, key: Any) -> tuple[Any, Any]:
    """Samples [NUM_PICTURES, ...] and the image [...] of a latent the key alone fixes, uint8."""
    key = jax.random.fold_in(key, PICTURES)
    key_samples, key_latent = jax.random.split(key)
    samples = sample_images(task.model, params, key_samples, NUM_PICTURES, settings)
    latent = task.model.prior_sigma * normal(key_latent[None], 0, task.model.latent_dim)
    return data.to_uint8(samples), data.to_uint8(task.model.generator(params.beta, latent)[0])


def _open_and_train(
    group: _Group, workdir: Path, numbers: list[int], interrupted: Callable[[], bool]
) -> Outcome:
    """Opens the repetitions' folders, resumes each where it was, and trains them together."""
    settings = group.config.checkpoint
    period = settings.keep_every_epochs * group.task.steps_per_epoch
    with contextlib.ExitStack() as stack:
        opened = [
            repetition.open_repetition(workdir, number, settings.keep, period) for number in numbers
        ]
        state, seconds = _resume(group, opened)
        steps = np.asarray(programs.local(state.step))
        tensorboard = group.config.logging.tensorboard
        for i, step in enumerate(steps.tolist()):
            epochs = step // group.task.steps_per_epoch
            opened[i] = repetition.rewind(opened[i], step, epochs, tensorboard)
            stack.callback(repetition.close_repetition, opened[i])
        # No steps: compiles, so that the readings' seconds are of training alone.
        state = group.programs.run(state, steps, np.int32(0), group.train)
        reporter = stack.enter_context(_make_reporter(group, numbers, int(steps.min())))
        return _train_group(group, opened, state, seconds, reporter, interrupted)


def _resume(group: _Group, opened: list[Repetition]) -> tuple[TrainState, np.ndarray]:
    """Each repetition's newest checkpoint, or its first state, saved: stacked, and its seconds."""
    template = jax.eval_shape(partial(init_state, group.task), 0)
    seeds = jnp.array([group.config.seed + one.number for one in opened])
    first = group.programs.init(seeds)
    states, seconds = [], np.zeros(len(opened))
    for i, one in enumerate(opened):
        restored = checkpoints.restore_newest(one.checkpoints, template, programs.replicated())
        if restored is None:
            states.append(programs.select_repetition(first, i))
            checkpoints.save(one.checkpoints, states[i], 0.0)
        else:
            states.append(restored.state)
            seconds[i] = restored.seconds
        states[i] = _with_branch(one, states[i])
    return programs.stack_repetitions(states), seconds


def _with_branch(one: Repetition, state: TrainState) -> TrainState:
    """The state with the branch of the newest rollback, recorded though no checkpoint followed."""
    branch = jnp.full_like(state.branch, len(repetition.read_rollbacks(one)))
    return state._replace(branch=jnp.maximum(state.branch, branch))


def _make_reporter(group: _Group, numbers: list[int], initial_step: int) -> Reporter:
    label = "rep " + ",".join(f"{number:02d}" for number in numbers)
    return make_reporter(
        label=label,
        total_steps=group.total_steps,
        steps_per_epoch=group.task.steps_per_epoch,
        images_per_step=group.task.batch_size * len(numbers),
        initial_step=initial_step,
        every_seconds=group.config.logging.every_seconds,
        enabled=jax.process_index() == 0,
    )


def _train_group(
    group: _Group,
    opened: list[Repetition],
    state: TrainState,
    seconds: np.ndarray,
    reporter: Reporter,
    interrupted: Callable[[], bool],
) -> Outcome:
    """Dispatches steps until every repetition is done, has diverged for good, or is interrupted."""
    task, config = group.task, group.config
    diverged = np.zeros(len(opened), bool)
    steps = np.asarray(programs.local(state.step))
    while True:
        stop = np.where(diverged, steps, [_next_stop(group, step) for step in steps.tolist()])
        if (stop <= steps).all():
            return Outcome.DIVERGED if diverged.any() else Outcome.DONE
        if interrupted():
            return _stop(group, opened, state, seconds, diverged, reporter)
        started, before = time.perf_counter(), steps
        state = group.programs.run(state, stop, np.int32(config.steps_per_dispatch), group.train)
        host = _counters(state)
        steps = host.step
        seconds = seconds + np.where(steps > before, time.perf_counter() - started, 0.0)
        _report(reporter, host)
        failing = host.skipped_in_row >= task.max_skipped_steps
        ended = (steps > before) & (steps % task.steps_per_epoch == 0) & ~failing
        if ended.any():
            state = _end_epochs(group, opened, state, host, ended, seconds, reporter)
            seconds = np.where(ended, 0.0, seconds)
        due = (steps > before) & ~failing & [_is_due(group, step) for step in steps.tolist()]
        _save(opened, state, seconds, due)
        for i in np.flatnonzero(failing & ~diverged):
            state, seconds[i], diverged[i] = _roll_back(group, opened, state, int(i))
            steps = np.asarray(programs.local(state.step))


def _save(
    opened: list[Repetition], state: TrainState, seconds: np.ndarray, chosen: np.ndarray
) -> None:
    for i in np.flatnonzero(chosen).tolist():
        one = programs.select_repetition(state, i)
        checkpoints.save(opened[i].checkpoints, one, float(seconds[i]))


def _stop(
    group: _Group,
    opened: list[Repetition],
    state: TrainState,
    seconds: np.ndarray,
    diverged: np.ndarray,
    reporter: Reporter,
) -> Outcome:
    """Saves what a signal interrupted, so that the same command goes on from here."""
    _save(opened, state, seconds, ~diverged)
    steps = np.asarray(programs.local(state.step)).tolist()
    where = ", ".join(f"{step}/{group.total_steps}" for step in steps)
    reporter.note(f"interrupted after step {where}, checkpoint written: run the same command again")
    return Outcome.INTERRUPTED


def _counters(state: TrainState) -> Any:
    """The state's scalars on the host, [num_repetitions] each; what is large stays behind."""
    large: dict[str, Any] = {name: None for name in ("params", "optimiser", "order", "key")}
    return jax.device_get(programs.local(state._replace(**large)))


def _next_stop(group: _Group, step: int) -> int:
    """The next step at which something is to be done: an epoch's end or a checkpoint."""
    epoch_end = (step // group.task.steps_per_epoch + 1) * group.task.steps_per_epoch
    every = group.config.checkpoint.every_steps
    checkpoint = (step // every + 1) * every if every else epoch_end
    return min(epoch_end, checkpoint, group.total_steps)


def _is_due(group: _Group, step: int) -> bool:
    """Whether a checkpoint is due at this step."""
    settings = group.config.checkpoint
    epoch, rest = divmod(step, group.task.steps_per_epoch)
    at_epoch = rest == 0 and epoch % settings.every_epochs == 0
    at_step = settings.every_steps > 0 and step % settings.every_steps == 0
    return at_epoch or at_step or step == group.total_steps


def _report(reporter: Reporter, host: TrainState) -> None:
    """Shows the epoch's means so far, averaged over the group."""
    count = np.maximum(host.sums.steps, 1)
    loss, var = (host.sums.loss / count).mean(), (host.sums.grad_var / count).mean()
    reporter.update(int(host.step.min()), float(loss), float(var))


def _end_epochs(
    group: _Group,
    opened: list[Repetition],
    state: TrainState,
    host: TrainState,
    ended: np.ndarray,
    seconds: np.ndarray,
    reporter: Reporter,
) -> TrainState:
    """Writes the epoch of each repetition that has ended one, and begins its next."""
    epochs = host.step // group.task.steps_per_epoch
    val_loss, aux = jax.device_get(programs.local(group.programs.validate(state, group.validation)))
    every = group.config.logging.grad_noise_every_epochs
    noise = None
    if every and (ended & (epochs % every == 0)).any():
        noise = jax.device_get(programs.local(group.programs.noise(state, group.train)))
    for i in np.flatnonzero(ended).tolist() if jax.process_index() == 0 else ():
        epoch = int(epochs[i])
        measured = noise is not None and epoch % every == 0
        row = repetition.make_row(
            epoch=epoch,
            step=int(host.step[i]),
            sums=jax.tree.map(lambda leaf, i=i: leaf[i], host.sums),
            skipped=int(host.skipped[i]),
            val_loss=float(val_loss[i]),
            dim=math.prod(group.train.shape[2:]),
            rates=_rates(group.task, int(host.step[i])),
            noise=jax.tree.map(lambda leaf, i=i: leaf[i], noise) if measured else None,
            seconds=float(seconds[i]),
            images=group.task.steps_per_epoch * group.task.batch_size,
            flops=0,
        )
        repetition.write_epoch(opened[i], row, jax.tree.map(lambda leaf, i=i: leaf[i], aux))
        _draw_pictures(group, opened[i], state, i, epoch, int(host.step[i]))
        reporter.epoch_done(row)
    return group.programs.begin_epoch(state, epochs, ended)


def _rates(task: Task, step: int) -> tuple[float, float]:
    return float(task.optimisers.prior_rate(step)), float(task.optimisers.generator_rate(step))


def _draw_pictures(
    group: _Group, one: Repetition, state: TrainState, i: int, epoch: int, step: int
) -> None:
    every = group.config.logging.pictures_every_epochs
    if not every or (epoch % every and epoch != group.config.num_epochs):
        return
    params, key = jax.tree.map(lambda leaf: leaf[i], programs.local((state.params, state.key)))
    samples, frame = jax.device_get(group.draw(params, key))
    real = group.dataset.validation[:NUM_PICTURES]
    repetition.write_pictures(one, epoch, step, samples, real, frame)


def _roll_back(
    group: _Group, opened: list[Repetition], state: TrainState, i: int
) -> tuple[TrainState, float, bool]:
    """Repetition i back at its newest checkpoint with a fresh branch of its key, or given up."""
    one = opened[i]
    checkpoints.wait(one.checkpoints)
    from_step = int(programs.local(state.step)[i])
    tried = len(repetition.read_rollbacks(one))
    if tried >= group.config.divergence.max_rollbacks:
        logging.error(
            "repetition %d diverged for good at step %d, after %d rollbacks (%s): lower the step "
            "sizes or learning rates, or set optimizer.clip_norm",
            *(one.number, from_step, tried, one.folder / repetition.ROLLBACKS),
        )
        return state, 0.0, True
    template = jax.eval_shape(partial(init_state, group.task), 0)
    restored = checkpoints.restore_newest(one.checkpoints, template, programs.replicated())
    assert restored is not None, "the first state is always saved"
    to_step = int(programs.local(restored.state.step))
    repetition.record_rollback(one, from_step, to_step)
    epochs = to_step // group.task.steps_per_epoch
    opened[i] = repetition.rewind(one, to_step, epochs, group.config.logging.tensorboard)
    states = [programs.select_repetition(state, j) for j in range(len(opened))]
    states[i] = _with_branch(one, restored.state)
    return programs.stack_repetitions(states), restored.seconds, False
