"""The record of a warm start: the parameters that a run began with, and where they came from.

`init_from.npz` holds the parameters and `init_from.json` their source, so that every repetition
begins with the same bits, whenever it begins and whatever has become of the source.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import INIT_FROM, INIT_FROM_PARAMS


class Source(NamedTuple):
    """A checkpoint of another run, as it is asked for."""

    run: str  # the absolute path of the run directory
    repetition: int
    step: int | str | None  # a number, "best", or None for the newest


class WarmStart(NamedTuple):
    """The parameters that a run begins with."""

    source: Source
    step: int  # of the checkpoint
    params: Mapping[str, np.ndarray]  # by name


class Record(NamedTuple):
    """The content of `init_from.json`."""

    source: Source
    step: int  # of the checkpoint
    sha256: str  # of the parameters


def describe(source: Source, step: int) -> str:
    """The line about a warm start in the summary at the start of a run."""
    return f"init_from   {source.run}, repetition {source.repetition}, step {step}"


def write(workdir: str | os.PathLike[str], start: WarmStart | None) -> None:
    """Records what a new run begins with; None removes what a start that was killed has left.

    Raises:
      OSError: a file cannot be written.
    """
    folder = Path(workdir)
    if start is None:
        for name in (INIT_FROM, INIT_FROM_PARAMS):
            (folder / name).unlink(missing_ok=True)
        return
    content = io.BytesIO()
    np.savez(content, **start.params)  # type: ignore[arg-type]
    files.write_bytes(folder / INIT_FROM_PARAMS, content.getvalue())
    record = {
        "source": start.source.run,
        "repetition": start.source.repetition,
        "asked_step": start.source.step,
        "step": start.step,
        "sha256": fingerprint(start.params),
    }
    files.write_json(folder / INIT_FROM, record)


def read(workdir: str | os.PathLike[str]) -> Record | None:
    """The record of a run's warm start; None if it began with random parameters.

    Raises:
      UserError: the record is damaged.
    """
    path = Path(workdir) / INIT_FROM
    try:
        found = files.read_json(path)
        source = Source(found["source"], found["repetition"], found["asked_step"])
        return Record(source, found["step"], found["sha256"])
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not the record of a warm start; restore it from a copy"
        ) from error


def read_params(workdir: str | os.PathLike[str]) -> dict[str, np.ndarray] | None:
    """The parameters that a run began with, by name; None if they were random.

    Raises:
      UserError: they are not there, or not those that were recorded.
    """
    record, path = read(workdir), Path(workdir) / INIT_FROM_PARAMS
    if record is None:
        return None
    try:
        with np.load(path) as arrays:
            params = dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read; restore it from a copy") from error
    if fingerprint(params) != record.sha256:
        raise UserError(f"{path}: not the parameters that the run began with; restore the file")
    return params


def check(workdir: str | os.PathLike[str], asked: Source) -> None:
    """Requires that a run which has begun did so with the parameters now asked for.

    Raises:
      UserError: it did not, or the record is damaged.
    """
    record = read(workdir)
    name = f"init_from={':'.join(str(part) for part in asked if part is not None)}"
    if record is None:
        raise UserError(f"{name}: {workdir} began with random parameters; use another folder")
    same = asked[:2] == record.source[:2] and asked.step in (record.source.step, record.step)
    if not same:
        source, repetition, _ = record.source
        raise UserError(
            f"{name}: {workdir} began with the parameters of {source}:{repetition}:{record.step}; "
            "omit init_from to continue the run, or use another folder"
        )


def fingerprint(params: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(params):
        array = np.asarray(params[name])
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
