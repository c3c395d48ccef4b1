"""A set of images, and the decoding that all sources share."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from thermo_ebm.errors import UserError, one_line

_CHUNK = 64  # number of images that one thread reads at a time
_MOST_NAMED = 10  # number of unreadable images that a message names


class Unreadable(NamedTuple):
    """Stands for an image that cannot be decoded."""

    where: str  # its file, or its place in a larger file
    reason: str


class Images(NamedTuple):
    """Images of a source, which are decoded when they are read."""

    source: str  # for messages: what and where
    decode: Callable[[Sequence[int]], list[Image.Image | Unreadable]]  # by indices in the source
    indices: np.ndarray  # int [num], of these images in the source
    size: int = 0  # height and width in pixels after cropping and resizing
    channels: int = 3  # 1 or 3

    @property
    def num(self) -> int:
        """The number of images."""
        return len(self.indices)

    def take(self, numbers: np.ndarray) -> "Images":
        """The images with these numbers, int [count], each in [0, num)."""
        return self._replace(indices=self.indices[numbers])


# Training images, and the validation images of a source that has its own.
Source = tuple[Images, Images | None]


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


def read(images: Images) -> np.ndarray:
    """Decodes images in parallel threads.

    Returns:
      uint8 [num, size, size, channels].

    Raises:
      UserError: some of the images cannot be read; the first ten are named, and all are counted.
    """
    return read_sets([images])[0]


def read_sets(sets: Sequence[Images]) -> list[np.ndarray]:
    """Decodes several sets; one error names the unreadable images of all of them."""
    arrays, unreadable = [], []
    for images in sets:
        decoded, damaged = _decode(images)
        arrays.append(decoded)
        unreadable += damaged
    if unreadable:
        raise UserError(_refusal(sorted(unreadable)))
    return arrays


def _decode(images: Images) -> tuple[np.ndarray, list[Unreadable]]:
    """Returns the images, and those that cannot be read, which stay 0.

    PIL releases the interpreter while it decodes, so that threads run in parallel.
    """
    decoded = np.zeros((images.num, images.size, images.size, images.channels), np.uint8)
    unreadable: list[Unreadable] = []

    def decode_chunk(start: int) -> None:
        indices = images.indices[start : start + _CHUNK].tolist()
        for offset, image in enumerate(images.decode(indices)):
            try:
                if isinstance(image, Image.Image):
                    pixels = prepare_image(image, images.size, images.channels)
                    decoded[start + offset] = pixels
                else:
                    unreadable.append(image)
            except (ValueError, OSError) as error:  # a mode that Pillow does not convert
                where = f"number {indices[offset]} of {images.source}"
                unreadable.append(Unreadable(where, one_line(error)))

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        list(pool.map(decode_chunk, range(0, images.num, _CHUNK)))
    return decoded, unreadable


def _refusal(unreadable: Sequence[Unreadable]) -> str:
    """One line that names the unreadable images."""
    first = unreadable[0]
    if len(unreadable) == 1:
        what = f"the image {first.where}: {first.reason}"
    else:
        names = ", ".join(image.where for image in unreadable[:_MOST_NAMED])
        more = len(unreadable) - _MOST_NAMED
        rest = f" and {more} more" if more > 0 else ""
        what = f"{len(unreadable)} images: {names}{rest} (the first: {first.reason})"
    return f"data.data_dir: cannot read {what}; replace or remove what is damaged"
