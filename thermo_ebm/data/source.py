"""What every source of images offers, and the decoding that all of them share."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

_CHUNK = 64  # images that one thread reads at a time


class Split(NamedTuple):
    """A numbered collection of images that are decoded only when asked for."""

    num: int
    read: Callable[[Sequence[int]], list[Image.Image]]


class Source(NamedTuple):
    """A data set before anything of it is decoded."""

    description: str  # for messages: what and where
    train: Split
    validation: Split | None  # None: both sets are drawn from `train`, disjointly


def prepare_image(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """Returns one image as uint8 [size, size, channels].

    The largest square around the centre is cropped and resized (bilinear, antialiased), which
    leaves an image of the right size as it is. Grey images are repeated to three channels; colour
    ones become grey by luminance (ITU-R 601). What is transparent shows white.
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
        # Not resize(box=...), whose filter reaches for pixels outside the box.
        image = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.uint8).reshape(size, size, channels)


def decode(split: Split, indices: Sequence[int], size: int, channels: int) -> np.ndarray:
    """Reads and prepares images in parallel threads (PIL releases the interpreter while decoding).

    Args:
      split: where the images are.
      indices: which ones, each in [0, split.num).
      size: height and width of the result in pixels.
      channels: 1 or 3.

    Returns:
      uint8 [len(indices), size, size, channels], in the order of `indices`.
    """
    images = np.empty((len(indices), size, size, channels), np.uint8)

    def work(start: int) -> None:
        chunk = indices[start : start + _CHUNK]
        for offset, image in enumerate(split.read(chunk)):
            images[start + offset] = prepare_image(image, size, channels)

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        list(pool.map(work, range(0, len(indices), _CHUNK)))
    return images
