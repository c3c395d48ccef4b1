"""Writes evaluations to a repetition's folder: rows, points of lines, events.

A row is of one epoch, one network, and one number of images and of sizes. Tables of earlier
versions have one row per epoch, with the columns of all networks; they are read and continued.

Programs that evaluate with different networks can write to the same folder at the same time: each
write reads, changes and replaces the files under one lock. The row is written last, so that a row
exists only if everything else does. The TensorBoard file is written anew from the rows, the last
one of each epoch, so that an evaluation that was killed and repeated appears only once.
"""

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from thermo_ebm.errors import UserError
from thermo_ebm.metrics.summary import LinePoint
from thermo_ebm.run import events, layout, lock, tables

# Files of earlier versions lack the last two.
POINT_COLUMNS = (
    "epoch",  # epochs done, from 1
    "metric",  # such as fid
    "size",  # number of images of a subset
    "value",  # mean of the metric over subsets of this size
    "num_images",  # of the evaluation
    "num_sizes",  # of the evaluation
)


class Extent(NamedTuple):
    """Evaluations that can be compared: those with the same columns, of the same sizes."""

    network: str  # the prefix of the columns
    num_images: int
    num_sizes: int


def extent(network: str, num_images: int, num_sizes: int) -> dict[str, tables.Value]:
    """The numbers of images and sizes with which a row's metrics of a network were computed."""
    return {f"{network}_num_images": num_images, f"{network}_num_sizes": num_sizes}


def other_extents(folder: Path, of: Extent) -> set[Extent]:
    """The other numbers of images and sizes with which a table has metrics of the same network.

    Raises:
      UserError: the table is damaged; the message names the file and the line.
    """
    columns = extent(*of)
    numbers = [[row.get(name) for name in columns] for row in _read_rows(folder)]
    return {Extent(of.network, int(n), int(s or 0)) for n, s in numbers if n is not None} - {of}


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
    """Adds one evaluation to a repetition's folder, or replaces the one with equal settings.

    These are its epoch, network, and numbers of images and sizes.

    Args:
      folder: of the repetition.
      network: the prefix of the row's columns.
      row: epoch, step, the metrics and their `extent`.
      points: of the extrapolations.
      tensorboard: whether to write events too.

    Raises:
      UserError: a file cannot be written, or the existing table is damaged.
    """
    try:
        with locked(folder):
            _write_points(folder, network, row, points)
            if tensorboard:
                _write_events(folder, network, row)
            key = ("epoch", *extent(network, 0, 0))
            tables.update_row(folder / layout.EVALUATIONS, row, network, key)
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
    return tables.read_cells(path, POINT_COLUMNS[:4], words=("metric",))


def _write_points(folder: Path, network: str, row: tables.Row, points: Sequence[LinePoint]) -> None:
    """Replaces the points of one evaluation, in the order of epochs."""
    path, columns = layout.evaluation_points(folder, network), [*extent(network, 0, 0)]

    def settings(row: tables.Row) -> dict[str, str]:
        values = [int(row.get(name) or 0) for name in columns]
        return dict(zip(POINT_COLUMNS[4:], map(str, values), strict=True))

    # Points of earlier versions are of the only evaluation of their epoch.
    earlier = {str(row["epoch"]): settings(row) for row in _rows_of(folder, network)}
    old = [earlier.get(point["epoch"], {}) | point for point in _read_points(path)]
    evaluation = {"epoch": str(row["epoch"]), **settings(row)}
    old = [point for point in old if not evaluation.items() <= point.items()]
    new = [
        {
            **evaluation,
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


def _rows_of(folder: Path, network: str) -> list[tables.Row]:
    """The rows that have metrics of this network."""
    return [row for row in _read_rows(folder) if row.get(f"{network}_num_images") is not None]


def _write_events(folder: Path, network: str, row: tables.Row) -> None:
    """Replaces the existing event files by a new file with one row per epoch."""
    last = {old["epoch"]: old for old in [*_rows_of(folder, network), row]}
    target = folder / layout.TENSORBOARD / f"eval_{network}"
    shutil.rmtree(target, ignore_errors=True)
    writer = events.open_events(target)
    for evaluated in sorted(last.values(), key=lambda row: row["step"] or 0):
        values = {f"eval/{name}": evaluated[name] for name in _columns_of(network, evaluated)}
        events.write_scalars(writer, int(evaluated["step"] or 0), values)
    events.close_events(writer)
