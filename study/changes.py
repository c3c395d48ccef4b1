"""Checks from its record of changes whether a run kept its settings during training."""

import json
from collections.abc import Sequence

from thermo_ebm.run.changes import Change
from thermo_ebm.run.configuration import is_free


def mixing(changes: Sequence[Change]) -> list[Change]:
    """Returns the changes after which a run belongs to no one setting.

    Fields that change nothing that is computed do not count. A field changed before the first step
    was trained with its new value alone. One that was changed and changed back counts all the same:
    some epochs had another value.
    """
    return [change for change in changes if change.step > 0 and not is_free(change.field)]


def describe_change(change: Change) -> str:
    """Returns ``loss.power 6 -> 1 after epoch 3``."""
    old, new = json.dumps(change.old), json.dumps(change.new)
    return f"{change.field} {old} → {new} after epoch {change.epoch}"
