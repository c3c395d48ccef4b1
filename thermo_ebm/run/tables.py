"""Readings: the tables of one run, with one row per epoch, rewritten atomically.

So that no row is lost or duplicated, write an epoch's row before its checkpoint, and when resuming
from a checkpoint call `truncate` with its number of finished epochs.
"""

import csv
import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.readings import READINGS, is_integer
from thermo_ebm.run import csvfile

Value = int | float | None
Row = dict[str, Value]


def append_row(
    path: str | os.PathLike[str], row: Mapping[str, Any], columns: Collection[str] = READINGS
) -> None:
    """Adds one epoch's row to the table, or replaces that epoch's rows; see `append_rows`."""
    append_rows(path, [row], columns)


def append_rows(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    columns: Collection[str] = READINGS,
) -> None:
    """Adds rows to a table, replacing all rows of the epochs they are of. Rewritten atomically.

    Args:
      path: the CSV file, created if needed.
      rows: values by column: Python, numpy or jax scalars; a column left out or None stays empty.
      columns: the table's columns, the first two of which every such table has; "epoch" is one of
        them. A table of another version, with fewer or other columns, is rewritten with these
        columns followed by its others. Floats are read back bit for bit.

    Raises:
      ValueError: a row has an unknown column, or no epoch.
      UserError: the existing file is not such a table.
    """
    for row in rows:
        if unknown := set(row) - set(columns):
            raise ValueError(f"columns {sorted(unknown)} are not in {tuple(columns)}")
    added = [{name: _as_text(name, row.get(name)) for name in columns} for row in rows]
    epochs = {int(row["epoch"]) for row in added}
    kept = [row for row in read_cells(path, [*columns][:2]) if int(row["epoch"]) not in epochs]
    rewritten = list(dict.fromkeys([*columns, *(name for row in kept for name in row)]))
    write_cells(path, sorted(kept + added, key=lambda row: int(row["epoch"])), rewritten)


def update_row(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Sets one epoch's values in a table of any columns, keeping its others; atomically.

    Columns that the table does not have yet are added at its end.
    """
    rows = read_cells(path)
    columns = list(dict.fromkeys([*(rows[0] if rows else ()), *row]))
    same = [old for old in rows if int(old["epoch"]) == int(row["epoch"])]
    merged = dict(same[0]) if same else {}
    merged |= {name: _as_text(name, value) for name, value in row.items()}
    others = [old for old in rows if old not in same]
    filled = [{name: old.get(name, "") for name in columns} for old in (*others, merged)]
    write_cells(path, sorted(filled, key=lambda one: int(one["epoch"])), columns)


def truncate(
    path: str | os.PathLike[str], last_epoch: int, columns: Collection[str] = READINGS
) -> None:
    """Drops the rows of epochs after `last_epoch`; does nothing if there is no file."""
    rows = read_cells(path, [*columns][:2])
    kept = [row for row in rows if int(row["epoch"]) <= last_epoch]
    if len(kept) < len(rows):
        write_cells(path, kept, list(rows[0]))


def read(path: str | os.PathLike[str], columns: Collection[str] | None = READINGS) -> list[Row]:
    """Reads a table; without a file there are no rows.

    Args:
      path: the CSV file.
      columns: the columns of each row; a value is None if the table lacks the column, as tables of
        other versions may. None uses the table's own columns.

    Returns:
      A dict for each row, with `columns` first and then further columns of the table: int for
      integer columns, float otherwise, None for empty cells.

    Raises:
      UserError: another header, or a malformed line; the message names the file and the line.
    """
    absent = dict.fromkeys(columns or (), "")
    return [
        {name: _as_value(name, text) for name, text in (absent | row).items()}
        for row in read_cells(path, [*(columns or ())][:2])
    ]


def _as_text(column: str, value: Any) -> str:
    if value is None:
        if column == "epoch":
            raise ValueError("a row needs its epoch")
        return ""
    return str(int(value)) if is_integer(column) else repr(float(value))


def _as_value(column: str, text: str) -> Value:
    if text == "":
        return None
    return int(float(text)) if is_integer(column) else float(text)


def read_cells(
    path: str | os.PathLike[str], required: Sequence[str] = (), words: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Reads and checks the cells of a table as text; without a file there are no rows.

    Args:
      path: the CSV file.
      required: columns that the table must have besides "epoch".
      words: columns that hold words; all others hold numbers or nothing.

    Raises:
      UserError: as for `read`.
    """
    path = Path(path)
    if not path.exists():
        return []
    _, rows, lines = csvfile.read_text(path, ("epoch", *required))
    for line, row in zip(lines, rows, strict=True):
        if row["epoch"] == "":
            raise UserError(f"{path}:{line}: the row has no epoch")
        for name in row.keys() - set(words):
            _check_number(path, line, name, row[name])
    return rows


def _check_number(path: Path, line: int, name: str, text: str) -> None:
    value = csvfile.number(path, line, name, text) if text else 0.0
    if is_integer(name) and not value.is_integer():
        raise UserError(f"{path}:{line}: {name} is {text!r}, not a whole number")


def write_cells(
    path: str | os.PathLike[str], rows: Iterable[Mapping[str, str]], columns: Sequence[str]
) -> None:
    """Replaces a table atomically by the given cells; missing cells stay empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, table.getvalue())
