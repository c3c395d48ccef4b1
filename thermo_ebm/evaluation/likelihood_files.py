"""The files of a held-out likelihood: tables with one row per image, and their settings.

    likelihood.csv                  of the validation images
    likelihood/settings.json        the checkpoint, settings and schedule that all rows share
    likelihood/simulated.csv        bounds on images of the model
    likelihood/against_NAME.csv     of other images
    likelihood/summary.json, *.png

A table is rewritten atomically after each group of images. A folder holds the figures of one
checkpoint by one estimator, and never mixes two.
"""

import contextlib
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.csvfile import read_csv

TABLE, FOLDER = "likelihood.csv", "likelihood"
IMAGE_COLUMNS = (
    "image",  # number of the image, from 0
    "checksum",  # CRC-32 of its pixels
    "log_likelihood",  # log p(x), nats
    "bits_per_dim",  # bits per dimension, for 256 levels per value
    "stderr",  # standard error of log p(x)
    "annealed",  # a stochastic lower bound on log p(x)
    "effective_sample_size",  # of the weights of the annealed chains
    "reconstruction",  # |x - g(z)|^2 / (2 sigma_l^2), mean over z of the posterior
    "tilt",  # f(z), likewise
    "norm",  # |z|^2 / (2 sigma_0^2), likewise
)
SIMULATED_COLUMNS = ("image", "lower", "log_likelihood", "stderr", "upper")
_WHOLE = ("image", "checksum")

Row = dict[str, float]


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Creates the folder and holds its lock, so that one process at a time fills its tables.

    Raises:
      UserError: another process holds the lock, or the folder cannot be written.
    """
    inner = folder / FOLDER
    try:
        inner.mkdir(parents=True, exist_ok=True)
        lock = FileLock(inner / ".lock", timeout=0.5)
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{folder}: another process is estimating likelihoods there; wait for its end"
        ) from error
    except OSError as error:
        raise UserError(f"output={folder}: cannot be written: {error.strerror}") from error
    try:
        with files.clear_errors(folder):
            yield
    finally:
        lock.release()


def read_settings(folder: Path, wanted: Mapping[str, Any]) -> list[float] | None:
    """The temperatures of the existing rows, if they were made with these settings.

    Args:
      folder: the folder of the tables.
      wanted: the settings required, plain numbers and words by flag or field.

    Returns:
      The recorded schedule, or None if there are no rows.

    Raises:
      UserError: the rows belong to another checkpoint or to other settings.
    """
    path = folder / FOLDER / "settings.json"
    try:
        recorded = files.read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(recorded, dict) or not isinstance(recorded.get("temperatures"), list):
        raise UserError(f"{path}: not the settings of a likelihood; move {folder / FOLDER} away")
    for name, value in wanted.items():
        if recorded.get(name) != value:
            raise UserError(
                f"{name}={value}: {folder / TABLE} was made with {recorded.get(name)}; name "
                "another folder as output, or move that table and the folder beside it away"
            )
    return [float(one) for one in recorded["temperatures"]]


def write_settings(
    folder: Path, settings: Mapping[str, Any], temperatures: Sequence[float]
) -> None:
    """Records the settings that all rows share."""
    whole = {**settings, "temperatures": [float(one) for one in temperatures]}
    files.write_json(folder / FOLDER / "settings.json", whole)


def read_rows(path: Path, columns: Sequence[str]) -> dict[int, Row]:
    """A table's rows by image; without a file there are no rows.

    Raises:
      UserError: the table is damaged; the message names the file and the line.
    """
    if not path.exists():
        return {}
    table = read_csv(path, columns).columns
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return {int(row["image"]): {name: float(row[name]) for name in columns} for row in rows}


def write_rows(path: Path, rows: Mapping[int, Row], columns: Sequence[str]) -> None:
    """Replaces a table, with rows in the order of images; floats are read back bit for bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for image in sorted(rows):
        row = rows[image]
        writer.writerow(
            str(int(row[name])) if name in _WHOLE else repr(float(row[name])) for name in columns
        )
    files.write_text(path, text.getvalue())


def update_summary(folder: Path, parts: Mapping[str, Any]) -> None:
    """Sets parts of the summary, and keeps the others, which belong to the same checkpoint."""
    path = folder / FOLDER / "summary.json"
    try:
        known = files.read_json(path)
    except FileNotFoundError:
        known = {}
    if not isinstance(known, dict):
        raise UserError(f"{path}: not a summary; move it away")
    files.write_json(path, {**known, **parts})
