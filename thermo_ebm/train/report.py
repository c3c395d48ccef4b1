"""What a run shows its user: progress, lines of the summary at the start, traces of steps."""

import datetime
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from thermo_ebm import console
from thermo_ebm.errors import UserError, first_line
from thermo_ebm.readings import log_text
from thermo_ebm.train.task import updates_per_epoch

LINE_SECONDS = 10.0  # at least this long between plain lines, ends of epochs aside


class RunSteps(NamedTuple):
    """The steps of a training run."""

    label: str  # such as "rep 00"
    total_steps: int
    steps_per_epoch: int
    images_per_step: int  # of all repetitions that train at once
    initial_step: int = 0  # done before, when a run is resumed


class Reporter:
    """Shows the progress of training: a bar on a terminal, plain lines elsewhere.

    The speed and the time left are those since the first dispatch, which shows nothing of the time
    before it (compilation), or since the newest rollback.
    """

    def __init__(
        self,
        schedule: RunSteps,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        enabled: bool = True,
    ):
        self._schedule, self._clock, self._enabled = schedule, clock, enabled
        self._stream = console.lenient(stream or sys.stderr)
        self._start: tuple[float, int] | None = None  # time and steps done
        self._left = ""  # time left, once it is known
        self._last_step = schedule.initial_step
        self._last_line = clock()
        self._activities: set[str] = set()
        self._bar = tqdm(
            total=schedule.total_steps,
            initial=schedule.initial_step,
            file=self._stream,
            dynamic_ncols=True,
            disable=not (enabled and _is_terminal(self._stream)),
            bar_format=f"{schedule.label} |{{bar}}| {{desc}}",
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, step: int, means: Mapping[str, float]) -> None:
        """Reports that `step` steps are done in all, with readings' means over the epoch so far."""
        now = self._clock()
        if self._start is None or step <= self._last_step:  # the first, or after a rollback
            self._start, self._left = (now, step), ""
        text = log_text(means)
        seconds, steps = now - self._start[0], step - self._start[1]
        if seconds > 0 and steps > 0:
            speed = steps * self._schedule.images_per_step / seconds
            left = round((self._schedule.total_steps - step) * seconds / steps)
            rate = f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"
            self._left = f", {datetime.timedelta(seconds=left)} left"
            text += f", {rate} images/s{self._left}"
        where = f"{self._epoch(step)} step {step}/{self._schedule.total_steps}"
        self._last_step, self._bar.n = step, step
        self._show(f"{where} {text}", now - self._last_line >= LINE_SECONDS)

    def doing(self, activity: str) -> None:
        """Reports an activity between two steps, such as "validating".

        Without a terminal only the first time, which takes longest because of compilation, and if
        no line was written for a while.
        """
        is_new = activity not in self._activities
        self._activities.add(activity)
        self._show(activity, is_new or self._clock() - self._last_line >= LINE_SECONDS)

    def epoch_done(self, row: Mapping[str, Any]) -> None:
        """Reports an epoch's readings; on a terminal those alone that the bar does not have."""
        if self._bar.disable or row.get("val_log_marginal_likelihood") is not None:
            total = self._schedule.total_steps // self._schedule.steps_per_epoch
            self.note(f"epoch {row['epoch']}/{total} done, {log_text(row)}{self._left}")

    def note(self, text: str) -> None:
        """Writes a separate line, above the bar if there is one."""
        if self._enabled:
            self._last_line = self._clock()
            line = f"{time.strftime('%H:%M:%S')} {self._schedule.label} {text}"
            tqdm.write(line, file=self._stream)
            self._stream.flush()

    def _show(self, text: str, is_due: bool) -> None:
        if not self._bar.disable:
            self._bar.set_description_str(text)
        elif is_due:
            self.note(text)

    def _epoch(self, step: int) -> str:
        per_epoch = self._schedule.steps_per_epoch
        total = self._schedule.total_steps // per_epoch
        return f"epoch {min((step - 1) // per_epoch + 1, total)}/{total}"


def _is_terminal(stream: TextIO) -> bool:
    """A terminal with a size: pseudo-terminals may have none, and tqdm draws nothing there."""
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns > 0
    except (OSError, ValueError):
        return stream.isatty()


def say(text: str) -> None:
    """Writes one line to standard error."""
    print(text, file=console.lenient(sys.stderr), flush=True)


class Steps(NamedTuple):
    """The steps to be traced, both included; the first step of a run is 1."""

    first: int
    last: int


def parse_steps(parts: Sequence[str] | None, config: ConfigDict) -> Steps | None:
    """The steps that A,B names; None for none.

    Args:
      parts: A and B as text.
      config: of the run, which must have these steps.

    Raises:
      UserError: they are not such numbers.
    """
    if not parts:
        return None
    name = f"profile_steps={','.join(parts)}"
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UserError(f"{name}: must be A,B, the first and the last step")
    steps, total = Steps(*map(int, parts)), config.num_epochs * updates_per_epoch(config)
    if not 1 <= steps.first <= steps.last <= total:
        raise UserError(f"{name}: must rise within 1 to {total}, the steps of the run")
    return steps


class Profiler:
    """Traces the dispatches that cover the steps, once, in the first repetitions to train them."""

    def __init__(self, steps: Steps | None, folder: Path):
        self._steps, self._folder, self._is_tracing = steps, folder, False

    def before_dispatch(self, done: int, reached: int) -> None:
        """Starts tracing if the dispatch, from `done` steps to at most `reached`, covers a step.

        Raises:
          UserError: another trace is under way.
        """
        steps = self._steps
        if steps is None or self._is_tracing or reached < steps.first or done >= steps.last:
            return
        try:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        except RuntimeError as error:
            raise UserError(f"profile_steps: cannot be traced: {first_line(error)}") from error
        self._is_tracing = True

    def after_dispatch(self, done: int) -> None:
        """Ends the trace if all steps are done; raises as `close`."""
        if self._is_tracing and self._steps is not None and done >= self._steps.last:
            self.close()

    def close(self) -> None:
        """Ends the trace and writes it; says so if steps were asked for and never trained.

        Raises:
          UserError: the trace cannot be written.
        """
        steps, is_tracing = self._steps, self._is_tracing
        self._steps, self._is_tracing = None, False
        if not is_tracing:
            if steps is not None:
                say("profile_steps: none of these steps was trained, nothing is profiled")
            return
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{self._folder}: cannot be written: {first_line(error)}") from error


def binary(number: int) -> str:
    """Formats bytes for reading.

    >>> binary(3 * 2**20), binary(5 * 2**30)
    ('3.0 MiB', '5.0 GiB')
    """
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def decimal(number: float) -> str:
    """Formats a number with a unit prefix.

    >>> decimal(1234), decimal(5.6e10)
    ('1.23 k', '56 G')
    """
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"]
    while number >= 1000 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:.3g} {prefixes[0]}"
