"""Local files: scikit-learn's digits, an `.npz` array, a folder of images, IDX files.

IDX is the format of MNIST and its successors (Fashion-MNIST, KMNIST, EMNIST): two zero bytes, the
type 8 (unsigned byte), the number of dimensions 3, three big-endian 32-bit sizes (images, rows,
columns) and the pixels, one byte each (http://yann.lecun.com/exdb/mnist, "FILE FORMATS").
"""

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from thermo_ebm.data.images import Images, Source, Unreadable
from thermo_ebm.errors import UserError, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_MAGIC = bytes([0, 0, 8, 3])
_HEADER = struct.Struct(">4s3I")


def from_array(source: str, images: np.ndarray) -> Images:
    """Wraps uint8 [num, height, width] or [num, height, width, 1 or 3]."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [Image.fromarray(images[i]) for i in indices]

    return Images(source, decode, np.arange(len(images)))


def digits() -> Source:
    """Returns scikit-learn's 1,797 handwritten 8 x 8 digits, grey levels 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # takes a second to import; only this source needs it

    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    return from_array("scikit-learn's digits", images), None


def npz(path: str) -> Source:
    """Opens `path`: its array `images`, or its only array, uint8 [num, h, w] or [num, h, w, c].

    Raises:
      UserError: there is no such file, it cannot be read, or it holds something else.
    """
    if not path or not Path(path).is_file():
        raise UserError(
            f"data.data_dir: no file {path!r}; with data.name=npz it names an .npz file"
        )
    try:
        images = _only_array(path)
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise UserError(f"data.data_dir: {path} cannot be read as .npz: {error}") from error
    layout_ok = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if images.dtype != np.uint8 or not layout_ok or 0 in images.shape:
        raise UserError(
            f"data.data_dir: {path} holds {images.dtype} of shape {images.shape}; images must be "
            "uint8 [num, height, width] or [num, height, width, 1 or 3]"
        )
    return from_array(path, images), None


def _only_array(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise ValueError("it is a single .npy array; save it with numpy.savez")
        names = list(arrays.files)
        if "images" not in names and len(names) != 1:
            raise ValueError(f"arrays {names}, none of them named 'images'")
        images = arrays["images" if "images" in names else names[0]]
        if not isinstance(images, np.ndarray):
            raise ValueError("its member is not an array")
        return images


def folder(path: str) -> Source:
    """Opens every image under `path`, subfolders and links included, in the order of their names.

    Raises:
      UserError: there is no such folder, or no image in it.
    """
    if not path or not Path(path).is_dir():
        raise UserError(
            f"data.data_dir: no folder {path!r}; with data.name=folder it names a folder of "
            "images, for example CelebA's img_align_celeba"
        )
    names = _image_names(path)
    if not names:
        raise UserError(f"data.data_dir: no images ({', '.join(IMAGE_SUFFIXES)}) under {path}")

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [_open(os.path.join(path, names[i])) for i in indices]

    return Images(path, decode, np.arange(len(names))), None


def _image_names(path: str) -> list[str]:
    names, visited = [], set()
    for parent, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:  # circular links, or two links to one folder
            folders[:] = []
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [
            os.path.relpath(os.path.join(parent, name), path)
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(names)  # os.walk's own order differs between file systems


def _open(path: str) -> Image.Image | Unreadable:
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        return Unreadable(path, one_line(error))


def idx(path: str) -> Source:
    """Opens the training and test images in the folder `path`; the files of labels are not read.

    Args:
      path: a folder with `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte`, either compressed
        (`.gz`) or not; a prefix (`emnist-letters-`), `.idx3` for `-idx3`, and `test` for `t10k` are
        accepted.

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
    return from_array(path, read_idx(train)), from_array(path, read_idx(test))


def read_idx(path: Path) -> np.ndarray:
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
    num_pixels = len(content) - _HEADER.size
    if 0 in shape or num_pixels != math.prod(shape):
        raise UserError(
            f"data.data_dir: {path} declares {shape[0]} images of {shape[1]} x {shape[2]} pixels, "
            f"{math.prod(shape)} bytes, but holds {num_pixels}; copy or download it again"
        )
    return np.frombuffer(content, np.uint8, offset=_HEADER.size).reshape(shape)


def _find_idx(folder: Path, *parts: str) -> Path:
    """The file of images of one part; the uncompressed file if both forms exist."""
    endings = [f"{part}-images{mark}idx3-ubyte" for part in parts for mark in "-."]
    for suffix in ("", ".gz"):
        names = [ending + suffix for ending in endings]
        matches = sorted(file for file in folder.iterdir() if file.name.endswith(tuple(names)))
        if len(matches) > 1:
            raise UserError(
                f"data.data_dir: {folder} holds several files of {parts[0]} images "
                f"({', '.join(file.name for file in matches)}); put only one data set into a folder"
            )
        if matches:
            return matches[0]
    raise UserError(
        f"data.data_dir: {folder} has no {endings[0]} or {endings[0]}.gz; with data.name=idx the "
        "folder holds the training and the test images of one data set"
    )
