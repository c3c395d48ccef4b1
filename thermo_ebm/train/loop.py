"""The training loop: from a configuration and a folder to trained repetitions.

`train` groups the repetitions, and `Training` dispatches a group's steps and, between two
dispatches, ends epochs, saves, looks for signals and rolls back.
"""

import contextlib
import dataclasses
import enum
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.run import layout, warm_start
from thermo_ebm.run.warm_start import WarmStart
from thermo_ebm.train import checkpoints, dry_run, hosts, programs, recovery, start
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.epochs import end_epochs
from thermo_ebm.train.recovery import Repetition
from thermo_ebm.train.report import Profiler, Reporter, RunSteps, Steps, say
from thermo_ebm.train.start import Group, Prepared
from thermo_ebm.train.state import TrainState
from thermo_ebm.train.task import Task, make_task

_PATIENCE = 2.0  # largest seconds per dispatch, since signals wait for its end
_STOPPING = b"\nstopping after this step, with checkpoints; again to stop at once\n"
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Outcome(enum.Enum):
    """How training ended; values are the program's exit codes."""

    DONE = 0
    INTERRUPTED = 3
    DIVERGED = 4


class Context(NamedTuple):
    """What all groups of one call of `train` share."""

    workdir: Path
    interrupted: Callable[[], bool]
    record: Callable[[], None]  # records the run, once it is known that it continues
    profiler: Profiler


def train(
    config: ConfigDict,
    workdir: Path,
    interrupted: Callable[[], bool] | None = None,
    init_from: WarmStart | None = None,
    profile: Steps | None = None,
    prepare: Callable[[ConfigDict, int], Prepared] = start.prepare,
) -> Outcome:
    """Trains every repetition of a checked configuration that is not yet done.

    Args:
      config: checked by `config.check`.
      workdir: a folder whose lock the caller holds (`lock.hold`), and whose configuration it has
        compared with `config` (`configuration.check_config`).
      interrupted: asked between dispatches; once it returns True, checkpoints are written and
        training ends. By default SIGTERM, SIGINT and SIGHUP are caught and do this.
      init_from: parameters with which every repetition of a new run begins; a run that has begun
        uses those that it has recorded.
      profile: steps that the first process traces into `profile/` (`report.parse_steps`).
      prepare: makes the programs of a number of repetitions that train together.

    Returns:
      How it ended. A diverged repetition does not stop the others.

    Raises:
      UserError: the data cannot be loaded or are not those of the run, or a file or checkpoint
        cannot be read or written.
    """
    with contextlib.ExitStack() as stack:
        if interrupted is None:
            interrupted = stack.enter_context(catch_interrupts())
        profiler = Profiler(profile if hosts.is_first() else None, workdir / layout.PROFILE)
        stack.callback(profiler.close)
        task = make_task(config)
        start.check_agreement(config, workdir)
        start.check_writers(config)
        unfinished = _unfinished_groups(task, workdir)
        # Even if all is done, so that wrong data are refused in that case too.
        images = start.load(task, workdir)
        stack.callback(images.feed.close)
        record = start.recorder(config, workdir, images.levels, init_from)
        context = Context(workdir, interrupted, record, profiler)
        prepare_once = functools.cache(functools.partial(prepare, config))
        outcomes = {Outcome.DONE}
        for numbers in unfinished:
            prepared = prepare_once(len(numbers))
            if numbers is unfinished[0] and hosts.is_first():
                _say_summary(prepared, workdir, unfinished, init_from)
            task, compiled, flops, _ = prepared
            params = functools.partial(start.initial_params, task, workdir)
            group = Group(task, compiled, flops, images, params)
            outcome = _open_and_train(group, context, numbers)
            if outcome is Outcome.INTERRUPTED:
                return outcome
            outcomes.add(outcome)
        return Outcome.DIVERGED if Outcome.DIVERGED in outcomes else Outcome.DONE


