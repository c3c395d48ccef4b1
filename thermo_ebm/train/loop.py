"""The training loop: from a configuration and a folder to trained repetitions.

`train` groups the repetitions, and `_train_group` dispatches a group's steps and, between two
dispatches, ends epochs, saves, looks for signals and rolls back.
"""

import contextlib
import enum
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.cost import plan
from thermo_ebm.run import layout, warm_start
from thermo_ebm.run.warm_start import WarmStart
from thermo_ebm.train import checkpoints, hosts, recovery, repetition, spmd, start, summary
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.epochs import end_epochs, is_pending
from thermo_ebm.train.group import Group, make_group
from thermo_ebm.train.images import Loaded
from thermo_ebm.train.interrupts import catch_interrupts
from thermo_ebm.train.profiling import Profiler, Steps
from thermo_ebm.train.progress import Reporter, make_reporter, say
from thermo_ebm.train.repetition import Repetition
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.tasks import make_task

_PATIENCE = 2.0  # largest seconds per dispatch, since signals wait for its end


class Outcome(enum.Enum):
    """How training ended; values are the program's exit codes."""

    DONE = 0
    INTERRUPTED = 3
    DIVERGED = 4


def train(
    config: ConfigDict,
    workdir: Path,
    interrupted: Callable[[], bool] | None = None,
    init_from: WarmStart | None = None,
    profile: Steps | None = None,
) -> Outcome:
    """Trains every repetition of a checked configuration that is not yet done.

    Args:
      config: checked by `config.check`.
      workdir: a folder whose lock the caller holds (`lock.hold`), and whose configuration it has
        compared with `config` (`configuration.check_config`).
      interrupted: asked between dispatches; once it returns True, checkpoints are written and
        training ends. By default SIGTERM and SIGINT are caught and do this.
      init_from: parameters with which every repetition of a new run begins; a run that has begun
        uses those that it has recorded.
      profile: steps that the first process traces into `profile/` (`profiling.parse`).

    Returns:
      How it ended. A diverged repetition does not stop the others.

    Raises:
      UserError: the data cannot be loaded or are not those of the run, or a file or checkpoint
        cannot be read or written.
    """
    with contextlib.nullcontext(interrupted) if interrupted else catch_interrupts() as asked:
        profiler = Profiler(profile if hosts.is_first() else None, workdir / layout.PROFILE)
        with contextlib.closing(profiler):
            outcome = _train_groups(config, workdir, asked, init_from, profiler)
        if profiler.is_waiting:
            say("profile_steps: none of these steps was trained, nothing is profiled")
        return outcome


def _train_groups(
    config: ConfigDict,
    workdir: Path,
    interrupted: Callable[[], bool],
    init_from: WarmStart | None,
    profiler: Profiler,
) -> Outcome:
    """Trains the groups in which a repetition is not yet done, one group after another.

    A group always consists of the same repetitions. Finished repetitions stay in it unchanged,
    since the program of another group would round the others differently.
    """
    task = make_task(config)
    start.check_agreement(config, workdir)
    start.check_writers(config)
    total_steps, groups = config.num_epochs * task.steps_per_epoch, []
    for numbers in start.groups(config):
        if not all(recovery.is_done(task, workdir, one, total_steps) for one in numbers):
            groups.append(numbers)
        elif hosts.is_first():
            for number in numbers:
                say(f"repetition {number} is done: skipped")
    # Even if all is done, so that wrong data are refused in that case too.
    loaded = start.load(config, task, workdir)
    record = start.recorder(config, task, workdir, loaded, init_from)
    make = functools.lru_cache(maxsize=1)(functools.partial(_make_group, config, loaded, workdir))
    outcomes = [Outcome.DONE]
    for numbers in groups:
        group = make(len(numbers))
        if numbers is groups[0] and hosts.is_first():
            unfinished = [one for each in groups for one in each]
            flops = group.flops_per_step
            for line in summary.lines(group.config, group.size, flops, workdir, unfinished):
                say(line)
            if init_from is not None:
                say(warm_start.describe(init_from))
        outcomes.append(_open_and_train(group, workdir, numbers, record, interrupted, profiler))
        if outcomes[-1] is Outcome.INTERRUPTED:
            return Outcome.INTERRUPTED
    return Outcome.DIVERGED if Outcome.DIVERGED in outcomes else Outcome.DONE


