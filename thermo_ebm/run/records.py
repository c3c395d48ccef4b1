"""The small JSON records of a run: changes of its configuration, rollbacks, the best checkpoint.

A record is a NamedTuple, or a list of them, and is replaced atomically.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.configuration import Difference
from thermo_ebm.run.layout import BEST, BEST_RECORD, CHANGES, ROLLBACKS

T = TypeVar("T")


class Change(NamedTuple):
    """One change of a field, accepted at a start of the run."""

    epoch: int  # epochs that the furthest repetition had done with the old value
    step: int  # steps that it had done
    field: str  # dotted, as in --config.loss.power
    old: Any
    new: Any


class Rollback(NamedTuple):
    """One return to the newest checkpoint after too many steps that were not finite."""

    from_step: int
    to_step: int
    branch: int  # branch of the key from then on: 1, 2, ...


class Best(NamedTuple):
    """A repetition's best checkpoint; its copy is the folder in `best/` named by `step`."""

    metric: str  # such as kid
    network: str  # whose features the metric compares: the prefix of its column in the evaluations
    num_images: int  # of the evaluation
    num_sizes: int
    value: float  # by which it was chosen: of one half of the images
    stderr: float | None
    step: int
    source: str  # the checkpoint that was copied
    # Of the other half, which had no part in the choice; None where all images were used for it.
    reported: float | None = None
    reported_stderr: float | None = None


def read_changes(workdir: str | os.PathLike[str]) -> list[Change]:
    """A run's changes, oldest first; raises UserError if the record is damaged."""
    return _read(Path(workdir) / CHANGES, lambda content: [Change(**row) for row in content], [])


def add_changes(
    workdir: str | os.PathLike[str], differences: Sequence[Difference], epoch: int, step: int
) -> None:
    """Adds the changes accepted at a start; changes recorded by a killed start are not duplicated.

    Raises:
      OSError: the file cannot be written.
      UserError: the existing record is damaged.
    """
    old = read_changes(workdir)
    new = [Change(epoch, step, *difference) for difference in differences]
    if added := [change for change in new if change not in old]:
        _write(Path(workdir) / CHANGES, [*old, *added])


def read_rollbacks(repetition: Path) -> tuple[Rollback, ...]:
    """A repetition's rollbacks, oldest first; raises UserError if the record is damaged."""
    return _read(
        repetition / ROLLBACKS, lambda content: tuple(Rollback(**row) for row in content), ()
    )


def write_rollbacks(repetition: Path, rollbacks: Sequence[Rollback]) -> None:
    """Replaces the record of a repetition's rollbacks."""
    _write(repetition / ROLLBACKS, rollbacks)


def read_best(repetition: Path) -> Best | None:
    """A repetition's best checkpoint, or None; raises UserError if the record is damaged."""
    return _read(repetition / BEST / BEST_RECORD, lambda content: Best(**content), None)


def write_best(repetition: Path, best: Best) -> None:
    """Replaces the record of a repetition's best checkpoint."""
    files.write_json(repetition / BEST / BEST_RECORD, best._asdict())


def _read(path: Path, parse: Callable[[Any], T], absent: T) -> T:
    """The parsed content of a record; `absent` if there is no file."""
    try:
        return parse(files.read_json(path))
    except FileNotFoundError:
        return absent
    except TypeError as error:
        raise UserError(f"{path}: not a record that this program wrote; move it away") from error


def _write(path: Path, rows: Sequence[Any]) -> None:
    files.write_json(path, [row._asdict() for row in rows])
