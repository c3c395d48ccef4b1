"""Data: one function from a configuration to training and validation images.

Sources (`data.name`): `digits` (embedded), `cifar10`, `svhn_cropped` and `celeb_a` (prepared by
TFDS), `folder` (image files) and `npz` (one array). Images stay uint8 until the device maps them
to [-1, 1] with `to_unit`.
"""

import itertools
import os
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.data import local, prepared
from thermo_ebm.data.source import Source, Split, decode
from thermo_ebm.errors import UserError

Array = TypeVar("Array", np.ndarray, jax.Array)

NAMES = ("digits", *prepared.NAMES, "folder", "npz")
_SHUFFLE_SEED = 0  # of the data, not of the run: every repetition and run sees the same split


class Dataset(NamedTuple):
    """Images that never overlap between the two."""

    train: np.ndarray  # uint8 [num_train, size, size, channels]
    validation: np.ndarray  # uint8 [num_val, size, size, channels]


class Selection(NamedTuple):
    """Which images of a source make up each set."""

    train: np.ndarray  # int [num_train]
    validation: np.ndarray  # int [num_val]
    validation_split: Split


def load(config: ConfigDict, shard: tuple[int, int] = (0, 1)) -> Dataset:
    """Loads the images that `config` (a run's `config.data`) asks for.

    A source with a test split gives its first `num_train` training and first `num_val` test images.
    One with a single split is shuffled, always alike; training images are taken from its front and
    validation images from its back.

    Args:
      config: name, data_dir, image_size, channels, num_train, num_val; see `configs/base.py`.
      shard: (index, count): of each set, load only the index-th of `count` contiguous parts of
        ceil(num / count) images. The last parts are filled with zeros to that length; the other
        parts' images are not decoded.

    Returns:
      Dataset of uint8 arrays [num, image_size, image_size, channels].

    Raises:
      UserError: a field has no valid value, the source is not there or cannot be read, or it has
        fewer images than asked for.
    """
    _check_fields(config)
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {shard}: the index must be in [0, count)")
    source = _open(config)
    selected = select(source, config.num_train, config.num_val)

    def part(split: Split, indices: np.ndarray) -> np.ndarray:
        length = -(-len(indices) // count)
        mine = indices[index * length : (index + 1) * length].tolist()
        images = decode(split, mine, config.image_size, config.channels)
        missing = [(0, length - len(mine)), (0, 0), (0, 0), (0, 0)]
        return np.pad(images, missing) if len(mine) < length else images

    return Dataset(
        part(source.train, selected.train), part(selected.validation_split, selected.validation)
    )


def select(source: Source, num_train: int, num_val: int) -> Selection:
    """Chooses disjoint training and validation images.

    Raises:
      UserError: the source has fewer.
    """
    what = source.description
    if source.validation is not None:
        _check_enough("data.num_train", num_train, source.train.num, f"train images of {what}")
        _check_enough("data.num_val", num_val, source.validation.num, f"test images of {what}")
        return Selection(np.arange(num_train), np.arange(num_val), source.validation)
    if num_train + num_val > source.train.num:
        raise UserError(
            f"data.num_train={num_train} plus data.num_val={num_val}: more than the "
            f"{source.train.num} images of {what}"
        )
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(source.train.num)
    return Selection(order[:num_train], order[::-1][:num_val], source.train)


def some_means(images: np.ndarray, num: int, shard: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Mean levels by which a data set is known again: quarters of images spread over all of it.

    Args:
      images: uint8 [per_shard, size, size, channels], the shard that `load` gave.
      num: images of all shards.
      shard: as `load` was given.

    Returns:
      float32 [min(num, 64), 2, 2, channels], 0 to 255; 0 for other shards' images, so that shards
      add up.
    """
    chosen = np.unique(np.linspace(0, num - 1, min(num, 64)).astype(int))
    index, count = shard
    place = chosen - index * -(-num // count)
    own = (place >= 0) & (place < len(images))
    half = -(-images.shape[1] // 2)
    sides = (slice(half), slice(-half, None))
    means = np.zeros((len(chosen), 2, 2, images.shape[-1]), np.float32)
    for row, column in itertools.product(range(2), repeat=2):
        quarters = images[place[own], sides[row], sides[column]]
        means[own, row, column] = quarters.mean(axis=(1, 2))
    return means


def to_unit(images: Array) -> Array:
    """Maps uint8 images to float32 in [-1, 1]; numpy stays numpy, jax stays jax. Any shape."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def to_uint8(images: Array) -> Array:
    """Maps floats in [-1, 1] (outside it: clipped) to the nearest uint8: undoes `to_unit`."""
    levels = (images.astype(np.float32) + np.float32(1.0)) * np.float32(127.5)
    return levels.round().clip(0, 255).astype(np.uint8)


def _open(config: ConfigDict) -> Source:
    if config.name == "digits":
        return local.digits()
    path = os.path.expanduser(config.data_dir)  # shells leave --config.data.data_dir=~/x as it is
    if config.name == "folder":
        return local.folder(path)
    if config.name == "npz":
        return local.npz(path)
    return prepared.prepared(config.name, path)


def _check_fields(config: ConfigDict) -> None:
    if config.name not in NAMES:
        raise UserError(f"data.name={config.name!r}: choose one of {', '.join(NAMES)}")
    if config.channels not in (1, 3):
        raise UserError(f"data.channels={config.channels}: images have 1 or 3 channels")
    for field in ("image_size", "num_train", "num_val"):
        if config[field] < 1:
            raise UserError(f"data.{field}={config[field]}: must be at least 1")


def _check_enough(field: str, wanted: int, available: int, what: str) -> None:
    if wanted > available:
        raise UserError(f"{field}={wanted}: more than the {available} {what}")
