"""Progress on screen: a bar on a terminal, plain lines elsewhere. Only process 0 reports."""

import collections
import datetime
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TextIO

from tqdm import tqdm

_RECENT = 20  # updates over which images/s are averaged


class Plan(NamedTuple):
    """The plan of a training run; all counts are of steps."""

    label: str  # such as "rep_00"
    total_steps: int
    steps_per_epoch: int
    images_per_step: int
    initial_step: int  # done before, when a run is resumed


class Reporter:
    """Shows the progress of training; made by `make_reporter`, closed by the `with` statement."""

    def __init__(
        self,
        plan: Plan,
        every_seconds: float,
        stream: TextIO,
        clock: Callable[[], float],
        enabled: bool,
    ):
        self._plan = plan
        self._every_seconds = every_seconds
        self._stream = stream
        self._clock = clock
        self._enabled = enabled
        # (time, step) after the first dispatch, or the first one since a rollback.
        self._first: tuple[float, int] | None = None
        self._recent: collections.deque[tuple[float, int]] = collections.deque(maxlen=_RECENT)
        self._last_line = clock()
        self._done_before: set[str] = set()
        self._bar = _make_bar(plan, stream) if enabled and _is_terminal(stream) else None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, loss: float, grad_var: float) -> None:
        """Reports that `step` steps are done in all, with figures of the newest one or few."""
        if not self._enabled:
            return
        now = self._clock()
        if self._recent and step <= self._recent[-1][1]:  # after a rollback
            self._first = None
            self._recent.clear()
        self._first = self._first or (now, step)
        self._recent.append((now, step))
        if self._bar is not None:
            figures = self._figures(step, loss, grad_var)
            self._bar.bar_format = f"{self._plan.label} {self._epoch(step)} |{{bar}}| {figures}"
            self._bar.update(step - self._bar.n)
        elif now - self._last_line >= self._every_seconds:
            where = f"{self._epoch(step)} step {step}/{self._plan.total_steps}"
            self.note(f"{where} {self._figures(step, loss, grad_var)}")

    def doing(self, what: str) -> None:
        """Reports an activity between two steps, such as "validating".

        On a terminal always. Elsewhere only the first time, which takes longest because of
        compilation, and if no line was written for `every_seconds`, to keep the log short.
        """
        if not self._enabled:
            return
        first = what not in self._done_before
        self._done_before.add(what)
        if self._bar is not None:
            self._bar.bar_format = f"{self._plan.label} |{{bar}}| {what}"
            self._bar.refresh()
        elif first or self._clock() - self._last_line >= self._every_seconds:
            self.note(what)

    def epoch_done(self, row: Mapping[str, Any]) -> None:
        """Reports the epoch whose readings (see `tables.READING_COLUMNS`) are `row`.

        A plain line if there is no terminal; on a terminal the bar shows the same figures.
        """
        if self._bar is None:
            names = ("train_loss", "val_loss", "train_grad_var", "images_per_second", "seconds")
            values = [f"{name} {row[name]:.5g}" for name in names if row.get(name) is not None]
            total = self._plan.total_steps // self._plan.steps_per_epoch
            self.note(f"epoch {row['epoch']}/{total} done, {', '.join(values)}")

    def note(self, text: str) -> None:
        """Writes a separate line, above the bar if there is one."""
        if not self._enabled:
            return
        self._last_line = self._clock()
        line = f"{time.strftime('%H:%M:%S')} {self._plan.label} {text}"
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            say(line, self._stream)

    def _epoch(self, step: int) -> str:
        per_epoch = self._plan.steps_per_epoch
        total = self._plan.total_steps // per_epoch
        return f"epoch {min((step - 1) // per_epoch + 1, total)}/{total}"

    def _figures(self, step: int, loss: float, grad_var: float) -> str:
        figures = f"loss {loss:.5g}, grad var {grad_var:.3g}"
        speed = _rate(self._recent[0], self._recent[-1]) * self._plan.images_per_step
        overall = _rate(self._first or self._recent[-1], self._recent[-1])
        if speed > 0:
            left = round((self._plan.total_steps - step) / overall)
            rate = f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"
            figures += f", {rate} images/s, {datetime.timedelta(seconds=left)} left"
        return figures


def make_reporter(
    label: str,
    total_steps: int,
    steps_per_epoch: int,
    images_per_step: int,
    initial_step: int = 0,
    every_seconds: float = 10.0,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
    enabled: bool = True,
) -> Reporter:
    """Makes a reporter.

    Args:
      label: what is trained, such as "rep_00".
      total_steps: of the whole run, those done before included.
      steps_per_epoch: at least 1.
      images_per_step: of all repetitions that train at once.
      initial_step: steps done before this start.
      every_seconds: at least this long between plain lines, ends of epochs aside.
      stream: standard error by default; a bar is drawn if it is a terminal.
      clock: seconds; for tests.
      enabled: False on all processes but the first: nothing is shown.

    Returns:
      A context manager; the time left and images/s do not include the time before the first
      update (compilation).
    """
    plan = Plan(label, total_steps, steps_per_epoch, images_per_step, initial_step)
    return Reporter(plan, every_seconds, stream or sys.stderr, clock, enabled)


def say(text: str, stream: TextIO | None = None) -> None:
    """Writes one line to standard error."""
    print(text, file=stream or sys.stderr, flush=True)


def _is_terminal(stream: TextIO) -> bool:
    """A terminal with a size: pseudo-terminals may have none, and tqdm draws nothing there."""
    if not stream.isatty():
        return False
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return True
    return size.columns > 0 and size.lines > 1


def _make_bar(plan: Plan, stream: TextIO) -> tqdm:
    return tqdm(
        total=plan.total_steps,
        initial=plan.initial_step,
        file=stream,
        dynamic_ncols=True,
        bar_format=f"{plan.label} |{{bar}}| compiling",
    )


def _rate(earlier: tuple[float, int], later: tuple[float, int]) -> float:
    """Returns steps per second between two (time, step) pairs; 0 if unknown."""
    seconds = later[0] - earlier[0]
    return (later[1] - earlier[1]) / seconds if seconds > 0 else 0.0
