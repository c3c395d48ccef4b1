"""Sets of images by name: a folder, a file of images, a data set, or statistics.

- a folder: every image under it, subfolders included; a zip or tar file of images: all of them;
- a parquet file with a column of encoded images, or a folder of such files: all of them;
  `FILE.parquet:COLUMN` one column of several;
- `FILE.npz` or `FILE.npy` of images: its only array of images, `FILE.npz:ARRAY` one of several;
- `NAME:SPLIT`: a data set of `data.NAMES` and `train` or `validation` (`test` means the same);
- `FILE.npz` of statistics: `mu` [num_features] and `sigma` [num_features, num_features], as
  pytorch-fid writes them, with a covariance that divides by N - 1; `FILE.npz:mu` if the file holds
  images as well.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from thermo_ebm.data import archive, arrays, folder, local, parquet, prepared, select
from thermo_ebm.data.images import Images, Unreadable, read_sets
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import statistics
from thermo_ebm.evaluation.statistics import Statistics

DATA_SETS = ("digits", *prepared.NAMES)
_SPLITS = ("train", "validation", "test")  # the last two are the same
_DIGITS_HELD_OUT = 297  # as configs/digits.py has it


class ImageSet(NamedTuple):
    """Images that are decoded when they are needed."""

    name: str  # as the user gave it
    images: Images  # of size 0 if they have their own size, see `open_set`

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was left out or converted, and which array was taken, for the user."""
        return self.images.remarks


def open_set(name: str, data_dir: str = "", image_size: int = 0) -> ImageSet | Statistics:
    """Opens a set; the docstring of this module describes the names.

    Args:
      name: the name of the set.
      data_dir: where prepared data sets are; "" is the folder of TFDS.
      image_size: height and width to which each image is cropped and resized, as training does; 0
        keeps the size of the images, which must all be square and of equal size.

    Raises:
      UserError: there is no such set, or it cannot be read.
    """
    file, array = arrays.split_name(name)
    path = Path(file)
    with _errors_naming(name):
        if parquet.is_parquet(name):
            images, _ = parquet.parquet(name)
        elif path.is_dir():
            images, _ = folder.folder(file)
        elif not array and archive.is_archive(file):
            images, _ = archive.archive(file)
        elif path.is_file():
            listed = arrays.contents(file)
            if array in arrays.STATISTICS or not (array or listed.images or not listed.statistics):
                return statistics.read(name, path)
            images = arrays.open_array(file, array)
        else:
            images = _data_set(name, data_dir)
    return ImageSet(name, images._replace(size=image_size))


@contextlib.contextmanager
def _errors_naming(name: str) -> Iterator[None]:
    """Names the set in an error of a data source, in place of a configuration's fields."""
    try:
        yield
    except UserError as error:
        message = str(error).removeprefix("data.data_dir: ")
        message = message.replace("data.data_dir", "data_dir").removeprefix("data.name: ")
        raise UserError(message if name in message else f"{name}: {message}") from error


def _data_set(name: str, data_dir: str) -> Images:
    kind, _, split = name.partition(":")
    if kind not in DATA_SETS or split not in _SPLITS:
        raise UserError(
            f"{name}: no such folder or file, and no data set with its split, such as "
            f"cifar10:validation (data sets: {', '.join(DATA_SETS)}; splits: {', '.join(_SPLITS)})"
        )
    if kind == "digits":
        source = local.digits()
        train, validation = select(source, source[0].num - _DIGITS_HELD_OUT, _DIGITS_HELD_OUT)
    else:
        train, held_out = prepared.prepared(kind, data_dir)
        assert held_out is not None  # of the data sets in `prepared.NAMES`
        validation = held_out
    return train if split == "train" else validation


def load_images(name: str, image_size: int = 0, data_dir: str = "") -> np.ndarray:
    """Reads a set of images by name: a folder, a file of arrays, or a data set with its split.

    Args:
      name: as for `open_set`.
      image_size: height and width to which each image is cropped and resized, as training does; 0
        keeps the size of the images, which must all be square and of equal size.
      data_dir: where prepared data sets are; "" is the folder of TFDS.

    Returns:
      uint8 [num, size, size, 3]; grey images are repeated.

    Raises:
      UserError: there is no such set, it cannot be read, or it holds statistics.
    """
    image_set = open_set(name, data_dir, image_size)
    if isinstance(image_set, Statistics):
        raise UserError(f"{name}: holds statistics, not images")
    pixels = read_images(image_set)
    return np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels


def limited(image_set: ImageSet, max_images: int, rng: np.random.Generator) -> ImageSet:
    """Returns the set, or `max_images` of its images drawn at random, in their order; 0 is all."""
    images = image_set.images
    if max_images == 0 or images.num <= max_images:
        return image_set
    numbers = np.sort(rng.permutation(images.num)[:max_images])
    return image_set._replace(images=images.take(numbers))


def read_images(image_set: ImageSet) -> np.ndarray:
    """Decodes a set as training does: grey images repeated, transparent ones on white.

    Returns:
      uint8 [num, size, size, channels].

    Raises:
      UserError: an image cannot be read, or sizes differ.
    """
    name, images = image_set
    with _errors_naming(name):
        if images.size:
            return read_sets([images])[0]
        first = images.decode(images.indices[:1].tolist())[0]
        # `read_sets` reports images that cannot be read, whatever their size.
        size = first.width if isinstance(first, Image.Image) else 1

        def decode_of_size(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
            return [_check_size(name, image, size) for image in images.decode(indices)]

        return read_sets([images._replace(decode=decode_of_size, size=size)])[0]


def _check_size(name: str, image: Image.Image | Unreadable, size: int) -> Image.Image | Unreadable:
    if isinstance(image, Image.Image) and image.size != (size, size):
        raise UserError(
            f"{name}: images of {size} x {size} and of {image.height} x {image.width} pixels; "
            "image_size=N crops each to its central square and resizes it, as training does"
        )
    return image
