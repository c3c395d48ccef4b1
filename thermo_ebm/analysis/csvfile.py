"""A strict reader of small numeric CSV files: errors name the file and line."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from thermo_ebm.errors import UserError


class CsvColumns(NamedTuple):
    """The columns of a CSV file, in its order, and the line that each row stands on."""

    columns: dict[str, list[float | str]]
    lines: list[int]


def read_csv(
    path: Path,
    required: Sequence[str],
    text: Sequence[str] = (),
    allow_empty: bool = False,
) -> CsvColumns:
    """Reads a CSV file with one header line.

    Args:
      path: the file.
      required: columns that must be there; others are read as well.
      text: columns that hold words; every other one holds numbers ("nan" and "inf" are numbers).
      allow_empty: read an empty field as NaN (a reading that was not taken).

    Raises:
      UserError: naming the file and line, for a missing column, a field too many or too few, or a
        field that is not a number.
    """
    try:
        rows, lines = _rows(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error}); restore or remove it") from error
    if not rows:
        raise UserError(f"{path}:1: the file is empty; expected the header {','.join(required)}")
    header = [name.strip() for name in rows[0]]
    _check_header(path, header, required)
    columns: dict[str, list[float | str]] = {name: [] for name in header}
    for line, row in zip(lines[1:], rows[1:], strict=True):
        if len(row) != len(header):
            raise UserError(f"{path}:{line}: {len(row)} fields where the header has {len(header)}")
        for name, field in zip(header, row, strict=True):
            value = field if name in text else _number(path, line, name, field, allow_empty)
            columns[name].append(value)
    if len(rows) == 1:
        raise UserError(f"{path}:2: no readings after the header; restore or remove the file")
    return CsvColumns(columns, lines[1:])


def check_epochs(
    path: Path,
    readings: CsvColumns,
    name: str,
    first: int | None = None,
    repeats: bool = False,
) -> None:
    """Raises UserError where the epochs are not whole numbers that rise, or start elsewhere.

    With `repeats`, an epoch may follow itself (several rows of one epoch).
    """
    previous: float | None = None
    for line, epoch in zip(readings.lines, readings.columns[name], strict=True):
        if not isinstance(epoch, float) or not epoch.is_integer() or epoch < 0:
            raise UserError(f"{path}:{line}: {name} is {epoch}, not a whole number")
        if previous is None and first is not None and epoch != first:
            raise UserError(f"{path}:{line}: the first {name} is {epoch:g} instead of {first}")
        if previous is not None and (epoch < previous or (epoch == previous and not repeats)):
            raise UserError(f"{path}:{line}: {name} {epoch:g} follows {previous:g}; it must rise")
        previous = epoch


def _rows(path: Path) -> tuple[list[list[str]], list[int]]:
    """Returns the rows that are not blank and their line numbers, from 1."""
    rows, lines = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for row in reader:
            if any(field.strip() for field in row):
                rows.append(row)
                lines.append(reader.line_num)
    return rows, lines


def _check_header(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    for name in required:
        if name not in header:
            raise UserError(f"{path}:1: the column {name!r} is missing from the header")
    if len(set(header)) != len(header):
        raise UserError(f"{path}:1: the header names a column twice: {','.join(header)}")


def _number(path: Path, line: int, name: str, field: str, allow_empty: bool) -> float:
    if not field.strip() and allow_empty:
        return float("nan")
    try:
        return float(field)
    except ValueError:
        raise UserError(f"{path}:{line}: {name} is {field!r}, not a number") from None
