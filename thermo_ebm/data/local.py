"""Sources that are local files: scikit-learn's digits, an `.npz` array, a folder of images."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from thermo_ebm.data.source import Source, Split, Unreadable
from thermo_ebm.errors import UserError, one_line

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def array_split(images: np.ndarray) -> Split:
    """Wraps uint8 [num, height, width] or [num, height, width, 1 or 3]."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]

    def read(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [Image.fromarray(images[i]) for i in indices]

    return Split(len(images), read, "images[{}]".format)


def digits() -> Source:
    """Returns scikit-learn's 1,797 handwritten 8 x 8 digits, grey levels 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits  # takes a second to import; only this source needs it

    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    return Source("scikit-learn's digits", array_split(images), None)


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
    return Source(path, array_split(images), None)


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

    def read(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [_open(os.path.join(path, names[i])) for i in indices]

    return Source(path, Split(len(names), read, names.__getitem__), None)


def _image_names(path: str) -> list[str]:
    names, seen = [], set()
    for parent, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # circular links, or two links to one folder
            folders[:] = []
            continue
        seen.add(real)
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
