"""The interface of every source of images, and the decoding that all sources share."""

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from thermo_ebm.errors import UserError, one_line

_CHUNK = 64  # number of images that one thread reads at a time
_NAMED = 10  # number of unreadable images that a message names


class Unreadable(NamedTuple):
    """Stands for an image that cannot be decoded."""

    where: str  # its file, or its place in a larger file
    reason: str


class Split(NamedTuple):
    """A numbered collection of images that are decoded only when asked for."""

    num: int
    read: Callable[[Sequence[int]], list[Image.Image | Unreadable]]
    name: Callable[[int], str]  # of one image, whatever folder the data set was copied to


class Source(NamedTuple):
    """A data set before any image is decoded."""

    description: str  # for messages: what and where
    train: Split
    validation: Split | None  # None: both sets are drawn from `train`, disjointly


class Images(NamedTuple):
    """Images chosen from a split, numbered in the order in which they were chosen."""

    split: Split
    indices: np.ndarray  # int [num], of the images in the split
    size: int  # height and width in pixels
    channels: int  # 1 or 3


def prepare_image(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """Returns one image as uint8 [size, size, channels].

    The largest square around the centre is cropped and resized (bilinear, antialiased), which
    leaves an image of the right size as it is. Grey images are repeated to three channels; colour
    images become grey by luminance (ITU-R 601). Transparent pixels become white.
    """
    if image.mode.startswith("I"):  # 16-bit grey; PIL would clip it at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        # Not resize(box=...), whose filter uses pixels outside the box.
        image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(size, size, channels)


def read(images: Images, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Decodes some of the chosen images, in parallel threads.

    Args:
      images: the chosen images.
      numbers: which of them, int [count], each in [0, len(images.indices)).

    Returns:
      uint8 [count, size, size, channels], in the order of `numbers`.

    Raises:
      UserError: some of the images cannot be read; the first ten are named.
    """
    return read_sets([(images, numbers)])[0]


def read_sets(sets: Sequence[tuple[Images, Sequence[int] | np.ndarray]]) -> list[np.ndarray]:
    """Decodes some images of several sets; one error names all unreadable images."""
    decoded: list[np.ndarray] = []
    unreadable: list[Unreadable] = []
    for images, numbers in sets:
        arrays, found = _decode(images, numbers)
        decoded.append(arrays)
        unreadable += found.values()
    if unreadable:
        raise UserError(_refusal(sorted(unreadable)))
    return decoded


def unreadable_names(images: Images, numbers: Sequence[int] | np.ndarray) -> list[str]:
    """Decodes some of the chosen images; returns the names of those that cannot be decoded."""
    found: dict[int, Unreadable] = {}
    for start in range(0, len(numbers), 100 * _CHUNK):  # the decoded images are not kept
        found |= _decode(images, numbers[start : start + 100 * _CHUNK])[1]
    return [images.split.name(index) for index in sorted(found)]


def readable(split: Split, skipped: Collection[str]) -> np.ndarray:
    """The indices of a split's images, in order, without those whose names are `skipped`."""
    if not skipped:
        return np.arange(split.num)
    return np.array([i for i in range(split.num) if split.name(i) not in skipped], int)


def _decode(
    images: Images, numbers: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, dict[int, Unreadable]]:
    """Returns images and, by their indices in the split, those that cannot be read (left as 0).

    PIL releases the interpreter while it decodes, so that threads run in parallel.
    """
    size, channels = images.size, images.channels
    indices = images.indices[np.asarray(numbers, int)].tolist()
    decoded = np.zeros((len(indices), size, size, channels), np.uint8)
    unreadable: dict[int, Unreadable] = {}

    def work(start: int) -> None:
        chunk = indices[start : start + _CHUNK]
        for offset, image in enumerate(images.split.read(chunk)):
            prepared = _prepare(image, images, chunk[offset])
            if isinstance(prepared, Unreadable):
                unreadable[chunk[offset]] = prepared
            else:
                decoded[start + offset] = prepared

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        list(pool.map(work, range(0, len(indices), _CHUNK)))
    return decoded, unreadable


def _prepare(
    image: Image.Image | Unreadable, images: Images, index: int
) -> np.ndarray | Unreadable:
    if isinstance(image, Unreadable):
        return image
    try:
        return prepare_image(image, images.size, images.channels)
    except (ValueError, OSError) as error:  # a mode that Pillow does not convert
        return Unreadable(images.split.name(index), one_line(error))


def _refusal(found: Sequence[Unreadable]) -> str:
    """One line that names the unreadable images."""
    if len(found) == 1:
        what = f"the image {found[0].where}: {found[0].reason}"
    else:
        what = f"{len(found)} images: {', '.join(one.where for one in found[:_NAMED])}"
        if len(found) > _NAMED:
            what += f" and {len(found) - _NAMED} more"
        what += f" (the first: {found[0].reason})"
    return (
        f"data.data_dir: cannot read {what}; replace what is damaged, or skip it with "
        "data.skip_unreadable=true"
    )
