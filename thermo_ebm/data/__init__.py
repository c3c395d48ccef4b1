"""Data: one function from a configuration to training and validation images.

Sources (`data.name`): `digits` (in scikit-learn), `idx` (MNIST's format), `folder` (image files),
`npz` (one array), and any image data set prepared by TFDS, under its TFDS name. Images stay uint8
until the device maps them to [-1, 1] with `to_unit`.
"""

import itertools
import os
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm.data import local, prepared
from thermo_ebm.data.idx import idx
from thermo_ebm.data.source import (
    Images,
    Source,
    Split,
    read_sets,
    readable,
    unreadable_names,
)
from thermo_ebm.errors import UserError

Array = TypeVar("Array", np.ndarray, jax.Array)

# Values of `data.name` other than names of TFDS data sets, and what opens `data.data_dir`.
_LOCAL: dict[str, Callable[[str], Source]] = {
    "digits": lambda path: local.digits(),
    "idx": idx,
    "folder": local.folder,
    "npz": local.npz,
}
_SHUFFLE_SEED = (
    0  # belongs to the data, not to the run: all repetitions and runs have the same split
)
_NUM_MEANS = 64  # number of images that identify a data set


class Dataset(NamedTuple):
    """Training and validation images, which never overlap."""

    train: np.ndarray  # uint8 [num_train, size, size, channels]
    validation: np.ndarray  # uint8 [num_val, size, size, channels]


class Selection(NamedTuple):
    """Which images of a source make up each set."""

    train: np.ndarray  # int [num_train]
    validation: np.ndarray  # int [num_val]
    validation_split: Split


class Opened(NamedTuple):
    """The images of both sets, chosen and not yet decoded."""

    train: Images
    validation: Images


def load(
    config: ConfigDict, shard: tuple[int, int] = (0, 1), skipped: Collection[str] | None = None
) -> Dataset:
    """Loads the images that `config` (a run's `config.data`) asks for.

    A source with a test split gives its first `num_train` training and first `num_val` test images.
    A source with a single split is shuffled, always in the same order; training images are taken
    from its front and validation images from its back.

    Args:
      config: name, data_dir, image_size, channels, num_train, num_val; see `configs/base.py`.
      shard: (index, count): of each set, load only the index-th of `count` contiguous parts of
        ceil(num / count) images. The last parts are filled with zeros to that length; the other
        parts' images are not decoded.
      skipped: as for `open_images`.

    Returns:
      Dataset of uint8 arrays [num, image_size, image_size, channels].

    Raises:
      UserError: a field has an invalid value, or the source does not exist, cannot be read, or has
        fewer images than requested.
    """
    opened = open_images(config, skipped)
    return Dataset(*read_shards(opened, shard))


def open_images(config: ConfigDict, skipped: Collection[str] | None = None) -> Opened:
    """Chooses the images that `config` asks for, as `load` does, and decodes none of them.

    Args:
      config: as for `load`.
      skipped: names of images to skip (`find_unreadable`), in whose place the next images are
        chosen. With None, unreadable images are searched for if `config.skip_unreadable` is set.

    Raises:
      UserError: as for `load`, except for images that are found to be unreadable later.
    """
    _check_fields(config)
    if skipped is None:
        # Configurations that were recorded before this field existed do not have it.
        skipped = find_unreadable(config) if config.get("skip_unreadable", False) else ()
    return _choose(_open(config), config, skipped)


def find_unreadable(config: ConfigDict) -> tuple[str, ...]:
    """Decodes every image that is chosen; returns the names of those that cannot be decoded.

    An unreadable image is replaced by the next one until there are enough readable images. The
    choice depends only on the data set, so that every process makes the same choice.

    Raises:
      UserError: as `open_images`; in particular, too few images are readable.
    """
    _check_fields(config)
    source = _open(config)
    skipped: set[str] = set()
    checked = [np.array([], int), np.array([], int)]
    while True:
        chosen = _choose(source, config, skipped)
        found: set[str] = set()
        for i, images in enumerate(chosen):
            new = np.flatnonzero(~np.isin(images.indices, checked[i]))
            found.update(unreadable_names(images, new))
            checked[i] = images.indices
        if not found:
            return tuple(sorted(skipped))
        skipped |= found


