"""Images in parquet files, as data sets on the Hugging Face Hub are stored: encoded, one per row.

The column of images has bytes, or a struct with a field `bytes`. The encoded images stay in memory
and are decoded when they are read.
"""

import collections
import importlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thermo_ebm import runtime
from thermo_ebm.data.folder import LITTER, describe
from thermo_ebm.data.images import Images, Source, Unreadable, open_image, suffixes
from thermo_ebm.errors import UserError, one_line

_SUFFIX, _MAGIC = ".parquet", b"PAR1"


def is_parquet(name: str) -> bool:
    """Whether a name is that of a parquet file, or of a folder with parquet files and no images.

    Args:
      name: a path, or `PATH:COLUMN`.
    """
    path, _ = split_name(name)
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    has_parquet, of_images = False, suffixes()
    for entry in _files_under(path):
        suffix = entry.suffix.lower()
        if suffix in of_images:
            return False
        has_parquet = has_parquet or suffix == _SUFFIX
    return has_parquet


def split_name(name: str) -> tuple[str, str]:
    """Splits `PATH:COLUMN` into the path, with `~` expanded, and the column's name or ""."""
    path = runtime.expand_home(name)
    file, _, column = path.rpartition(":")
    return (file, column) if file and not os.path.exists(path) else (path, "")


def parquet(name: str) -> Source:
    """Opens the images of a parquet file, or of all such files under a folder, in their order.

    Args:
      name: the path, or `PATH:COLUMN` where files have several columns that may hold images.

    Raises:
      UserError: a file cannot be read or has no such column, there are no rows, the choice of the
        column is open, or pyarrow is not installed.
    """
    path, column = split_name(name)
    files, left_out = ([path], "") if os.path.isfile(path) else _list_files(path)
    columns = [_read_column(file, column, path) for file in files]
    ends = np.cumsum([len(values) for values in columns])
    if not ends[-1]:
        raise UserError(f"data.data_dir: no rows in {path}")

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        numbers = np.searchsorted(ends, indices, side="right").tolist()
        rows = [i - int(ends[n]) + len(columns[n]) for i, n in zip(indices, numbers, strict=True)]
        return [
            _decoded(f"{files[n]}, row {row}", columns[n][row].as_py)
            for n, row in zip(numbers, rows, strict=True)
        ]

    remarks = (f"left out: {left_out}",) if left_out else ()
    return Images(path, decode, np.arange(int(ends[-1])), remarks=remarks), None


def _counts(name: str) -> bool:
    return not name.startswith(".") and name not in LITTER


def _files_under(path: str) -> Iterator[Path]:
    """The files under a folder that are used or counted."""
    for parent, folders, files in os.walk(path):
        folders[:] = [name for name in folders if _counts(name)]
        yield from (Path(parent, name) for name in files if _counts(name))


def _list_files(path: str) -> tuple[list[str], str]:
    """The parquet files under a folder, in the order of their paths, and a count of the others."""
    paths: list[Path] = []
    others = collections.Counter[str]()
    for file in _files_under(path):
        if file.suffix.lower() == _SUFFIX:
            paths.append(file)
        else:
            others[file.suffix.lower() or "without suffix"] += 1
    return [str(file) for file in sorted(paths)], describe(others, collections.Counter())


def _read_column(file: str, column: str, path: str) -> Any:
    """The column of encoded images, a chunked array of pyarrow."""
    try:
        pyarrow = importlib.import_module("pyarrow")
        files = importlib.import_module("pyarrow.parquet")
        compute = importlib.import_module("pyarrow.compute")
    except ModuleNotFoundError as error:
        raise UserError(
            f"data.data_dir: {path} is in the parquet format, which needs the package pyarrow: "
            "pip install pyarrow, or the extra [parquet]"
        ) from error
    try:
        with files.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            chosen = _choose(file, column, path, schema, pyarrow.types)
            nested = pyarrow.types.is_struct(schema.field(chosen).type)
            name = f"{chosen}.bytes" if nested else chosen
            values = opened.read(columns=[name]).column(0)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"data.data_dir: {file} cannot be read as a parquet file: {one_line(error)}"
        ) from error
    return compute.struct_field(values, "bytes") if nested else values


def _choose(file: str, column: str, path: str, schema: Any, types: Any) -> str:
    """The name of the column that holds images."""

    def is_binary(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def has_bytes(kind: Any) -> bool:
        if not types.is_struct(kind):
            return is_binary(kind)
        return any(field.name == "bytes" and is_binary(field.type) for field in kind)

    names = [field.name for field in schema if has_bytes(field.type)]
    if (column and column not in names) or not names:
        wanted = f"column {column!r} of images" if column else "column of encoded images"
        raise UserError(
            f"data.data_dir: {file} has no {wanted}, bytes or a struct with a field 'bytes' (its "
            f"columns: {', '.join(schema.names)})"
        )
    if not column and len(names) > 1:
        raise UserError(
            f"data.data_dir: {file} has several columns of bytes, {', '.join(names)}; name one, as "
            f"{path}:{names[0]}"
        )
    return column or names[0]


def _decoded(where: str, read: Callable[[], bytes | None]) -> Image.Image | Unreadable:
    try:
        content = read()
        if content is None:
            return Unreadable(where, "no image there")
        return open_image(io.BytesIO(content), upright=True)
    except Exception as error:  # Pillow raises many kinds for a damaged image
        return Unreadable(where, one_line(error))
