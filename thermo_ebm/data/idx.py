"""IDX files, the format of MNIST and of its successors (Fashion-MNIST, KMNIST, EMNIST).

An IDX file of images is two zero bytes, the type 8 (unsigned byte), the number of dimensions 3,
three big-endian 32-bit sizes (images, rows, columns) and the pixels, one byte each
(http://yann.lecun.com/exdb/mnist, "FILE FORMATS").
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from thermo_ebm.data.local import array_split
from thermo_ebm.data.source import Source
from thermo_ebm.errors import UserError, one_line

_MAGIC = bytes([0, 0, 8, 3])
_HEADER = struct.Struct(">4s3I")


def idx(path: str) -> Source:
    """Opens the training and test images in the folder `path`; the files of labels are not read.

    Args:
      path: a folder with `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`, either compressed
        (`.gz`) or not; a prefix (`emnist-letters-`), `.idx3` for `-idx3`, and `test` for `t10k` are
        accepted.

    Returns:
      The source; the test images are the validation set.

    Raises:
      UserError: a file is not there, cannot be read, or is not an IDX file of images.
    """
    if not path or not Path(path).is_dir():
        raise UserError(
            f"data.data_dir: no folder {path!r}; with data.name=idx it names a folder of IDX "
            "files, for example /usr/share/datasets/fashion-mnist"
        )
    train, test = _find(Path(path), "train"), _find(Path(path), "t10k", "test")
    return Source(path, array_split(read_images(train)), array_split(read_images(test)))


def read_images(path: Path) -> np.ndarray:
    """Reads one IDX file of images, compressed by gzip or not.

    Returns:
      uint8 [num, rows, columns].

    Raises:
      UserError: it cannot be read, or is not an IDX file of images.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"data.data_dir: {path} cannot be read ({one_line(error)}); copy or download it again"
        ) from error
    if len(content) < _HEADER.size or not content.startswith(_MAGIC):
        raise UserError(
            f"data.data_dir: {path} is not an IDX file of images: it starts with "
            f"{content[:4].hex(' ') or 'nothing'}, not with {_MAGIC.hex(' ')}"
        )
    shape = _HEADER.unpack_from(content)[1:]
    found = len(content) - _HEADER.size
    if 0 in shape or found != math.prod(shape):
        raise UserError(
            f"data.data_dir: {path} declares {shape[0]} images of {shape[1]} x {shape[2]} pixels, "
            f"{math.prod(shape)} bytes, but holds {found}; copy or download it again"
        )
    return np.frombuffer(content, np.uint8, offset=_HEADER.size).reshape(shape)


def _find(folder: Path, *parts: str) -> Path:
    """The file of images of one part; the uncompressed file if both forms exist."""
    endings = [f"{part}-images{mark}idx3-ubyte" for part in parts for mark in "-."]
    for suffix in ("", ".gz"):
        names = [ending + suffix for ending in endings]
        found = sorted(file for file in folder.iterdir() if file.name.endswith(tuple(names)))
        if len(found) > 1:
            raise UserError(
                f"data.data_dir: {folder} holds several files of {parts[0]} images "
                f"({', '.join(file.name for file in found)}); put only one data set into a folder"
            )
        if found:
            return found[0]
    raise UserError(
        f"data.data_dir: {folder} has no {endings[0]} or {endings[0]}.gz; with data.name=idx the "
        "folder holds the training and the test images of one data set"
    )