@contextlib.contextmanager
def catch_interrupts() -> Iterator[Callable[[], bool]]:
    """While open, the first SIGTERM, SIGINT or SIGHUP only makes the yielded function return True.

    One line says so at once. A second SIGTERM or SIGINT kills the program, as without this
    function; a terminal that is closed may send SIGHUP several times. SIGHUP stays ignored if it is
    (`nohup`).
    """
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def handler(number: int, frame: FrameType | None) -> None:
        if not received:
            # Not `print`, which a signal may interrupt; the stream may be closed, or no file.
            with contextlib.suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), _STOPPING)
        received.append(number)
        for killing in (signal.SIGTERM, signal.SIGINT):
            signal.signal(killing, signal.SIG_DFL)

    for number in before:
        signal.signal(number, handler)
    try:
        yield lambda: bool(received)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _unfinished_groups(task: Task, workdir: Path) -> list[range]:
    """The groups in which a repetition is not yet done.

    A group always consists of the same repetitions. Finished repetitions stay in it unchanged,
    since the program of another group would round the others differently.
    """
    unfinished = []
    for numbers in start.groups(task.config):
        if not all(recovery.is_done(task, workdir, number) for number in numbers):
            unfinished.append(numbers)
        elif hosts.is_first():
            for number in numbers:
                say(f"repetition {number} is done: skipped")
    return unfinished


def _say_summary(
    prepared: Prepared, workdir: Path, groups: list[range], init_from: WarmStart | None
) -> None:
    config, numbers = prepared.task.config, [number for group in groups for number in group]
    costs = prepared.flops_per_step, prepared.device_bytes
    for line in dry_run.start_lines(config, *costs, workdir, numbers):
        say(line)
    if init_from is not None:
        say(warm_start.describe(init_from))


def _open_and_train(group: Group, context: Context, numbers: Sequence[int]) -> Outcome:
    """Opens the repetitions' folders, resumes each where it was, and trains them together."""
    task, settings = group.task, group.task.config.checkpoint
    period = settings.keep_every_epochs * task.steps_per_epoch
    with contextlib.ExitStack() as stack:
        opened: list[Repetition] = []
        # The entries of the list at that time: a rollback replaces them.
        stack.callback(lambda: _close_all(opened))
        for number in numbers:
            opened.append(recovery.open_repetition(context.workdir, number, settings.keep, period))
        state, seconds, opened[:] = recovery.resume(group, opened)
        steps = np.asarray(programs.local(state.step))
        schedule = RunSteps(
            label="rep " + ",".join(f"{number:02d}" for number in numbers),
            total_steps=task.total_steps,
            steps_per_epoch=task.steps_per_epoch,
            images_per_step=task.images_per_step * len(numbers),
            initial_step=int(steps.min()),
        )
        reporter = stack.enter_context(Reporter(schedule, enabled=hosts.is_first()))
        reporter.doing("compiling")
        # Runs no steps: only compiles, so that the recorded seconds are those of training.
        state = _run(group, state, steps, 0)
        context.record()
        reporter.note(f"compiled: training from step {steps.min()}/{task.total_steps}")
        return Training(group, context, opened, state, seconds, reporter).run()


def _close_all(opened: list[Repetition]) -> None:
    with contextlib.ExitStack() as stack:
        for repetition in opened:
            stack.callback(recovery.close_repetition, repetition)


def _run(group: Group, state: TrainState, stop: np.ndarray, limit: int) -> TrainState:
    """The state after at most `limit` steps, of each repetition up to `stop`."""
    batches = group.images.feed.dispatch(state, stop, limit)
    return group.programs.run(state, stop, np.int32(limit), batches)


