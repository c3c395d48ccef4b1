"""Determines which runs were trained on the same images, from the record in each run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import IMAGES

# Of 256 levels. Another JPEG decoder moves the mean of a quarter of an image by a tenth; the means
# of two photographs are tens apart.
_SAME_LEVEL = 2.0
LOCAL = ("folder", "npz", "idx")  # data sets that are known by where they are
# Runs that differ in one of these fields took other images of one source, or other sizes of them.
_SELECTION = ("data.num_train", "data.image_size", "data.channels")


class Source(NamedTuple):
    """Where the images of one run come from and what is recorded of them."""

    name: str  # data.name
    place: str  # data.data_dir
    selection: tuple[Any, ...]
    levels: tuple[float, ...] | None  # mean levels of parts of some images, 0 to 255


def read_source(folder: Path, config: Mapping[str, Any]) -> Source:
    """Returns the source of a run's images.

    Raises:
      UserError: images.json is damaged.
    """
    name, place = str(config.get("data.name", "")), str(config.get("data.data_dir", "") or "")
    return Source(name, place, tuple(config.get(f) for f in _SELECTION), _levels(folder / IMAGES))


def label_sources(sources: Sequence[Source]) -> list[str]:
    """Returns a label for each source: equal labels for the same images, others for others.

    The label is the data set's name. Local images have the name of their file or folder added, and
    images that still have the same label get a number.
    """
    groups: list[list[int]] = []
    for index, source in enumerate(sources):
        found = next((g for g in groups if any(_same(sources[i], source) for i in g)), None)
        if found is None:
            groups.append([index])
        else:
            found.append(index)
    plain = [_plain_label(sources[group[0]]) for group in groups]
    labels = [""] * len(sources)
    for number, (group, label) in enumerate(zip(groups, plain, strict=True)):
        several = plain.count(label) > 1
        for index in group:
            labels[index] = f"{label} {plain[:number].count(label) + 1}" if several else label
    return labels


def _levels(path: Path) -> tuple[float, ...] | None:
    try:
        levels = files.read_json(path)
    except FileNotFoundError:  # a run of an earlier version
        return None
    if not isinstance(levels, list) or not all(isinstance(level, int | float) for level in levels):
        raise UserError(f"{path}: not a list of images' mean levels; restore or remove it")
    return tuple(float(level) for level in levels)


def _same(one: Source, other: Source) -> bool:
    if one.name != other.name:
        return False
    if one.levels and other.levels and one.selection == other.selection:
        pairs = zip(one.levels, other.levels, strict=False)
        equal = all(abs(a - b) <= _SAME_LEVEL for a, b in pairs)
        return len(one.levels) == len(other.levels) and equal
    return one.name not in LOCAL or one.place == other.place


def _plain_label(source: Source) -> str:
    stem = Path(source.place).stem if source.name in LOCAL else ""
    return f"{source.name} {stem}".strip()
