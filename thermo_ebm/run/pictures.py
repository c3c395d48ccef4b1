"""Pictures of a run: grids of images with titles, such as samples beside real images."""

import io
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thermo_ebm import files

_CELL = 48  # images smaller than this, in pixels, are magnified by an integer factor to reach it
_MAX_SCALE = 8
_WHITE = 255


def grid(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Lays images out row by row on white.

    Args:
      images: uint8 [num, height, width, channels], num at least 1.
      columns: images per row; the last row may be shorter.
      gap: white pixels between neighbours, without a border.

    Returns:
      uint8 [rows * (height + gap) - gap, columns * (width + gap) - gap, channels].

    Raises:
      ValueError: images of another shape or dtype, none at all, or no columns.
    """
    _check_images(images)
    if columns < 1:
        raise ValueError(f"columns is {columns}, must be at least 1")
    num, height, width, channels = images.shape
    rows = math.ceil(num / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, channels)
    canvas = np.full(shape, _WHITE, np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def near_square(num: int) -> int:
    """The number of images per row that makes a grid of `num` images about square.

    >>> [near_square(num) for num in (1, 2, 9, 10, 64, 256)]
    [1, 2, 3, 4, 8, 16]
    """
    return max(math.ceil(math.sqrt(num)), 1)


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """Puts a line of text above an image, and a white frame around both.

    Args:
      image: uint8 [height, width, 1 or 3].
      title: the line; the image is widened where the line is longer.

    Returns:
      uint8 [height, width, channels], to be saved or shown.
    """
    return _framed(_titled(image, title))


def magnify(images: np.ndarray) -> np.ndarray:
    """Magnifies small images by repeating their pixels.

    Args:
      images: uint8 [num, height, width, channels].

    Returns:
      The images, magnified by the smallest integer factor that gives a height of 48 pixels, at
      most 8.
    """
    _check_images(images)
    scale = min(_MAX_SCALE, math.ceil(_CELL / images.shape[1]))
    return images.repeat(scale, axis=1).repeat(scale, axis=2)


def side_by_side(
    samples: np.ndarray, real: np.ndarray, columns: int, title: str = "samples"
) -> np.ndarray:
    """Draws two titled grids with a wide gap between them.

    Args:
      samples: uint8 [num, height, width, channels].
      real: the same, of the same height, width and channels.
      columns: images per row in each grid.
      title: title above the samples, such as "samples, epoch 10"; "real images" stands above the
        others.

    Returns:
      uint8 [height, width, channels], to be saved or shown.
    """
    halves = [
        _titled(grid(magnify(images), columns, gap=2), text)
        for images, text in ((samples, title), (real, "real images"))
    ]
    height = max(len(half) for half in halves)
    halves = [_widen(half, height, half.shape[1]) for half in halves]
    between = np.full((height, 16, halves[0].shape[2]), _WHITE, np.uint8)
    return _framed(np.concatenate([halves[0], between, halves[1]], axis=1))


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes uint8 [height, width] or [height, width, 1 or 3] atomically; makes its folder."""
    encoded = io.BytesIO()
    flat = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    Image.fromarray(np.ascontiguousarray(flat)).save(encoded, "PNG")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, encoded.getvalue())


def _titled(image: np.ndarray, text: str) -> np.ndarray:
    """Puts a line of text above an image, on white, wide enough for both."""
    font = ImageFont.load_default(12)
    _, _, right, bottom = font.getbbox(text)
    width = max(image.shape[1], math.ceil(right))
    label = Image.new("L", (width, math.ceil(bottom) + 3), _WHITE)
    ImageDraw.Draw(label).text((0, 0), text, fill=0, font=font)
    above = np.repeat(np.asarray(label)[..., None], image.shape[2], axis=2)
    return np.concatenate([above, _widen(image, len(image), width)])


def _widen(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pads with white below and on the right."""
    missing = [(0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)]
    return np.pad(image, missing, constant_values=_WHITE)


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, [(8, 8), (8, 8), (0, 0)], constant_values=_WHITE)


def _check_images(images: np.ndarray) -> None:
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise ValueError(f"uint8 [num, height, width, 1 or 3], not {images.dtype} {images.shape}")
    if 0 in images.shape:
        raise ValueError(f"no images: {images.shape}")
