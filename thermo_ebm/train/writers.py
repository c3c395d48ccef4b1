"""Writers of readings besides `readings.csv` and TensorBoard: Weights & Biases, and a user's own.

A user's writer is a class, named MODULE:CLASS in `logging.writers`, that is made once per
repetition and start, as CLASS(folder) with the repetition's folder, or as CLASS() if it takes no
argument. Its method `write(step, readings)` gets the readings of each epoch, {column: number}, and
`close()` is called at the end.

Rows are read from `readings.csv`, and `writers.json` records the last step that each writer has
received: a row is written once and in order, however often the run is resumed. After a rollback a
writer gets no steps again that it already has.
"""

import importlib.util
import inspect
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from thermo_ebm import files, plugins
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.fields import WRITERS
from thermo_ebm.run import layout, tables

_RECEIVED = "writers.json"
_METHODS = ("write", "close")


class Writer(Protocol):
    """What receives readings."""

    def write(self, step: int, readings: dict[str, float]) -> None:
        """Takes the readings of the epoch that ended at `step`; columns without a value are absent.

        The columns are those of `tables.READING_COLUMNS`.
        """

    def close(self) -> None:
        """Called when the repetition is done or interrupted."""


class OpenWriter(NamedTuple):
    """A writer of one repetition."""

    name: str  # as in logging.writers
    writer: Writer


def check(names: Sequence[str]) -> None:
    """Imports the writers, before anything is compiled.

    Raises:
      UserError: one cannot be imported, or lacks a method; the message names it.
    """
    for name in _further(names):
        _maker(name)


def open_writers(names: Sequence[str], folder: Path) -> tuple[OpenWriter, ...]:
    """Makes a repetition's writers, and gives each the rows that it has not received yet.

    Raises:
      UserError: a writer raises something; the message names it.
    """
    opened = []
    for name in _further(names):
        make = _maker(name)
        with _reported(name, "made"):
            takes_folder = bool(inspect.signature(make).parameters)
            opened.append(OpenWriter(name, make(folder) if takes_folder else make()))
    deliver(opened, folder)
    return tuple(opened)


def deliver(opened: Sequence[OpenWriter], folder: Path) -> None:
    """Gives each writer the rows of a repetition's readings that it has not received yet.

    Raises:
      UserError: a writer raises something (the message names it), or a file is damaged.
      OSError: the record cannot be written.
    """
    if not opened:
        return
    rows = tables.read(folder / layout.READINGS)
    for name, writer in opened:
        last = _received(folder).get(name, 0)
        for row in rows:
            step = int(row["step"] or 0)
            if step > last:
                readings = {column: value for column, value in row.items() if value is not None}
                with _reported(name, "written to"):
                    writer.write(step, readings)
                files.write_json(folder / _RECEIVED, _received(folder) | {name: step})


def close_writers(opened: Sequence[OpenWriter]) -> None:
    """Closes the writers.

    Raises:
      UserError: one raises something; the message names it.
    """
    for name, writer in opened:
        with _reported(name, "closed"):
            writer.close()


def _further(names: Sequence[str]) -> list[str]:
    """The writers that are made here."""
    return [name for name in names if name == "wandb" or name not in WRITERS]


def _received(folder: Path) -> dict[str, int]:
    """The last step that each writer has received, by its name."""
    path = folder / _RECEIVED
    try:
        found = files.read_json(path)
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict) or not all(type(step) is int for step in found.values()):
        raise UserError(f"{path}: not the steps of writers; remove the file")
    return found


def _maker(name: str) -> Callable[..., Writer]:
    if name == "wandb":
        if importlib.util.find_spec("wandb") is None:
            raise UserError("logging.writers=wandb: is not installed; run `pip install wandb`")
        return _Wandb
    form = f"must be {', '.join(WRITERS)} or MODULE:CLASS"
    made = plugins.load("logging.writers", name, "class", form).value
    for method in _METHODS:
        if not callable(getattr(made, method, None)):
            raise UserError(f"logging.writers={name}: the class has no method {method}")
    return made


@contextmanager
def _reported(name: str, what: str) -> Iterator[None]:
    """Turns whatever a writer raises into one line with its name."""
    try:
        yield
    except Exception as error:  # a user's writer can raise anything
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise UserError(
            f"logging.writers={name}: could not be {what} ({reason}); when that is fixed run the "
            "same command again"
        ) from error


class _Wandb:
    """Readings to Weights & Biases; a repetition is one run there, which a resume continues."""

    def __init__(self, folder: Path):
        import wandb

        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "thermo_ebm"),
            name=f"{folder.parent.name}/{folder.name}",
            id=_wandb_id(folder),
            resume="allow",
            dir=str(folder),
            reinit="create_new",  # repetitions that train together have a run each
        )

    def write(self, step: int, readings: dict[str, float]) -> None:
        self._run.log(readings, step=step)

    def close(self) -> None:
        self._run.finish()


def _wandb_id(folder: Path) -> str:
    """The name of a repetition's run at Weights & Biases, made once."""
    path = folder / "wandb_id.txt"
    if not path.exists():
        files.write_text(path, uuid.uuid4().hex[:12])
    return path.read_text(encoding="utf-8").strip()
