"""Sources of grey images: scikit-learn's digits, and IDX files.

IDX is the format of MNIST and its successors (Fashion-MNIST, KMNIST, EMNIST): two zero bytes, the
type 8 (unsigned byte), the number of dimensions 3, three big-endian 32-bit sizes (images, rows,
columns) and the pixels, one byte each (http://yann.lecun.com/exdb/mnist, "FILE FORMATS").
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from thermo_ebm.data.arrays import from_array
from thermo_ebm.data.images import Source, check_levels
from thermo_ebm.errors import UserError, one_line

_GZIP = b"\x1f\x8b"
_MAGIC = bytes([0, 0, 8, 3])
_HEADER = struct.Struct(">4s3I")


def digits() -> Source:
    """Returns scikit-learn's 1,797 handwritten 8 x 8 digits, grey levels 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # takes a second to import; only this source needs it

    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    return from_array("scikit-learn's digits", images), None


def idx(path: str) -> Source:
    """Opens the training and test images in the folder `path`; the files of labels are not read.

    Args:
      path: a folder with `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`, or with a folder
        that has them; a prefix (`emnist-letters-`), `.idx3` for `-idx3`, `test` for `t10k` and
        `.gz` are accepted. Whether a file is compressed is decided by its content.

    Returns:
      The training images and the test images.

    Raises:
      UserError: a file is not there, cannot be read, or is not an IDX file of images.
    """
    if not path or not Path(path).is_dir():
        raise UserError(
            f"data.data_dir: no folder {path!r}; with data.name=idx it names a folder of IDX "
            "files, for example /usr/share/datasets/fashion-mnist"
        )
    train, test = _find_idx(Path(path), "train"), _find_idx(Path(path), "t10k", "test")
    images, test_images = read_idx(train), read_idx(test)
    check_levels([images], f"data.data_dir: {train}")
    return from_array(path, images), from_array(path, test_images)


def read_idx(path: Path) -> np.ndarray:
    """Reads one IDX file of images, compressed by gzip or not.

    Returns:
      uint8 [num, rows, columns].

    Raises:
      UserError: it cannot be read, or is not an IDX file of images.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
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
    num_pixels = len(content) - _HEADER.size
    if 0 in shape or num_pixels != math.prod(shape):
        raise UserError(
            f"data.data_dir: {path} declares {shape[0]} images of {shape[1]} x {shape[2]} pixels, "
            f"{math.prod(shape)} bytes, but holds {num_pixels}; copy or download it again"
        )
    return np.frombuffer(content, np.uint8, offset=_HEADER.size).reshape(shape)


def _find_idx(folder: Path, *parts: str) -> Path:
    """The file of images of one part; the unpacked one, and of equal files the first by name."""
    endings = [f"{part}-images{mark}idx3-ubyte" for part in parts for mark in "-."]
    names = tuple(ending + suffix for ending in endings for suffix in ("", ".gz"))
    matches = [file for file in _files(folder) if file.name.lower().endswith(names)]
    if not matches:  # unpackers and other libraries put each file, or all of them, into a folder
        subfolders = [path for path in _visible(folder) if path.is_dir()]
        inside = [file for subfolder in subfolders for file in _files(subfolder)]
        matches = [file for file in inside if file.name.lower().endswith(names)]
    if not matches:
        raise UserError(
            f"data.data_dir: {folder} has no {endings[0]} or {endings[0]}.gz; with data.name=idx "
            "the folder holds the training and the test images of one data set"
        )
    packed = {file for file in matches if file.suffix == ".gz"}
    unpacked = [
        file for file in matches if file not in packed or file.with_suffix("") not in matches
    ]
    contents = {file.read_bytes() for file in unpacked} if len(unpacked) > 1 else ()
    if len(contents) > 1:
        raise UserError(
            f"data.data_dir: {folder} holds several files of {parts[0]} images "
            f"({', '.join(file.name for file in unpacked)}); put only one data set into a folder"
        )
    return unpacked[0]


def _files(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if not path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    """The entries of a folder in order, without hidden ones, such as macOS leaves behind (`._`)."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"data.data_dir: {folder} cannot be searched: {error.strerror}") from error
