"""Tables of a run: CSV files, read strictly and rewritten atomically.

Every error of a reader names the file and the line. Tables of readings have one row per epoch (or
several, of one epoch). So that no row is lost or duplicated, write an epoch's row before its
checkpoint, and when resuming from a checkpoint call `truncate` with its number of finished epochs.
"""

import csv
import io
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.readings import READINGS, is_integer

NETWORK = "network"  # the column of `eval.csv` that names what a row is of; others have numbers

Value = int | float | None
Row = dict[str, Value]


# Any table.


class CsvText(NamedTuple):
    """The fields of a CSV file as they are written, and the line that each row stands on."""

    header: list[str]
    rows: list[dict[str, str]]
    lines: list[int]


class CsvColumns(NamedTuple):
    """The columns of a CSV file, in its order, and the line that each row stands on."""

    columns: dict[str, list[float | str]]
    lines: list[int]


def read_text(path: Path, required: Sequence[str] = ()) -> CsvText:
    """Reads a CSV file with one header line; blank lines are left out.

    Args:
      path: the file.
      required: columns that must be there; other columns are read as well.

    Raises:
      UserError: naming the file and line, for a missing or doubled column, or a field too many or
        too few.
    """
    rows, lines = [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                if any(field.strip() for field in row):
                    rows.append(row)
                    lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); restore or remove it") from error
    if not rows:
        raise UserError(f"{path}:1: the file is empty; expected the header {','.join(required)}")
    header = [name.strip() for name in rows[0]]
    for name in required:
        if name not in header:
            raise UserError(f"{path}:1: the column {name!r} is missing from the header")
    if len(set(header)) != len(header):
        raise UserError(f"{path}:1: the header names a column twice: {','.join(header)}")
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise UserError(f"{path}:{line}: {len(row)} fields where the header has {len(header)}")
    return CsvText(header, [dict(zip(header, row, strict=True)) for row in rows[1:]], lines[1:])


def read_columns(
    path: Path,
    required: Sequence[str],
    text: Sequence[str] = (),
    allow_empty: bool = False,
) -> CsvColumns:
    """Reads a CSV file of numbers by columns.

    Args:
      path: the file.
      required: columns that must be there; other columns are read as well.
      text: columns that hold words; all others hold numbers ("nan" and "inf" are numbers).
      allow_empty: read an empty field as NaN (a reading that was not taken).

    Raises:
      UserError: as of `read_text`, for a field that is not a number, or where there are no rows.
    """
    header, rows, lines = read_text(path, required)
    if not rows:
        raise UserError(f"{path}:2: no readings after the header; restore or remove the file")
    columns: dict[str, list[float | str]] = {}
    for name in header:
        fields = [row[name] for row in rows]
        if name in text:
            columns[name] = [*fields]
            continue
        columns[name] = [
            float("nan") if allow_empty and not field.strip() else _number(path, line, name, field)
            for line, field in zip(lines, fields, strict=True)
        ]
    return CsvColumns(columns, lines)


def check_epochs(
    path: Path,
    table: CsvColumns,
    name: str,
    first: int | None = None,
    repeats: bool = False,
) -> None:
    """Raises UserError where the epochs are not integers that rise, or start elsewhere.

    With `repeats`, an epoch may follow itself (several rows of one epoch).
    """
    previous: float | None = None
    for line, epoch in zip(table.lines, table.columns[name], strict=True):
        if not isinstance(epoch, float) or not epoch.is_integer() or epoch < 0:
            raise UserError(f"{path}:{line}: {name} is {epoch}, not a whole number")
        if previous is None and first is not None and epoch != first:
            raise UserError(f"{path}:{line}: the first {name} is {epoch:g} instead of {first}")
        if previous is not None and (epoch < previous or (epoch == previous and not repeats)):
            raise UserError(f"{path}:{line}: {name} {epoch:g} follows {previous:g}; it must rise")
        previous = epoch


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


def _number(path: Path, line: int, name: str, field: str) -> float:
    try:
        return float(field)
    except ValueError:
        raise UserError(f"{path}:{line}: {name} is {field!r}, not a number") from None


# Tables with one or several rows per epoch.


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
    epochs = {_epoch(row) for row in added}
    earlier = [row for row in read_cells(path, [*columns][:2]) if _epoch(row) not in epochs]
    header = list(dict.fromkeys([*columns, *(name for row in earlier for name in row)]))
    write_cells(path, sorted(earlier + added, key=_epoch), header)


def update_row(
    path: str | os.PathLike[str],
    row: Mapping[str, Any],
    network: str = "",
    key: Collection[str] = ("epoch",),
) -> None:
    """Sets one row's values in a table of any columns, leaving its other values; atomically.

    Columns that the table does not have yet are added at its end.

    Args:
      path: the CSV file, created if needed.
      row: numbers by column.
      network: of the column `NETWORK`; "" sets none.
      key: columns in which the row that is set agrees with `row`. Without such a row, one is added
        after those of its epoch.
    """
    new = {name: _as_text(name, value) for name, value in row.items()}
    if network:
        new = {"epoch": new["epoch"], NETWORK: network} | new
    rows = read_cells(path)
    same = [old for old in rows if all(old.get(name) == new[name] for name in key)]
    if same:
        same[0].update(new)
    else:
        rows.append(new)
    header = list(dict.fromkeys(name for values in [new, *rows] for name in values))
    write_cells(path, sorted(rows, key=_epoch), header)


def truncate(
    path: str | os.PathLike[str], last_epoch: int, columns: Collection[str] = READINGS
) -> None:
    """Drops the rows of epochs after `last_epoch`; does nothing if there is no file."""
    rows = read_cells(path, [*columns][:2])
    remaining = [row for row in rows if _epoch(row) <= last_epoch]
    if len(remaining) < len(rows):
        write_cells(path, remaining, list(rows[0]))


def read(path: str | os.PathLike[str], columns: Collection[str] | None = READINGS) -> list[Row]:
    """Reads a table; without a file there are no rows.

    Args:
      path: the CSV file.
      columns: the columns of each row; a value is None if the table lacks the column, as tables of
        other versions may. None uses the table's own columns.

    Returns:
      A dict for each row, with `columns` first and then further columns of the table, except
      `NETWORK`: int for integer columns, float otherwise, None for empty cells.

    Raises:
      UserError: another header, or a malformed line; the message names the file and the line.
    """
    absent = dict.fromkeys(columns or (), "")
    return [
        {name: _as_value(name, text) for name, text in (absent | row).items() if name != NETWORK}
        for row in read_cells(path, [*(columns or ())][:2])
    ]


def read_cells(
    path: str | os.PathLike[str], required: Sequence[str] = (), words: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Reads and checks the cells of a table as text; without a file there are no rows.

    Args:
      path: the CSV file.
      required: columns that the table must have besides "epoch".
      words: columns that hold words, as `NETWORK` does; all others hold numbers or nothing.

    Raises:
      UserError: as for `read`.
    """
    path = Path(path)
    if not path.exists():
        return []
    _, rows, lines = read_text(path, ("epoch", *required))
    for line, row in zip(lines, rows, strict=True):
        if row["epoch"] == "":
            raise UserError(f"{path}:{line}: the row has no epoch")
        for name in row.keys() - {*words, NETWORK}:
            number = _number(path, line, name, row[name]) if row[name] else 0.0
            if is_integer(name) and not number.is_integer():
                raise UserError(f"{path}:{line}: {name} is {row[name]!r}, not a whole number")
    return rows


def _epoch(row: Mapping[str, str]) -> int:
    return int(row["epoch"])


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
