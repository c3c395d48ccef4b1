"""Masks of pixels to be hidden, by name or from a picture, and images with such pixels filled in.

A mask is bool [height, width], true where a pixel is hidden.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from thermo_ebm.errors import UserError

_GREY = 128  # of hidden pixels in pictures

HALVES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    # From the row and the column of each pixel, in (0, 1).
    "left": lambda row, column: column < 0.5,
    "right": lambda row, column: column > 0.5,
    "top": lambda row, column: row < 0.5,
    "bottom": lambda row, column: row > 0.5,
    "center": lambda row, column: np.maximum(abs(row - 0.5), abs(column - 0.5)) < 0.25,
}
RANDOM = "random"


def read_mask(description: str, height: int, width: int, seed: int = 0) -> np.ndarray:
    """The mask that a user describes.

    >>> read_mask("left", 1, 4)
    array([[ True,  True, False, False]])

    Args:
      description: `left`, `right`, `top`, `bottom` (a half), `center` (the square of half the
        side), `random:SHARE` (each pixel with this probability), or a picture of the images' size
        that is white where a pixel is hidden and black where it is observed.
      height: of the images.
      width: of the images.
      seed: of `random:SHARE`.

    Raises:
      UserError: it is none of these, or its picture is of another size or not black and white.
    """
    if description in HALVES:
        row, column = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
        return np.broadcast_to(HALVES[description](row[:, None], column[None]), (height, width))
    name, _, share = description.partition(":")
    if name == RANDOM:
        return np.random.default_rng(seed).random((height, width)) < _share(description, share)
    if not Path(description).is_file():
        raise UserError(
            f"mask={description}: must be one of {', '.join(HALVES)}, {RANDOM}:0.5, or a picture "
            "that is white where pixels are hidden; there is no such file"
        )
    return _read_picture(Path(description), height, width)


def _share(description: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UserError(
            f"mask={description}: the share of hidden pixels must be above 0 and below 1, "
            f"such as {RANDOM}:0.5"
        )
    return share


def _read_picture(path: Path, height: int, width: int) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"mask={path}: cannot be read as a picture") from error
    if grey.shape != (height, width):
        raise UserError(
            f"mask={path}: is {grey.shape[1]} x {grey.shape[0]} pixels, must be {width} x {height} "
            "as the images of the run"
        )
    if not np.isin(grey, (0, 255)).all():
        raise UserError(f"mask={path}: must be black and white alone; white hides a pixel")
    return grey == 255


def masked(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Images uint8 [num, height, width, channels] with grey in place of hidden pixels."""
    return np.where(mask[:, :, None], np.uint8(_GREY), images)


def filled(images: np.ndarray, mask: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The observed pixels of images, and the hidden ones of draws.

    Args:
      images: uint8 [num, height, width, channels].
      mask: true where a pixel is hidden.
      draws: uint8 [num, draws, height, width, channels].

    Returns:
      uint8 [num, draws, height, width, channels].
    """
    return np.where(mask[:, :, None], draws, images[:, None])
