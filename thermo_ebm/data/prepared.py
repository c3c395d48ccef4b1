"""TFDS data sets that were prepared as ArrayRecord files, read without TensorFlow or a network.

The version's folder is found here and opened with `tfds.builder_from_directory`, which needs
neither the data set's own code nor a download; `tfds.builder` would try both, for minutes.
"""

import importlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from thermo_ebm import runtime
from thermo_ebm.data.images import Images, Source, Unreadable, open_image
from thermo_ebm.errors import UserError, one_line

# Data sets with their own configuration in configs/; all others are read in the same way.
NAMES = ("cifar10", "svhn_cropped", "celeb_a", "fashion_mnist")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_VALID_NAME = re.compile(r"\w+(/[\w.+-]+)?")
_HELD_OUT = ("test", "validation")  # the first of these splits that the data set has


def prepared(name: str, data_dir: str) -> Source:
    """Opens the TFDS data set `name`, any that has a feature "image" and a split "train".

    Args:
      name: TFDS's name of the data set, such as mnist, or with its configuration, such as
        emnist/balanced.
      data_dir: TFDS's folder, the data set's or the version's inside it; "" is TFDS's default.

    Returns:
      The split "train", and the split "test", or "validation" if there is no "test", or None.

    Raises:
      UserError: not prepared there, in another format, without images, or damaged.
    """
    version, left_out = _version_folder(name, root_folder(data_dir))
    builder = _builder(version)
    splits = list(builder.info.splits)
    held_out = next((split for split in _HELD_OUT if split in splits), None)
    if "train" not in splits:
        raise UserError(
            f"data.name={name}: {version} has no split 'train' (its splits: "
            f"{', '.join(splits) or 'none'})"
        )
    remark = f"version {version.name}"
    if left_out:
        remark += f"; left out: {', '.join(folder.name for folder in left_out)}"
    train, validation = (
        _open_split(name, version, builder, split)._replace(remarks=(remark,)) if split else None
        for split in ("train", held_out)
    )
    assert train is not None
    return train, validation


def is_there(name: str, data_dir: str) -> bool:
    """Whether a version of the data set is prepared there, in any format."""
    return bool(_versions(name, root_folder(data_dir)))


def root_folder(data_dir: str) -> Path:
    """The folder that `data_dir` names; TFDS's own default where it is ""."""
    folder = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(runtime.expand_home(folder))


def _version_folder(name: str, root: Path) -> tuple[Path, list[Path]]:
    """Returns the newest version under `root` that has ArrayRecord files, and the other folders.

    The whole name of a version's folder is its number, unless `root` is the folder.
    """
    versions = _versions(name, root)
    readable = [
        folder
        for folder in versions
        if (_VERSION.fullmatch(folder.name) or folder == root)
        and next(folder.glob("*.array_record*"), None)
    ]
    if not readable:
        raise UserError(_how_to_prepare(name, root, versions))
    variants = sorted({folder.parent.name for folder in readable})
    if len(variants) > 1 and "/" not in name and name not in variants:
        raise UserError(
            f"data.name={name}: several configurations are prepared in {root}; choose one of "
            f"{', '.join(f'{name}/{variant}' for variant in variants)}"
        )
    newest = max(readable, key=lambda folder: [*map(int, re.findall(r"\d+", folder.name))])
    return newest, [folder for folder in versions if folder != newest]


def _versions(name: str, root: Path) -> list[Path]:
    """Every folder that holds a version, in any format and under any name, where TFDS puts them."""
    if not _VALID_NAME.fullmatch(name):
        return []
    dataset, _, variant = name.partition("/")
    if variant:
        parents = [root / dataset / variant, root / variant]
        parents += [root] if root.name == variant else []
        inside = [root] if root.parent.name == variant else []
    else:
        parents = [root, root / dataset, *_subfolders(root / dataset)]
        parents += _subfolders(root) if root.name == dataset else []
        inside = [root]
    for parent in dict.fromkeys(parents):
        inside += _subfolders(parent)
    versions = [folder for folder in inside if (folder / "dataset_info.json").is_file()]
    return [folder for folder in versions if next(folder.glob(f"{dataset}-*"), None)]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []


def _how_to_prepare(name: str, root: Path, versions: list[Path]) -> str:
    numbered = [folder for folder in versions if _VERSION.fullmatch(folder.name)]
    if numbered:
        state = f"{numbered[0]} is not in the ArrayRecord format"
    elif versions:
        state = f"{versions[0]} has no name of a version, such as 3.0.2 (rename it, or name it)"
    else:
        state = f"{name} is not prepared in {root}"
    needs = "" if name == "celeb_a" else " on a machine with TensorFlow"
    advice = (
        f"data.data_dir: {state}; prepare it{needs} with `tfds build {name} "
        f"--file_format=array_record --data_dir=DIR`, copy DIR/{name} here and set "
        "data.data_dir=DIR"
    )
    if name == "celeb_a":
        advice += (
            " (its download is often refused), or point data.name=folder, "
            "data.data_dir=.../img_align_celeba at a folder of its images"
        )
    return advice


def _import_tfds() -> ModuleType:
    """TensorFlow Datasets, which takes half a second to import and which only these sources need.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module("tensorflow_datasets")
    except ModuleNotFoundError as error:
        raise UserError(
            f"data.name: a TFDS data set needs the package {error.name}: pip install "
            "tensorflow-datasets importlib_resources array_record"
        ) from error


def _builder(version: Path) -> Any:
    tfds = _import_tfds()

    try:
        builder = tfds.builder_from_directory(version)
        features = dict(builder.info.features.items())
    except Exception as error:  # TFDS raises many kinds of errors on damaged files
        raise UserError(
            f"data.data_dir: cannot read {version / 'dataset_info.json'} or features.json beside "
            f"it (copy or prepare the data set again): {_reason(error)}"
        ) from error
    if not isinstance(features.get("image"), tfds.features.Image):
        raise UserError(
            f"data.name: {version} has no feature 'image' that holds images (its features: "
            f"{', '.join(features) or 'none'})"
        )
    return builder


def _open_split(name: str, version: Path, builder: Any, split: str) -> Images:
    tfds = _import_tfds()

    try:
        records: Any = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        # The image alone, still encoded: CelebA's fifty other features are never parsed.
        features = tfds.features.FeaturesDict({"image": builder.info.features["image"]})
        encoded = {"image": tfds.decode.SkipDecoding()}
        try:
            records[0]  # opens the file: a missing or cut one fails here
        except Exception:
            records[len(records) - 1]  # as it does if more than one record is damaged
    except Exception as error:
        raise UserError(
            f"data.data_dir: cannot read the {split} split in {version} "
            f"(copy or prepare it again): {_reason(error)}"
        ) from error

    source = f"{name} in {version}"

    def decode_record(index: int, record: bytes) -> Image.Image | Unreadable:
        try:
            encoded_image = features.deserialize_example_np(record, decoders=encoded)["image"]
            return open_image(io.BytesIO(encoded_image))
        except Exception as error:
            return Unreadable(f"{split}[{index}] of {source}", _reason(error))

    def read_record(index: int) -> Image.Image | Unreadable:
        try:
            record = records[index]
        except Exception as error:
            return Unreadable(f"{split}[{index}] of {source}", _reason(error))
        return decode_record(index, record)

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        try:
            batch = records.__getitem__(indices)
        except Exception:  # one of the records is damaged: reading each alone finds it
            return [read_record(index) for index in indices]
        return [decode_record(i, record) for i, record in zip(indices, batch, strict=True)]

    return Images(source, decode, np.arange(len(records)))


def _reason(error: Exception) -> str:
    return one_line(error)[:200] or repr(error)