def _make_group(config: ConfigDict, loaded: Loaded, workdir: Path, size: int) -> Group:
    """A group of `size` repetitions, with an image chunk chosen for this number."""
    chunked = plan.with_chunk(config, size)
    task = make_task(chunked)
    initial = functools.partial(start.initial_params, task, workdir)
    return make_group(chunked, task, loaded.feed, loaded.validation, size, initial)


def _open_and_train(
    group: Group,
    workdir: Path,
    numbers: Sequence[int],
    record: Callable[[], None],
    interrupted: Callable[[], bool],
    profiler: Profiler,
) -> Outcome:
    """Opens the repetitions' folders, resumes each where it was, and trains them together."""
    settings = group.config.checkpoint
    period = settings.keep_every_epochs * group.task.steps_per_epoch
    with contextlib.ExitStack() as stack:
        opened: list[Repetition] = []
        # The entries of the list at that time: a rollback replaces them.
        stack.callback(lambda: _close_all(opened))
        for number in numbers:
            opened.append(repetition.open_repetition(workdir, number, settings.keep, period))
        state, seconds, opened[:] = recovery.resume(group, opened)
        steps = np.asarray(spmd.local(state.step))
        first = int(steps.min())
        reporter = stack.enter_context(_make_reporter(group, numbers, first))
        reporter.doing("compiling")
        # Runs no steps: only compiles, so that the recorded seconds are those of training.
        stack.callback(group.feed.close)
        taken = group.feed.images(state, steps, 0)
        state = group.programs.run(state, steps, np.int32(0), taken)
        record()
        reporter.note(f"compiled: training from step {first}/{group.total_steps}")
        return _train_group(group, opened, state, seconds, reporter, interrupted, profiler)


def _close_all(opened: list[Repetition]) -> None:
    with contextlib.ExitStack() as stack:
        for one in opened:
            stack.callback(repetition.close_repetition, one)


def _make_reporter(group: Group, numbers: Sequence[int], initial_step: int) -> Reporter:
    label = "rep " + ",".join(f"{number:02d}" for number in numbers)
    return make_reporter(
        label=label,
        total_steps=group.total_steps,
        steps_per_epoch=group.task.steps_per_epoch,
        images_per_step=group.task.batch_size * len(numbers),
        initial_step=initial_step,
        enabled=hosts.is_first(),
    )


def _train_group(
    group: Group,
    opened: list[Repetition],
    state: TrainState,
    seconds: np.ndarray,
    reporter: Reporter,
    interrupted: Callable[[], bool],
    profiler: Profiler,
) -> Outcome:
    """Dispatches steps until every repetition is done, has diverged for good, or is interrupted."""
    task, config = group.task, group.config
    diverged = np.zeros(len(opened), bool)
    host, limit = _counters(state), 1  # the first step shows how long a step takes
    while True:
        steps, stopping = host.step, hosts.any_of(interrupted())
        failing = host.skipped_in_row >= task.max_skipped_steps
        pending = is_pending(group, steps, host.sums.steps) & ~failing
        if pending.any() and not stopping:
            state = end_epochs(group, opened, state, host, pending, seconds, reporter)
            seconds = np.where(pending, 0.0, seconds)
        pending &= stopping
        # A state after skipped steps is not saved for rollbacks, unless it is the last.
        sound = (host.skipped_in_row == 0) | (steps >= group.total_steps)
        due = sound & ~pending & ~failing & [_is_due(group, step) for step in steps.tolist()]
        _save(opened, state, steps, seconds, due, checkpoints.save)
        for i in np.flatnonzero(failing & ~diverged).tolist():
            rolled_back = recovery.roll_back(group, opened, state, i)
            diverged[i] = rolled_back is None
            state, seconds[i] = rolled_back or (state, seconds[i])
        steps = np.asarray(spmd.local(state.step))
        stop = np.where(diverged, steps, [_next_stop(group, step) for step in steps.tolist()])
        if (stop <= steps).all() and not pending.any():
            for one in opened:
                checkpoints.discard_interrupted(one.checkpoints)
            return Outcome.DIVERGED if diverged.any() else Outcome.DONE
        if stopping:
            return _stop(group, opened, state, steps, seconds, diverged, reporter)
        done = int(steps[stop > steps].min())
        profiler.before_dispatch(done, int(np.minimum(stop, steps + limit).max()))
        started = time.perf_counter()
        taken = group.feed.images(state, stop, limit)
        state = group.programs.run(state, stop, np.int32(limit), taken)
        host = _counters(state)
        elapsed = time.perf_counter() - started
        profiler.after_dispatch(int(host.step[stop > steps].min()))
        seconds = seconds + np.where(host.step > steps, elapsed, 0.0)
        a_step = elapsed / max((host.step - steps).max(), 1)
        limit = int(np.clip(hosts.of_all(_PATIENCE / a_step).min(), 1, config.steps_per_dispatch))
        _report(reporter, host)


