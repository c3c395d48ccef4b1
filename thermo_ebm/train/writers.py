"""Writers of readings besides `readings.csv` and TensorBoard: Weights & Biases, and a user's own.

A user's writer is a class, named MODULE:CLASS in `logging.writers`, that is made once per
repetition and start, as CLASS(folder) with the repetition's folder, or as CLASS() if it takes no
argument. Its method `write(step, readings)` gets the readings of each epoch, {column: number}, when
they are written, and `close()` is called at the end. An epoch that is trained again, after a kill
or a rollback, is sent again; `readings.csv` alone has every epoch exactly once.
"""

import importlib.util
import inspect
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from thermo_ebm import files, plugins
from thermo_ebm.errors import UserError, reason_of
from thermo_ebm.fields import WRITERS


class Writer(Protocol):
    """What receives readings."""

    def write(self, step: int, readings: dict[str, float]) -> None:
        """Takes the readings of the epoch that ended at `step`; columns without a value are absent.

        The columns are those of `readings.READINGS`.
        """

    def close(self) -> None:
        """Called when the repetition is done or interrupted."""


OpenWriters = Mapping[str, Writer]  # of one repetition, by their names in `logging.writers`


def check(names: Sequence[str]) -> None:
    """Imports the writers, before anything is compiled.

    Raises:
      UserError: one cannot be imported, or lacks a method; the message names it.
    """
    for name in _plugins(names):
        _maker(name)


def open_writers(names: Sequence[str], folder: Path) -> OpenWriters:
    """Makes a repetition's writers.

    Raises:
      UserError: a writer raises something; the message names it.
    """
    opened = {}
    for name in _plugins(names):
        make = _maker(name)
        with _clear_errors(name, "made"):
            takes_folder = bool(inspect.signature(make).parameters)
            opened[name] = make(folder) if takes_folder else make()
    return opened


def write(writers: OpenWriters, step: int, row: Mapping[str, Any]) -> None:
    """Gives each writer one epoch's readings.

    Raises:
      UserError: a writer raises something; the message names it.
    """
    values = {column: value for column, value in row.items() if value is not None}
    for name, writer in writers.items():
        with _clear_errors(name, "written to"):
            writer.write(step, dict(values))


def close_writers(writers: OpenWriters) -> None:
    """Closes the writers.

    Raises:
      UserError: one raises something; the message names it.
    """
    for name, writer in writers.items():
        with _clear_errors(name, "closed"):
            writer.close()


def _plugins(names: Sequence[str]) -> list[str]:
    """The writers that are made here."""
    return [name for name in names if name == "wandb" or name not in WRITERS]


def _maker(name: str) -> Callable[..., Writer]:
    if name == "wandb":
        if importlib.util.find_spec("wandb") is None:
            raise UserError("logging.writers=wandb: is not installed; run `pip install wandb`")
        return _Wandb
    form = f"must be {', '.join(WRITERS)} or MODULE:CLASS"
    _, writer_class = plugins.load("logging.writers", name, "class", form)
    for method in ("write", "close"):
        if not callable(getattr(writer_class, method, None)):
            raise UserError(f"logging.writers={name}: the class has no method {method}")
    return writer_class


@contextmanager
def _clear_errors(name: str, action: str) -> Iterator[None]:
    """Turns whatever a writer raises into one line with its name."""
    try:
        yield
    except Exception as error:  # a user's writer can raise anything
        raise UserError(
            f"logging.writers={name}: could not be {action} ({reason_of(error)}); when that is "
            "fixed run the same command again"
        ) from error


class _Wandb:
    """Readings to Weights & Biases; a repetition is one run there, which a resume continues."""

    def __init__(self, folder: Path):
        import wandb

        id_file = folder / "wandb_id.txt"
        if not id_file.exists():
            files.write_text(id_file, uuid.uuid4().hex[:12])
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "thermo_ebm"),
            name=f"{folder.parent.name}/{folder.name}",
            id=id_file.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(folder),
            reinit="create_new",  # repetitions that train together have a run each
        )

    def write(self, step: int, readings: dict[str, float]) -> None:
        self._run.log(readings, step=step)

    def close(self) -> None:
        self._run.finish()
