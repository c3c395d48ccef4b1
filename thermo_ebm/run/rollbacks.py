"""The recorded rollbacks of a repetition."""

from pathlib import Path
from typing import NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError


class Rollback(NamedTuple):
    """One return to the newest checkpoint after too many steps that were not finite."""

    from_step: int
    to_step: int
    branch: int  # branch of the key from then on: 1, 2, ...


def read_rollbacks(path: Path) -> tuple[Rollback, ...]:
    """Reads the record, oldest first; empty if there is no file.

    Raises:
      UserError: the file is damaged.
    """
    try:
        rollbacks = tuple(Rollback(**one) for one in files.read_json(path))
    except FileNotFoundError:
        return ()
    except TypeError as error:
        raise UserError(f"{path}: not a list of rollbacks; move it away") from error
    if not all(isinstance(value, int) for one in rollbacks for value in one):
        raise UserError(f"{path}: steps and branches must be whole numbers; move it away")
    return rollbacks


def write_rollbacks(path: Path, rollbacks: tuple[Rollback, ...]) -> None:
    """Replaces the record atomically."""
    files.write_json(path, [one._asdict() for one in rollbacks])