@dataclasses.dataclass
class Training:
    """A group's repetitions while they train. Arrays are [num_repetitions]."""

    group: Group
    context: Context
    opened: list[Repetition]  # a rollback replaces entries
    state: TrainState  # of all repetitions, stacked
    seconds: np.ndarray  # of each repetition's epoch so far
    reporter: Reporter

    def __post_init__(self) -> None:
        self.counters = programs.counters(self.state)  # after the last dispatch
        self.diverged = np.zeros(len(self.opened), bool)  # for good, after the last rollback
        self.limit = 1  # steps of the next dispatch; the first step shows how long a step takes

    def run(self) -> Outcome:
        """Dispatches steps until all repetitions are done or have diverged, or are interrupted."""
        task = self.group.task
        while True:
            interrupted = hosts.any_of(self.context.interrupted())
            all_ended = self._end_epochs(interrupted)
            steps = self._steps()
            next_stops = [_next_stop(task, step) for step in steps.tolist()]
            stop = np.where(self.diverged, steps, next_stops)
            if all_ended and (stop <= steps).all():
                for repetition in self.opened:
                    checkpoints.discard_interrupted(repetition.checkpoints)
                return Outcome.DIVERGED if self.diverged.any() else Outcome.DONE
            if interrupted:
                self._save(~self.diverged, checkpoints.save_interrupted)
                where = ", ".join(f"{step}/{task.total_steps}" for step in steps)
                self.reporter.note(
                    f"interrupted after step {where}, checkpoint written: run the same command "
                    "again"
                )
                return Outcome.INTERRUPTED
            self._dispatch(steps, stop)

    def _end_epochs(self, interrupted: bool) -> bool:
        """Ends finished epochs, saves what is due, and rolls back repetitions that fail.

        Returns:
          Whether no finished epoch is left: an interrupted program leaves them to its next start.
        """
        task, counters = self.group.task, self.counters
        failing = counters.skipped_in_row >= task.max_skipped_steps
        ended = recovery.is_pending(task, np.asarray(counters.step), counters.sums.steps) & ~failing
        if ended.any() and not interrupted:
            self.state = end_epochs(
                self.group, self.opened, self.state, ended, self.seconds, self.reporter
            )
            self.seconds, ended = np.where(ended, 0.0, self.seconds), np.zeros_like(ended)
        # A state after skipped steps is not saved for rollbacks, unless it is the last.
        sound = (counters.skipped_in_row == 0) | (counters.step >= task.total_steps)
        due = sound & ~ended & ~failing & [_is_due(task, step) for step in counters.step.tolist()]
        self._save(due, checkpoints.save)
        for i in np.flatnonzero(failing & ~self.diverged).tolist():
            rolled_back = recovery.roll_back(self.group, self.opened, self.state, i)
            self.diverged[i] = rolled_back is None
            if rolled_back is not None:
                self.state, self.seconds[i] = rolled_back
        return not ended.any()

    def _save(
        self, due: np.ndarray, save: Callable[[Checkpoints, TrainState, float], None]
    ) -> None:
        """Saves the repetitions that are due, except those whose present step is already saved."""
        steps = self._steps()
        for i in np.flatnonzero(due).tolist():
            folder = self.opened[i].checkpoints
            if int(steps[i]) not in checkpoints.steps(folder):
                save(folder, programs.select_repetition(self.state, i), float(self.seconds[i]))

    def _dispatch(self, steps: np.ndarray, stop: np.ndarray) -> None:
        """Runs steps until `stop`, at most `limit`, and sets the next limit by their time."""
        running, profiler = stop > steps, self.context.profiler
        last = int(np.minimum(stop, steps + self.limit).max())
        profiler.before_dispatch(int(steps[running].min()), last)
        started = time.perf_counter()
        self.state = _run(self.group, self.state, stop, self.limit)
        self.counters = programs.counters(self.state)
        elapsed = time.perf_counter() - started
        done = self.counters.step - steps
        profiler.after_dispatch(int(self.counters.step[running].min()))
        self.seconds = self.seconds + np.where(done > 0, elapsed, 0.0)
        # The same in all processes.
        in_time = hosts.of_all(_PATIENCE * max(int(done.max()), 1) / elapsed).min()
        self.limit = int(np.clip(in_time, 1, self.group.task.config.steps_per_dispatch))
        self._report()

    def _report(self) -> None:
        """Shows the epoch's means so far, averaged over the group."""
        sums = self.counters.sums
        means = {
            name: float((sums.readings[name] / np.maximum(sums.steps, 1)).mean())
            for name in ("train_loss", "train_grad_noise")
        }
        self.reporter.update(int(self.counters.step.min()), means)

    def _steps(self) -> np.ndarray:
        """The step of each repetition's state, which a rollback sets back."""
        return np.asarray(programs.local(self.state.step))


def _next_stop(task: Task, step: int) -> int:
    """The next step at which an epoch ends or a checkpoint is due."""
    epoch_end = (step // task.steps_per_epoch + 1) * task.steps_per_epoch
    interval = task.config.checkpoint.every_steps
    checkpoint = (step // interval + 1) * interval if interval else epoch_end
    return min(epoch_end, checkpoint, task.total_steps)


def _is_due(task: Task, step: int) -> bool:
    """Whether a checkpoint is due at this step."""
    settings = task.config.checkpoint
    epoch, rest = divmod(step, task.steps_per_epoch)
    is_permanent = settings.keep_every_epochs > 0 and epoch % settings.keep_every_epochs == 0
    at_epoch = rest == 0 and (epoch % settings.every_epochs == 0 or is_permanent)
    at_step = settings.every_steps > 0 and step % settings.every_steps == 0
    return at_epoch or at_step or step >= task.total_steps
