"""Changes of a run's configuration while it trained, from its changes.json."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError

CHANGES = "changes.json"


class Change(NamedTuple):
    """One field that was changed when a run went on."""

    epoch: int  # epochs done with the old value
    step: int
    field: str
    old: Any
    new: Any


def read_changes(folder: Path) -> list[Change]:
    """Returns the changes of a run in their order; none where no change is recorded.

    Raises:
      UserError: changes.json is damaged.
    """
    path = folder / CHANGES
    try:
        entries = files.read_json(path)
    except FileNotFoundError:
        return []
    try:
        return [Change(int(e["epoch"]), int(e["step"]), str(e["field"]), e["old"], e["new"])
                for e in entries]  # fmt: skip
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: not a list of changes with epoch, step, field, old and new; restore it"
        ) from error


def mixing(changes: Sequence[Change], free: Callable[[str], bool]) -> list[Change]:
    """Returns the changes after which a run belongs to no one setting.

    Args:
      changes: of one run.
      free: whether a field may change without changing what is computed.

    A field changed before the first step was trained with its new value alone. One that was changed
    and changed back counts all the same: some epochs had another value.
    """
    return [change for change in changes if change.step > 0 and not free(change.field)]


def describe_change(change: Change) -> str:
    """Returns ``loss.power 6 -> 1 after epoch 3``."""
    old, new = json.dumps(change.old), json.dumps(change.new)
    return f"{change.field} {old} → {new} after epoch {change.epoch}"
