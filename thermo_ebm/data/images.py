"""A set of images, and the decoding that all sources share."""

import functools
import io
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from thermo_ebm.errors import UserError, one_line

_CHUNK = 64  # number of images that one thread reads at a time
_MOST_NAMED = 10  # number of unreadable images that a message names
# Formats that Pillow recognises and does not decode by itself: it starts another program (EPS), has
# no decoder (MPEG, and WMF outside Windows), or leaves the work to somebody's plug-in.
_NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"}
_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION, _TIFF_BITS = 0x0112, 258  # tags
# What turns an image upright, by its EXIF orientation (CIPA DC-008, "Orientation"); 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNKNOWN_ORIENTATION = "thermo_ebm: unknown orientation"  # a key of `Image.info`
# Pillow scales grey levels of 2 and 4 bits to 8 and leaves the transparent level as it is.
_GREY_SCALES = {"L;2": 85, "L;4": 17}


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
    binary: bool = False  # whether levels above 127 become 255, the others 0
    remarks: tuple[str, ...] = ()  # what the source left out or converted, for the user

    @property
    def num(self) -> int:
        """The number of images."""
        return len(self.indices)

    def take(self, numbers: np.ndarray) -> "Images":
        """The images with these numbers, int [count], each in [0, num)."""
        return self._replace(indices=self.indices[numbers])


# Training images, and the validation images of a source that has its own.
Source = tuple[Images, Images | None]


@functools.cache
def suffixes() -> dict[str, str]:
    """Pillow's format by the suffix of a file (".png"), for each format that Pillow decodes."""
    Image.init()
    return {
        suffix: kind
        for suffix, kind in Image.EXTENSION.items()
        if kind in Image.OPEN and kind not in _NOT_DECODED
    }


def open_image(file: str | io.BytesIO, upright: bool = False) -> Image.Image:
    """Decodes one image; of an animation or of several pages, the first.

    Args:
      file: a path or the encoded bytes.
      upright: whether to turn the image as its EXIF data say. EXIF data that cannot be read leave
        the image as it is, and `read` counts such images.

    Raises:
      ValueError: levels of 12 bits, of 32 bits or with a sign.
      Exception: of many kinds, as Pillow raises them for a damaged file.
    """
    try:
        image, raw_mode = _load(file)
    except Exception:
        content = Path(file).read_bytes() if isinstance(file, str) else file.getvalue()
        pixels_alone = _without_metadata(content)
        if len(pixels_alone) == len(content):
            raise
        image, raw_mode = _load(io.BytesIO(pixels_alone))
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise ValueError(
            f"{image.format} with levels of 32 bits, or with a sign, which have no defined range; "
            "save it with 8 or 16 bits"
        )
    if isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_BITS) == (12,):
        raise ValueError("TIFF with 12 bits per pixel; save it with 8 or 16 bits")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and raw_mode in _GREY_SCALES:
        image.info["transparency"] = transparent * _GREY_SCALES[raw_mode]
    elif isinstance(transparent, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in transparent)
    return _turned_upright(image) if upright else image


def _load(file: str | io.BytesIO) -> tuple[Image.Image, Any]:
    """Decodes an image; returns the pixels' form in the file as well, for PNG."""
    with Image.open(file, formats=sorted({*suffixes().values()})) as image:
        raw_mode = image.tile[0][3] if image.format == "PNG" and image.tile else None
        image.load()
    return image, raw_mode


def _without_metadata(content: bytes) -> bytes:
    """A PNG reduced to the chunks that define its pixels; content of other formats unchanged.

    Pillow refuses a PNG for a text that is long or damaged.
    """
    if not content.startswith(_PNG):
        return content
    parts, start = [_PNG], len(_PNG)
    while start + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + length + 12  # length, kind and checksum have 4 bytes each
        if kind[:1].isupper() or kind == b"tRNS":
            parts.append(content[start:end])
        start = end
    return b"".join(parts)


def _turned_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
        turn = _UPRIGHT.get(int(orientation)) if orientation else None
    except Exception:  # Pillow raises many kinds; the pixels are readable all the same
        image.info[_UNKNOWN_ORIENTATION] = True
        return image
    return image if turn is None else image.transpose(turn)


def prepare_image(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """Returns one image as uint8 [size, size, channels].

    The largest square around the centre is cropped and resized (bilinear, antialiased), which
    leaves an image of the right size as it is. Grey images are repeated to three channels; colour
    images become grey by luminance (ITU-R 601). Transparent pixels become white.
    """
    if image.mode.startswith("I"):
        image = _grey_of_8_bits(image)
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


def _grey_of_8_bits(image: Image.Image) -> Image.Image:
    """Grey levels of 16 bits as 8 bits; Pillow would clip them at 255."""
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        opaque = np.where(levels == transparent, 0, 255).astype(np.uint8)
        return Image.merge("LA", (grey, Image.fromarray(opaque)))
    return grey


def read(images: Images) -> np.ndarray:
    """Decodes images in parallel threads.

    Returns:
      uint8 [num, size, size, channels].

    Raises:
      UserError: some of the images cannot be read; the first ten are named, and all are counted.
    """
    return _read([images])[0]


def read_sets(sets: Sequence[Images]) -> list[np.ndarray]:
    """Decodes several sets; one error names the unreadable images of all of them.

    Raises:
      UserError: as `read`, or all levels of all images are 0 or 1.
    """
    arrays = _read(sets)
    check_levels(arrays, f"data.data_dir: {sets[0].source}")
    return arrays


def check_levels(arrays: Sequence[np.ndarray], where: str) -> None:
    """Refuses uint8 images whose levels are all 0 or 1: floats that were cast, or masks.

    Raises:
      UserError: names `where`.
    """
    levels = [int(array.max()) for array in arrays if array.size]
    if levels and max(levels) <= 1:
        raise UserError(
            f"{where}: all levels are 0 or 1, of 255: floats in [0, 1] that were cast to "
            "integers, or masks; save images.round() of floats multiplied by 255, or masks times "
            "255, as uint8"
        )


def _read(sets: Sequence[Images]) -> list[np.ndarray]:
    arrays, unreadable = [], []
    for images in sets:
        decoded, damaged = _decode(images)
        if images.binary:
            decoded = np.where(decoded > 127, np.uint8(255), np.uint8(0))
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
    not_turned: list[int] = []

    def decode_chunk(start: int) -> None:
        indices = images.indices[start : start + _CHUNK].tolist()
        for offset, image in enumerate(images.decode(indices)):
            try:
                if isinstance(image, Image.Image):
                    pixels = prepare_image(image, images.size, images.channels)
                    decoded[start + offset] = pixels
                    if _UNKNOWN_ORIENTATION in image.info:
                        not_turned.append(indices[offset])
                else:
                    unreadable.append(image)
            except (ValueError, OSError) as error:  # a mode that Pillow does not convert
                where = f"number {indices[offset]} of {images.source}"
                unreadable.append(Unreadable(where, one_line(error)))

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        list(pool.map(decode_chunk, range(0, images.num, _CHUNK)))
    if not_turned:
        logging.log_first_n(
            logging.WARNING,
            "%s: %d images have EXIF data that cannot be read; they are used as they are stored",
            10,  # messages at most, in epochs of streamed images
            images.source,
            len(not_turned),
        )
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
