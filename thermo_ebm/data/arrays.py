"""Files of arrays of images, `.npy` and `.npz`, recognised by their content.

The arrays may come from other programs: the samples of ADM and EDM (`arr_0`, with labels in
`arr_1`), the data sets of Keras (`x_train`, ...) and MedMNIST (`train_images`, ...), or any array
of images. `FILE.npz:NAME` names one array of a file.
"""

import math
import os
import zipfile
from collections.abc import Sequence
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from thermo_ebm import runtime
from thermo_ebm.data.images import Images, Source, Unreadable, check_levels
from thermo_ebm.errors import UserError, one_line

STATISTICS = ("mu", "sigma")  # the arrays of a file of statistics
# The first bytes of files that are no files of numpy, what such a file is, and what to do.
_OTHER_FILES = (
    (b"\x89HDF", "an HDF5 file", "read its array with h5py and save it with numpy.savez"),
    (b"MATLAB", "a MATLAB file", "read it with scipy.io.loadmat and save it with numpy.savez"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (b"\x80", "a pickle", "load it with its own program and save its images with numpy.savez"),
    (b"\x89PNG", "a single image", "name a folder of images"),
    (b"\xff\xd8", "a single image", "name a folder of images"),
    (b"GIF8", "a single image", "name a folder of images"),
)
_TOLERANCE = 1e-3  # by which floats may leave [0, 1] or [-1, 1]; half a level is 2e-3 of [0, 1]
_LEAST_LEVEL = 16  # floats whose maximum lies between 1 and this are no levels from 0 to 255
_CHUNK = 1024  # number of images that are converted at a time


class Contents(NamedTuple):
    """The arrays of a file, by name; the array of an `.npy` file has the name ""."""

    path: str
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]

    @property
    def images(self) -> list[str]:
        """Names of the arrays that can be images."""
        return [name for name, shape in self.shapes.items() if _can_be_images(shape)]

    @property
    def statistics(self) -> list[str]:
        """Names of the arrays of moments of features."""
        return [name for name in self.shapes if name in STATISTICS]

    def describe(self, names: Sequence[str]) -> str:
        """Names, types and shapes of arrays, for messages."""
        arrays = [f"{name} {self.dtypes[name]} {list(self.shapes[name])}".strip() for name in names]
        return ", ".join(arrays) or "nothing"


def split_name(name: str) -> tuple[str, str]:
    """Splits `FILE.npz:ARRAY` into the path, with `~` expanded, and the array's name or ""."""
    path = runtime.expand_home(name)
    file, _, array = path.rpartition(":")
    return (file, array) if not os.path.exists(path) and os.path.isfile(file) else (path, "")


def contents(path: str) -> Contents:
    """Lists the arrays of a file without reading them.

    Raises:
      UserError: it cannot be read, or is not a file of numpy arrays.
    """
    listed = Contents(path, {}, {})
    try:
        with open(path, "rb") as file:
            start = file.read(16)
            file.seek(0)
            if start.startswith(np.lib.format.MAGIC_PREFIX):
                listed.shapes[""], listed.dtypes[""] = _read_header(file)
                return listed
            if not start.startswith(b"PK"):
                raise UserError(_not_numpy(path, start))
            with zipfile.ZipFile(file) as archive:
                members = archive.namelist()
                for member in members:
                    with archive.open(member) as array:
                        if array.read(6) != np.lib.format.MAGIC_PREFIX:
                            continue
                    name = member.removesuffix(".npy")
                    with archive.open(member) as array:
                        listed.shapes[name], listed.dtypes[name] = _read_header(array)
    except UserError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise _damaged(path, error) from error
    if not listed.shapes:
        raise UserError(
            f"data.data_dir: {path} is a zip file whose members ({', '.join(members[:3])}, ...) "
            "are not arrays; if they are images, unpack them into a folder and name the folder"
        )
    return listed


def open_array(path: str, array: str = "") -> Images:
    """Opens the array of images of a file.

    Args:
      path: an `.npy` or `.npz` file, whatever its name.
      array: the name of the array; "" for the only one that can be images.

    Returns:
      The images as uint8; `remarks` says which array was taken and how it was converted.

    Raises:
      UserError: the file cannot be read, has no such array or several, or the array's layout, type
        or values are not those of images.
    """
    listed = contents(path)
    name = array or _only_array(listed)
    if name not in listed.shapes:
        raise UserError(
            f"data.data_dir: {path} has no array {name!r}; it has "
            f"{listed.describe([*listed.shapes])}"
        )
    where, shape = f"{path}:{name}" if name else path, listed.shapes[name]
    layout_ok = len(shape) == 3 or (len(shape) == 4 and shape[-1] in (1, 3, 4))
    if not layout_ok or not _can_be_images(shape) or 0 in shape:
        raise UserError(
            f"data.data_dir: {where} holds {listed.dtypes[name]} of shape {shape}; images must be "
            f"[num, height, width] or [num, height, width, channels]{_remedy(shape)}"
        )
    try:
        pixels = np.load(path, allow_pickle=False)
        if not isinstance(pixels, np.ndarray):
            with pixels as arrays:
                pixels = arrays[name]
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        raise _damaged(path, error) from error
    levels, conversion = to_levels(pixels, where)
    remarks = [f"array {name}{conversion}" if name else conversion.removeprefix(", ")]
    if listed.statistics and not array:
        remarks.append(f"its statistics are not used, {path}:{listed.statistics[0]} takes them")
    remarks = [remark for remark in remarks if remark]
    return from_array(path, levels)._replace(remarks=tuple(remarks))


