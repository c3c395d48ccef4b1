"""The record of a repetition's best checkpoint, a copy of which is kept in `rep_XX/best/`."""

from pathlib import Path
from typing import NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import BEST

_RECORD = "best.json"


class Best(NamedTuple):
    """The content of `best.json`; the checkpoint is the folder beside it named by `step`."""

    metric: str  # such as kid
    network: str  # whose features the metric compares: the prefix of its column in eval.csv
    num_images: int  # of the evaluation
    num_sizes: int
    value: float
    stderr: float | None
    step: int
    source: str  # the checkpoint that was copied


def read(repetition: Path) -> Best | None:
    """The record in a repetition's folder; None if no checkpoint has been kept yet.

    Raises:
      UserError: it is damaged.
    """
    path = repetition / BEST / _RECORD
    try:
        found = Best(**files.read_json(path))
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise UserError(f"{path}: not the record of a best checkpoint; remove the file") from error
    if type(found.step) is not int or not isinstance(found.value, int | float):
        raise UserError(f"{path}: its step and value must be numbers; remove the file")
    return found


def write(repetition: Path, best: Best) -> None:
    """Replaces the record atomically.

    Raises:
      OSError: it cannot be written.
    """
    files.write_json(repetition / BEST / _RECORD, best._asdict())
