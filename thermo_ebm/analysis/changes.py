"""Changes of a run's configuration while it trained, as a report tells of them."""

import json
from collections.abc import Callable, Sequence

from thermo_ebm.run.changes import Change


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