def npz(data_dir: str) -> Source:
    """Opens a file of one array of images, or `FILE.npz:ARRAY`; see `open_array`.

    Raises:
      UserError: there is no such file, or as `open_array`.
    """
    path, array = split_name(data_dir)
    if not os.path.isfile(path):
        raise UserError(
            f"data.data_dir: no file {data_dir!r}; with data.name=npz it names an .npz or .npy file"
        )
    return open_array(path, array), None


def from_array(source: str, images: np.ndarray) -> Images:
    """Wraps uint8 [num, height, width] or [num, height, width, 1, 3 or 4]."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [Image.fromarray(images[i]) for i in indices]

    return Images(source, decode, np.arange(len(images)))


def to_levels(images: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """Converts images of another type to uint8 where their range is beyond doubt.

    Args:
      images: of any type and shape; floats in [0, 1], [-1, 1] or from 0 to 255, integers from 0 to
        255, or truth values.
      where: what holds them, for messages.

    Returns:
      uint8 of the same shape; and what was converted, for the user, "" for images of uint8.

    Raises:
      UserError: the range is another one, or cannot be told.
    """
    if images.dtype == np.uint8:
        check_levels([images], f"data.data_dir: {where}")
        return images, ""
    if images.dtype.kind not in "biuf":
        raise UserError(f"data.data_dir: {where} holds {images.dtype}, which are no images")
    low, high = float(images.min()), float(images.max())
    is_float = images.dtype.kind == "f"
    if not math.isfinite(low) or not math.isfinite(high):
        raise UserError(f"data.data_dir: {where} holds values that are not finite")
    offset, scale, interval = 0.0, 1.0, "from 0 to 255"
    if images.dtype.kind == "b":
        scale, interval = 255.0, "False black, True white"
    elif is_float and low < high and low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        scale, interval = 255.0, "in [0, 1]"
    elif is_float and low < high and low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE:
        offset, scale, interval = 1.0, 127.5, "in [-1, 1]"
    elif low < 0 or high > 255 or high < _LEAST_LEVEL or images.dtype in (np.uint16, np.int8):
        raise UserError(
            f"data.data_dir: {where} holds {images.dtype} from {low:.6g} to {high:.6g}; images are "
            "uint8, or floats in [0, 1], [-1, 1] or from 0 to 255: scale or clip them and save them"
        )
    levels = np.empty(images.shape, np.uint8)
    for first in range(0, len(images), _CHUNK):
        scaled = (images[first : first + _CHUNK].astype(np.float64) + offset) * scale
        levels[first : first + _CHUNK] = np.clip(np.rint(scaled), 0, 255)
    return levels, f", {images.dtype} {interval}"


def _only_array(listed: Contents) -> str:
    """The name of the only array that can be images, or of the only array."""
    if len(listed.images) == 1:
        return listed.images[0]
    if not listed.images and len(listed.shapes) == 1:
        return next(iter(listed.shapes))
    if listed.images:
        raise UserError(
            f"data.data_dir: {listed.path} holds several arrays of images "
            f"({listed.describe(listed.images)}); name one, {listed.path}:{listed.images[0]}"
        )
    raise UserError(
        f"data.data_dir: {listed.path} holds no array of images "
        f"[num, height, width(, channels)]; it has {listed.describe([*listed.shapes])}"
    )


def _can_be_images(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of images, if not in the right layout; [h, w, 3] is one image."""
    if len(shape) == 3:
        return shape[1] == shape[2] or shape[2] not in (1, 3, 4)
    return len(shape) == 4


def _remedy(shape: tuple[int, ...]) -> str:
    """How an array of another layout becomes images; "" if that is not known."""
    if 0 in shape:
        return ", and at least one"
    if len(shape) == 3:
        return "; a single image becomes a set by images[None]"
    if len(shape) == 4 and shape[1] in (1, 3, 4):
        return ": save images.transpose(0, 2, 3, 1)"
    if len(shape) == 4 and shape[2] in (1, 3):
        return ": save numpy.moveaxis(images, -1, 0)"
    if len(shape) == 2:
        for channels in (1, 3):
            side = math.isqrt(shape[1] // channels)
            if side * side * channels == shape[1]:
                return f": reshape them to {[shape[0], side, side, channels]}"
    return ""


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _not_numpy(path: str, start: bytes) -> str:
    for prefix, what, remedy in _OTHER_FILES:
        if start.startswith(prefix):
            return f"data.data_dir: {path} is {what}, not a file of numpy arrays; {remedy}"
    begins = f"starts with {start[:4].hex(' ')}" if start else "is empty"
    return f"data.data_dir: {path} cannot be read as .npz or .npy: it {begins}"


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"data.data_dir: {path} cannot be read as .npz or .npy: {one_line(error)}")
