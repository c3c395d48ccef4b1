"""Writes evaluations to a repetition's folder: one row per epoch, points of lines, events.

Programs that evaluate with different networks can write to the same folder at the same time: each
write reads, changes and replaces the files under one lock. The row is written last, so that a row
exists only if everything else does. The TensorBoard file is written anew from all rows, so that an
evaluation that was killed and repeated appears only once.
"""

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.summary import LinePoint
from thermo_ebm.run import events, layout, lock, tables

POINT_COLUMNS = ("epoch", "metric", "size", "value")


class Extent(NamedTuple):
    """Evaluations that can be compared: those with the same columns, of the same sizes."""

    network: str  # the prefix of the columns
    num_images: int
    num_sizes: int


def extent(network: str, num_images: int, num_sizes: int) -> dict[str, tables.Value]:
    """The numbers of images and sizes with which a row's metrics of a network were computed."""
    return {f"{network}_num_images": num_images, f"{network}_num_sizes": num_sizes}


def half_columns(network: str, metric: str) -> tuple[str, str]:
    """The columns of the half of the images that chooses, and of the one that reports."""
    return f"{network}_{metric}_half_1", f"{network}_{metric}_half_2"


def evaluated_steps(folder: Path, of: Extent, required: Sequence[str] = ()) -> set[int]:
    """The steps that have these metrics of these numbers of images and sizes.

    Args:
      folder: of the repetition.
      of: the metrics and their numbers.
      required: further columns that must have a value.

    Raises:
      UserError: the table is damaged; the message names the file and the line.
    """
    rows = tables.read(folder / layout.EVALUATIONS, columns=None)
    columns = extent(*of).items()
    return {
        int(row.get("step") or 0)
        for row in rows
        if columns <= row.items() and all(row.get(name) is not None for name in required)
    }


def write(
    folder: Path,
    network: str,
    row: tables.Row,
    points: Sequence[LinePoint],
    tensorboard: bool,
) -> None:
    """Adds one evaluation to a repetition's folder, or replaces that epoch's of the same network.

    Args:
      folder: of the repetition.
      network: the prefix of the row's columns.
      row: epoch, step and the metrics.
      points: of the extrapolations.
      tensorboard: whether to write events too.

    Raises:
      UserError: a file cannot be written, or the existing table is damaged.
    """
    try:
        with locked(folder):
            _write_points(layout.evaluation_points(folder, network), int(row["epoch"] or 0), points)
            if tensorboard:
                _write_events(folder, network, row)
            tables.update_row(folder / layout.EVALUATIONS, row)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: the evaluation cannot be written: {error.strerror}"
        ) from error


def check_writable(folder: Path, network: str) -> None:
    """Fails early if evaluations could not be written.

    Raises:
      UserError: the folder cannot be written, or a table in it is damaged.
    """
    try:
        with locked(folder):
            _read_points(layout.evaluation_points(folder, network))
            _read_rows(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: evaluations cannot be written: {error.strerror}"
        ) from error


def locked(folder: Path) -> AbstractContextManager[None]:
    """Waits for other writers to the folder; raises OSError if it cannot be written."""
    return lock.locked(folder / layout.EVALUATION_LOCK)


def _read_rows(folder: Path) -> list[tables.Row]:
    """The table of evaluations, each row of which has its step."""
    rows = tables.read(folder / layout.EVALUATIONS, columns=None)
    if any(row.get("step") is None for row in rows):
        raise UserError(f"{folder / layout.EVALUATIONS}: a row has no step; move it away")
    return rows


def _read_points(path: Path) -> list[dict[str, str]]:
    """The cells of the points; without a file there are none."""
    return tables.read_cells(path, POINT_COLUMNS, words=("metric",))


def _write_points(path: Path, epoch: int, points: Sequence[LinePoint]) -> None:
    """Replaces one epoch's points, in the order of epochs."""
    old = [row for row in _read_points(path) if row["epoch"] != str(epoch)]
    new = [
        {
            "epoch": str(epoch),
            "metric": point.metric,
            "size": str(point.size),
            "value": repr(point.value),
        }
        for point in points
    ]
    ordered = sorted([*old, *new], key=lambda row: int(row["epoch"]))
    tables.write_cells(path, ordered, POINT_COLUMNS)


def _columns_of(network: str, row: tables.Row) -> list[str]:
    """Columns of this network only: its name may be the beginning of another network's."""
    networks = [name.removesuffix("_num_images") for name in row if name.endswith("_num_images")]
    longer = tuple(f"{name}_" for name in networks if name.startswith(f"{network}_"))
    return [name for name in row if name.startswith(f"{network}_") and not name.startswith(longer)]


def _write_events(folder: Path, network: str, row: tables.Row) -> None:
    """Replaces the existing event files by a new file with all rows."""
    rows = [old for old in _read_rows(folder) if old["epoch"] != row["epoch"]] + [row]
    target = folder / layout.TENSORBOARD / f"eval_{network}"
    shutil.rmtree(target, ignore_errors=True)
    writer = events.open_events(target)
    for evaluated in sorted(rows, key=lambda row: row["step"] or 0):
        values = {f"eval/{name}": evaluated[name] for name in _columns_of(network, evaluated)}
        events.write_scalars(writer, int(evaluated["step"] or 0), values)
    events.close_events(writer)