def read_shards(sets: Sequence[Images], shard: tuple[int, int]) -> list[np.ndarray]:
    """Decodes the index-th of `count` contiguous parts of each set, zero-filled; see `load`."""
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard {shard}: the index must be in [0, count)")
    lengths = [-(-len(images.indices) // count) for images in sets]
    mine = read_sets(
        [
            (images, np.arange(len(images.indices))[index * length : (index + 1) * length])
            for images, length in zip(sets, lengths, strict=True)
        ]
    )
    return [_fill_up(images, length) for images, length in zip(mine, lengths, strict=True)]


def _fill_up(images: np.ndarray, length: int) -> np.ndarray:
    missing = [(0, length - len(images)), (0, 0), (0, 0), (0, 0)]
    return np.pad(images, missing) if len(images) < length else images


def select(
    source: Source, num_train: int, num_val: int, skipped: Collection[str] = ()
) -> Selection:
    """Chooses disjoint training and validation images, none of them among the `skipped` names.

    Raises:
      UserError: the source has fewer.
    """
    what = source.description + (f" without {len(skipped)} unreadable ones" if skipped else "")
    train = readable(source.train, skipped)
    if source.validation is not None:
        held_out = readable(source.validation, skipped)
        _check_enough("data.num_train", num_train, len(train), f"train images of {what}")
        _check_enough("data.num_val", num_val, len(held_out), f"test images of {what}")
        return Selection(train[:num_train], held_out[:num_val], source.validation)
    if num_train + num_val > len(train):
        raise UserError(
            f"data.num_train={num_train} plus data.num_val={num_val}: more than the "
            f"{len(train)} images of {what}"
        )
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(source.train.num)
    order = order[np.isin(order, train)] if skipped else order
    return Selection(order[:num_train], order[::-1][:num_val], source.train)


def some_means(images: np.ndarray, num: int, shard: tuple[int, int] = (0, 1)) -> np.ndarray:
    """Mean levels that identify a data set: those of the quarters of a sample of its images.

    Args:
      images: uint8 [per_shard, size, size, channels], the shard that `load` gave.
      num: images of all shards.
      shard: as `load` was given.

    Returns:
      float32 [min(num, 64), 2, 2, channels], 0 to 255; 0 for other shards' images, so that shards
      add up.
    """
    chosen = some_numbers(num)
    index, count = shard
    place = chosen - index * -(-num // count)
    own = (place >= 0) & (place < len(images))
    means = np.zeros((len(chosen), 2, 2, images.shape[-1]), np.float32)
    means[own] = quarter_means(images[place[own]])
    return means


def some_numbers(num: int) -> np.ndarray:
    """The numbers of the images that `some_means` uses, out of `num`: int [min(num, 64)]."""
    return np.unique(np.linspace(0, num - 1, min(num, _NUM_MEANS)).astype(int))


def quarter_means(images: np.ndarray) -> np.ndarray:
    """Mean levels of the quarters of uint8 [num, size, size, channels]: [num, 2, 2, channels]."""
    half = -(-images.shape[1] // 2)
    sides = (slice(half), slice(-half, None))
    means = np.zeros((len(images), 2, 2, images.shape[-1]), np.float32)
    for row, column in itertools.product(range(2), repeat=2):
        means[:, row, column] = images[:, sides[row], sides[column]].mean(axis=(1, 2))
    return means


def to_unit(images: Array) -> Array:
    """Maps uint8 images to float32 in [-1, 1]; numpy stays numpy, jax stays jax. Any shape."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def to_uint8(images: Array) -> Array:
    """Maps floats in [-1, 1] (outside it: clipped) to the nearest uint8: undoes `to_unit`."""
    levels = (images.astype(np.float32) + np.float32(1.0)) * np.float32(127.5)
    return levels.round().clip(0, 255).astype(np.uint8)


def _choose(source: Source, config: ConfigDict, skipped: Collection[str]) -> Opened:
    selected = select(source, config.num_train, config.num_val, skipped)
    size, channels = config.image_size, config.channels
    return Opened(
        Images(source.train, selected.train, size, channels),
        Images(selected.validation_split, selected.validation, size, channels),
    )


def _open(config: ConfigDict) -> Source:
    path = os.path.expanduser(config.data_dir)  # shells leave --config.data.data_dir=~/x as it is
    if config.name in _LOCAL:
        return _LOCAL[config.name](path)
    if config.name not in prepared.NAMES and not prepared.is_there(config.name, path):
        known = (*_LOCAL, *prepared.NAMES)
        raise UserError(
            f"data.name={config.name!r}: choose one of {', '.join(known)}, or another TFDS data "
            f"set that is prepared in {prepared.root_folder(path)}; to prepare one, use `tfds "
            "build NAME --file_format=array_record --data_dir=DIR` on a machine with TensorFlow "
            "and set data.data_dir=DIR"
        )
    return prepared.prepared(config.name, path)


def _check_fields(config: ConfigDict) -> None:
    if config.channels not in (1, 3):
        raise UserError(f"data.channels={config.channels}: must be 1 or 3")
    for field in ("image_size", "num_train", "num_val"):
        if config[field] < 1:
            raise UserError(f"data.{field}={config[field]}: must be at least 1")


def _check_enough(field: str, wanted: int, available: int, what: str) -> None:
    if wanted > available:
        raise UserError(f"{field}={wanted}: more than the {available} {what}")
