"""Data: one function from a configuration to training and validation images.

Sources (`data.name`): `digits` (in scikit-learn), `idx` (MNIST's format), `folder` (image files in
a folder, in a zip or tar file, or in parquet files),
`npz` (an array), and any image data set prepared by TFDS, under its TFDS name. Images stay uint8
until the device maps them to [-1, 1] with `to_unit`.
"""

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import runtime
from thermo_ebm.data import archive, arrays, folder, local, parquet, prepared
from thermo_ebm.data.images import Images, Source, read_sets
from thermo_ebm.errors import UserError, counted
from thermo_ebm.fields import FIELDS

Array = TypeVar("Array", np.ndarray, jax.Array)


def _open_own(path: str) -> Source:
    """Image files of the user's own."""
    if parquet.is_parquet(path):
        return parquet.parquet(path)
    return archive.archive(path) if os.path.isfile(path) else folder.folder(path)


# Values of `data.name` other than names of TFDS data sets, and what opens `data.data_dir`.
_LOCAL: dict[str, Callable[[str], Source]] = {
    "digits": lambda path: local.digits(),
    "idx": local.idx,
    "folder": _open_own,
    "npz": arrays.npz,
}
# The seed belongs to the data, not to the run: all repetitions and runs have the same split.
_SHUFFLE_SEED = 0
_ENOUGH_FOR_METRICS = 12  # for ten different numbers of images, the default of an evaluation


class Dataset(NamedTuple):
    """Training and validation images, which never overlap."""

    train: np.ndarray  # uint8 [num_train, size, size, channels]
    validation: np.ndarray  # uint8 [num_val, size, size, channels]


def load(config: ConfigDict) -> Dataset:
    """Loads the images that `config` (a run's `config.data`) asks for.

    A source with a test split gives its first `num_train` training and first `num_val` test images.
    A source with a single split is shuffled, always in the same order; training images are taken
    from its front and validation images from its back.

    Args:
      config: name, data_dir, image_size, channels, num_train, num_val; see docs/configuration.md
        and `count`.

    Raises:
      UserError: a field has an invalid value, or the source does not exist, cannot be read, or has
        fewer images than requested.
    """
    return Dataset(*read_sets(open_images(config)))


def open_images(config: ConfigDict) -> tuple[Images, Images]:
    """The training and the validation images that `load` returns, none of them decoded yet.

    Raises:
      UserError: as for `load`, except for images that are found to be unreadable later.
    """
    for name in ("image_size", "channels", "num_train", "num_val"):
        if must := FIELDS[f"data.{name}"].check(config[name]):
            raise UserError(f"data.{name}={config[name]}: must be {must}")
    source = open_source(config)
    train, validation = select(source, *count(source, config.num_train, config.num_val))
    form = {
        "size": config.image_size,
        "channels": config.channels,
        "binary": config.get("binarize", FIELDS["data.binarize"].default),
    }
    return train._replace(**form), validation._replace(**form)


def check_output(config: ConfigDict, output: str | os.PathLike[str], field: str) -> None:
    """Refuses an output inside a folder of images, which would become part of the data set.

    Args:
      config: a run's `config.data`.
      output: the folder to be written; it need not exist.
      field: what names the output, for the message.

    Raises:
      UserError: `output` is the folder of images or lies below it.
    """
    images = os.path.realpath(runtime.expand_home(config.data_dir))
    inside = os.path.commonpath([images, os.path.realpath(output)]) == images
    if config.name == "folder" and config.data_dir and inside:
        raise UserError(
            f"{field}={output}: lies inside data.data_dir={config.data_dir}, all of whose folders "
            "are searched for images; choose a folder outside, or move it there"
        )


def count(source: Source, num_train: int, num_val: float) -> tuple[int, int]:
    """The numbers of training and validation images that two fields of `config.data` mean.

    Args:
      source: from `open_source`.
      num_train: `data.num_train`; 0 is all that are not held out.
      num_val: `data.num_val`; a float is a fraction of the test split, or of all images, but at
        least as many as the metrics of an evaluation need, or half of all.

    Raises:
      UserError: none is left to train on.
    """
    train, held_out = source
    total = train.num if held_out is None else held_out.num
    number = _part(total, num_val) if isinstance(num_val, float) else num_val
    rest = train.num - (number if held_out is None else 0)
    if num_train == 0 and rest < 1:
        raise UserError(
            f"data.num_val={num_val}: holds out {counted(number, 'image')} of the {train.num} in "
            f"{train.source} and leaves none to train on; hold out fewer, or name more images"
        )
    return num_train or rest, number


def _part(total: int, part: float) -> int:
    """A fraction of the images, or enough for metrics, or half of them."""
    return max(round(part * total), min(_ENOUGH_FOR_METRICS, total // 2), 1)


def select(source: Source, num_train: int, num_val: int) -> tuple[Images, Images]:
    """Selects disjoint training and validation images of a source.

    Raises:
      UserError: the source has fewer.
    """
    train, held_out = source
    if held_out is not None:
        _check_enough("data.num_train", num_train, train, "train")
        _check_enough("data.num_val", num_val, held_out, "test")
        return train.take(np.arange(num_train)), held_out.take(np.arange(num_val))
    if num_train + num_val > train.num:
        raise UserError(
            f"data.num_train={num_train} plus data.num_val={num_val}: more than the "
            f"{train.num} images of {train.source}"
        )
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(train.num)
    return train.take(order[:num_train]), train.take(order[::-1][:num_val])


def _check_enough(field: str, requested: int, images: Images, split: str) -> None:
    if requested > images.num:
        raise UserError(
            f"{field}={requested}: more than the {images.num} {split} images of {images.source}"
        )


def open_source(config: ConfigDict) -> Source:
    """All images of the source that `config` (a run's `config.data`) names, none of them decoded.

    Raises:
      UserError: there is no such source, or it cannot be read.
    """
    path = runtime.expand_home(config.data_dir)  # shells leave --config.data.data_dir=~/x as it is
    if config.name in _LOCAL:
        return _LOCAL[config.name](path)
    if config.name not in prepared.NAMES and not prepared.is_there(config.name, path):
        names = (*_LOCAL, *prepared.NAMES)
        raise UserError(
            f"data.name={config.name!r}: choose one of {', '.join(names)}, or another TFDS data "
            f"set that is prepared in {prepared.root_folder(path)}; to prepare one, use `tfds "
            "build NAME --file_format=array_record --data_dir=DIR` on a machine with TensorFlow "
            "and set data.data_dir=DIR"
        )
    return prepared.prepared(config.name, path)


def to_unit(images: Array) -> Array:
    """Maps uint8 images to float32 in [-1, 1]; numpy stays numpy, jax stays jax. Any shape."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def to_uint8(images: Array) -> Array:
    """Maps floats in [-1, 1] (outside it: clipped) to the nearest uint8: undoes `to_unit`."""
    levels = (images.astype(np.float32) + np.float32(1.0)) * np.float32(127.5)
    return levels.round().clip(0, 255).astype(np.uint8)
