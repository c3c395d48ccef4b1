"""The parameters that a run began with, if they are those of another run, and their source.

`init_from.npz` holds both, so that every repetition begins with the same bits, whenever it begins
and whatever has become of the source.
"""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import INIT_FROM

_SOURCE = "source"  # the array of the source, beside those of the parameters


class SourceCheckpoint(NamedTuple):
    """A checkpoint of another run, as the user names it."""

    run: str  # the absolute path of the run directory
    repetition: int
    step: int | str | None  # a number, "best", or None for the newest


class WarmStart(NamedTuple):
    """The parameters that a run begins with."""

    source: SourceCheckpoint
    step: int  # of the checkpoint
    params: Mapping[str, np.ndarray]  # by name


def describe(start: WarmStart) -> str:
    """The line about a warm start in the summary at the start of a run."""
    return (
        f"init_from   {start.source.run}, repetition {start.source.repetition}, step {start.step}"
    )


def write(workdir: str | os.PathLike[str], start: WarmStart | None) -> None:
    """Records what a new run begins with; None removes what a start that was killed has left.

    Raises:
      OSError: the file cannot be written.
    """
    path = Path(workdir) / INIT_FROM
    if start is None:
        path.unlink(missing_ok=True)
        return
    content = io.BytesIO()
    source = np.array(json.dumps([*start.source, start.step]))
    np.savez(content, **{**start.params, _SOURCE: source})  # type: ignore[arg-type]
    files.write_bytes(path, content.getvalue())


def read(workdir: str | os.PathLike[str]) -> WarmStart | None:
    """The warm start of a run; None if it began with random parameters.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(workdir) / INIT_FROM
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            params = dict(arrays)
        *source, step = json.loads(str(params.pop(_SOURCE)))
        return WarmStart(SourceCheckpoint(*source), step, params)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read; restore it from a copy") from error


def check(workdir: str | os.PathLike[str], asked: SourceCheckpoint) -> None:
    """Requires that a run which has begun did so with the parameters now asked for.

    Raises:
      UserError: it did not, or the file is damaged.
    """
    start = read(workdir)
    name = f"init_from={':'.join(str(part) for part in asked if part is not None)}"
    if start is None:
        raise UserError(f"{name}: {workdir} began with random parameters; use another folder")
    run, repetition, step = start.source
    if asked[:2] != (run, repetition) or asked.step not in (step, start.step):
        raise UserError(
            f"{name}: {workdir} began with the parameters of {run}:{repetition}:{start.step}; "
            "omit init_from to continue the run, or use another folder"
        )
