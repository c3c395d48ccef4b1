"""The recorded changes to a run's configuration since it began.

`changes.json` is a list, oldest first, of the changes accepted at each start: the field, its old
and new values, and the epoch and step (of the furthest repetition) from which the new value
applied.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.configuration import Difference
from thermo_ebm.run.layout import CHANGES


class Change(NamedTuple):
    """One change of a field."""

    epoch: int  # epochs that the furthest repetition had done with the old value
    step: int  # and its steps
    field: str  # dotted, as in --config.loss.power
    old: Any
    new: Any


def read_changes(workdir: str | os.PathLike[str]) -> list[Change]:
    """Reads a run's changes, oldest first; empty if there is no file.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(workdir) / CHANGES
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        return []
    try:
        changes = [Change(**{name: one[name] for name in Change._fields}) for one in content]
        if any(type(one.epoch) is not int or type(one.step) is not int for one in changes):
            raise TypeError
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path}: not a list of changes with {', '.join(Change._fields)}; move it away"
        ) from error
    return changes


def add_changes(
    workdir: str | os.PathLike[str], differences: Sequence[Difference], epoch: int, step: int
) -> None:
    """Adds the changes accepted at a start; changes recorded by a killed start are not duplicated.

    Raises:
      OSError: the file cannot be written.
      UserError: the existing file is damaged.
    """
    old = read_changes(workdir)
    new = [Change(epoch, step, *difference) for difference in differences]
    if added := [change for change in new if change not in old]:
        content = [change._asdict() for change in (*old, *added)]
        files.write_json(Path(workdir) / CHANGES, content)
