"""TFDS data sets that were prepared as ArrayRecord files, read without TensorFlow or a network.

The version's folder is found here and opened with `tfds.builder_from_directory`, which needs
neither the data set's own code nor a download; `tfds.builder` would try both, for minutes.
"""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from thermo_ebm.data.source import Source, Split
from thermo_ebm.errors import UserError

NAMES = ("cifar10", "svhn_cropped", "celeb_a")


def prepared(name: str, data_dir: str) -> Source:
    """Opens the TFDS data set `name`.

    Args:
      name: cifar10, svhn_cropped or celeb_a.
      data_dir: TFDS's folder, the data set's or the version's inside it; "" is TFDS's default.

    Returns:
      The source; the test split is the validation set.

    Raises:
      UserError: not prepared there, in another format, or damaged.
    """
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    version = _version_folder(name, root)
    train = _split(version, "train")
    held_out = _split(version, "test")
    return Source(f"{name} in {version}", train, held_out)


def _version_folder(name: str, root: Path) -> Path:
    """Returns the newest version under `root` that has ArrayRecord files."""
    inside = [root, *_subfolders(root), *_subfolders(root / name)]
    versions = [folder for folder in inside if (folder / "dataset_info.json").is_file()]
    versions = [folder for folder in versions if next(folder.glob(f"{name}-*"), None)]
    readable = [folder for folder in versions if next(folder.glob("*.array_record*"), None)]
    if readable:
        return max(readable, key=_version_number)
    raise UserError(_how_to_prepare(name, root, versions))


def _subfolders(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []


def _version_number(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", folder.name))


def _how_to_prepare(name: str, root: Path, versions: list[Path]) -> str:
    found = (
        f"{versions[0]} is not in the ArrayRecord format"
        if versions
        else f"{name} is not prepared in {root}"
    )
    needs = "" if name == "celeb_a" else " on a machine with TensorFlow"
    advice = (
        f"data.data_dir: {found}; prepare it{needs} with `tfds build {name} "
        f"--file_format=array_record --data_dir=DIR`, copy DIR/{name} here and set "
        "data.data_dir=DIR"
    )
    if name == "celeb_a":
        advice += (
            " (its download is often refused), or point data.name=folder, "
            "data.data_dir=.../img_align_celeba at a folder of its images"
        )
    return advice


def _split(version: Path, split: str) -> Split:
    import tensorflow_datasets as tfds  # half a second, for these sources alone

    try:
        builder = tfds.builder_from_directory(version)
        records: Any = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        # The image alone, still encoded: CelebA's fifty other features are never parsed.
        features = tfds.features.FeaturesDict({"image": builder.info.features["image"]})
        encoded = {"image": tfds.decode.SkipDecoding()}
        records[0]  # opens the file: a missing or cut one fails here
    except Exception as error:  # TFDS raises nearly anything on damaged files
        raise UserError(
            f"data.data_dir: cannot read the {split} split in {version} "
            f"(copy or prepare it again): {_first_line(error)}"
        ) from error

    def read(indices: Sequence[int]) -> list[Image.Image]:
        try:
            examples = [
                features.deserialize_example_np(record, decoders=encoded)
                for record in records.__getitems__(indices)
            ]
            return [_decode_image(example["image"]) for example in examples]
        except Exception as error:
            raise UserError(
                f"data.data_dir: damaged records in the {split} split in {version} "
                f"(copy or prepare it again): {_first_line(error)}"
            ) from error

    return Split(len(records), read)


def _decode_image(encoded: bytes) -> Image.Image:
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        return image


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or repr(error)
