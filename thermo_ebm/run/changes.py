"""What changed of a run's configuration since it began, as its folder records it.

`changes.json` is a list, oldest first, of what each start accepted: the field, its old and its new
value, and the epoch and step from which the new one held (of the repetition that was furthest).
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
    """One field that is not what it was."""

    epoch: int  # epochs that the furthest repetition had done with the old value
    step: int  # and its steps
    field: str  # dotted, as in --config.loss.power
    old: Any
    new: Any


def read_changes(workdir: str | os.PathLike[str]) -> list[Change]:
    """Reads a run's changes, oldest first; no file is no change.

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
    """Adds what a start accepted; what a start that was killed has recorded is not doubled.

    Raises:
      OSError: it cannot be written.
      UserError: the file there is damaged.
    """
    old = read_changes(workdir)
    new = [Change(epoch, step, *difference) for difference in differences]
    if added := [change for change in new if change not in old]:
        content = [change._asdict() for change in (*old, *added)]
        files.write_json(Path(workdir) / CHANGES, content)
