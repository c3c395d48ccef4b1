"""A trace of some steps by JAX's profiler, to be viewed in TensorBoard or Perfetto."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from thermo_ebm.errors import UserError, first_line
from thermo_ebm.train.tasks import updates_per_epoch


class Steps(NamedTuple):
    """The steps to be traced, both included; the first step of a run is 1."""

    first: int
    last: int


def parse(parts: Sequence[str] | None, config: ConfigDict) -> Steps | None:
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
        self._steps = steps
        self._folder = folder
        self._tracing = False

    @property
    def is_waiting(self) -> bool:
        """Whether the steps have been asked for and not been traced yet."""
        return self._steps is not None and not self._tracing

    def before_dispatch(self, done: int, reached: int) -> None:
        """Starts tracing if the dispatch, from `done` steps to at most `reached`, covers a step.

        Raises:
          UserError: another trace is under way.
        """
        steps = self._steps
        if steps is None or self._tracing or reached < steps.first or done >= steps.last:
            return
        try:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        except RuntimeError as error:
            raise UserError(f"profile_steps: cannot be traced: {first_line(error)}") from error
        self._tracing = True

    def after_dispatch(self, done: int) -> None:
        """Ends the trace if all steps are done; raises as `close`."""
        if self._steps is not None and done >= self._steps.last:
            self.close()

    def close(self) -> None:
        """Ends the trace, if one is under way, and writes it.

        Raises:
          UserError: it cannot be written.
        """
        if not self._tracing:
            return
        self._steps, self._tracing = None, False
        try:
            jax.profiler.stop_trace()
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{self._folder}: cannot be written: {first_line(error)}") from error
