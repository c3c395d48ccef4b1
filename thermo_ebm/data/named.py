"""Images from a place named on one line, apart from a run's own data: to hold a model against."""

import numpy as np

from thermo_ebm.data import local, prepared
from thermo_ebm.data.source import Source, Split, decode
from thermo_ebm.errors import UserError

SPLITS = ("train", "test")
_ORDER_SEED = 0  # folders are in the order of names, which may be that of classes


def read_named(
    place: str, num: int, image_size: int, channels: int, data_dir: str = ""
) -> np.ndarray:
    """Reads up to `num` images, cropped and resized as training's are, in a fixed random order.

    Args:
      place: a folder of images, an `.npz` file, or a data set and its split, as `cifar10:test`.
      num: images at most; more of them begin with the same ones.
      image_size: height and width of the result in pixels.
      channels: 1 or 3.
      data_dir: where a data set is; "" is TFDS's own default.

    Returns:
      uint8 [min(num, images there), image_size, image_size, channels].

    Raises:
      UserError: it is none of these, or cannot be read.
    """
    try:
        split = _open(place, data_dir)
        order = np.random.default_rng(_ORDER_SEED).permutation(split.num)[:num]
        return decode(split, order.tolist(), image_size, channels)
    except UserError as error:
        reason = str(error).removeprefix("data.data_dir: ")
        raise UserError(f"against={place}: {reason}") from error


def _open(place: str, data_dir: str) -> Split:
    name, colon, split = place.partition(":")
    if name in ("digits", *prepared.NAMES):
        return _split(name, split if colon else "test", data_dir)
    return (local.npz(place) if place.endswith(".npz") else _folder(place)).train


def _folder(place: str) -> Source:
    try:
        return local.folder(place)
    except UserError as error:
        if "no folder" not in str(error):
            raise
        names = ", ".join(prepared.NAMES)
        raise UserError(
            f"no folder and no .npz file; data sets are {names} (with :train or :test) and digits"
        ) from error


def _split(name: str, split: str, data_dir: str) -> Split:
    if name == "digits":
        return local.digits().train  # it has no splits
    if split not in SPLITS:
        raise UserError(f"{split!r} is no split of it; choose {' or '.join(SPLITS)}")
    source = prepared.prepared(name, data_dir)
    return source.train if split == "train" or source.validation is None else source.validation