def _save(
    opened: list[Repetition],
    state: TrainState,
    steps: np.ndarray,
    seconds: np.ndarray,
    chosen: np.ndarray,
    save: Callable[[Checkpoints, TrainState, float], None],
) -> None:
    """Saves the chosen repetitions, except those whose present step is already saved."""
    for i in np.flatnonzero(chosen).tolist():
        if int(steps[i]) not in checkpoints.steps(opened[i].checkpoints):
            one = spmd.select_repetition(state, i)
            save(opened[i].checkpoints, one, float(seconds[i]))


def _stop(
    group: Group,
    opened: list[Repetition],
    state: TrainState,
    steps: np.ndarray,
    seconds: np.ndarray,
    diverged: np.ndarray,
    reporter: Reporter,
) -> Outcome:
    """Saves the state after a signal, so that the same command continues from here."""
    _save(opened, state, steps, seconds, ~diverged, checkpoints.save_interrupted)
    where = ", ".join(f"{step}/{group.total_steps}" for step in steps)
    reporter.note(f"interrupted after step {where}, checkpoint written: run the same command again")
    return Outcome.INTERRUPTED


def _counters(state: TrainState) -> Any:
    """The state's scalars on the host, [num_repetitions] each, without the large arrays."""
    large: dict[str, Any] = {name: None for name in ("params", "optimiser", "order", "key")}
    return jax.device_get(spmd.local(state._replace(**large)))


def _next_stop(group: Group, step: int) -> int:
    """The next step at which an epoch ends or a checkpoint is due."""
    epoch_end = (step // group.task.steps_per_epoch + 1) * group.task.steps_per_epoch
    every = group.config.checkpoint.every_steps
    checkpoint = (step // every + 1) * every if every else epoch_end
    return min(epoch_end, checkpoint, group.total_steps)


def _is_due(group: Group, step: int) -> bool:
    """Whether a checkpoint is due at this step."""
    settings = group.config.checkpoint
    epoch, rest = divmod(step, group.task.steps_per_epoch)
    kept = settings.keep_every_epochs > 0 and epoch % settings.keep_every_epochs == 0
    at_epoch = rest == 0 and (epoch % settings.every_epochs == 0 or kept)
    at_step = settings.every_steps > 0 and step % settings.every_steps == 0
    return at_epoch or at_step or step >= group.total_steps


def _report(reporter: Reporter, host: TrainState) -> None:
    """Shows the epoch's means so far, averaged over the group."""
    count = np.maximum(host.sums.steps, 1)
    loss, var = (
        float((host.sums.readings[name] / count).mean())
        for name in ("train_loss", "train_grad_var")
    )
    reporter.update(int(host.step.min()), loss, var)
