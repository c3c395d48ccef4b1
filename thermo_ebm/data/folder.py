"""A folder of image files: each entry below the folder is used, named in an error, or counted.

Hidden entries and what operating systems put into folders are left out and not counted. What a run,
a report or `launch.sample` wrote is not part of a data set, unless the folder itself is named.
"""

import collections
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from thermo_ebm.data.images import Images, Source, Unreadable, open_image, suffixes
from thermo_ebm.errors import UserError, one_line
from thermo_ebm.files import SAMPLES_MARK
from thermo_ebm.run import layout

LITTER = {"Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r", "__MACOSX", "@eaDir"}
_MOST_KINDS = 8  # number of suffixes that the count of files names
# Entries by which a folder of a run, a repetition, a report, or of samples is recognised.
_OUTPUTS = (
    ({layout.CONFIG, layout.VERSIONS}, "run"),
    ({layout.CHECKPOINTS, layout.READINGS}, "run"),
    ({"samples.png", "reconstructions.png"}, "folder of samples"),
    ({SAMPLES_MARK}, "folder of samples"),
    ({"report.html", "figures", "tables"}, "report"),
    ({layout.LIKELIHOOD, layout.LIKELIHOOD_FOLDER}, "table of likelihoods"),
)
_EPOCH = re.compile(r"epoch_\d+\.png")  # the samples of a training run


def folder(path: str) -> Source:
    """Opens every image under `path`, subfolders and links included, in the order of their names.

    Raises:
      UserError: there is no such folder, or no image in it; the folder is a run; a folder below
        cannot be read; or a link leads nowhere.
    """
    if not path or not Path(path).is_dir():
        raise UserError(
            f"data.data_dir: no folder {path!r}; with data.name=folder it names a folder of "
            "images, for example CelebA's img_align_celeba"
        )
    names, left_out = _list_images(path)
    remarks = (f"left out: {left_out}",) if left_out else ()
    if not names:
        raise UserError(
            f"data.data_dir: no images (.png, .jpg, .tif and whatever else Pillow decodes) under "
            f"{path}" + "".join(f" ({remark})" for remark in remarks)
        )

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [_open(os.path.join(path, names[i])) for i in indices]

    return Images(path, decode, np.arange(len(names)), remarks=remarks), None


def _list_images(path: str) -> tuple[list[str], str]:
    """Returns the names of images, relative to `path`, and a count of all that is left out."""
    names: list[str] = []
    files_left_out: collections.Counter[str] = collections.Counter()
    others_left_out: collections.Counter[str] = collections.Counter()
    visited = set()
    pending = [path]
    while pending:
        parent = pending.pop()
        real = os.path.realpath(parent)
        if real in visited:  # circular links, or two links to one folder
            others_left_out["folder met before"] += 1
            continue
        visited.add(real)
        entries = _entries(parent)
        output = _output_kind({entry.name for entry in entries})
        if output and parent != path:
            others_left_out[output] += 1
            continue
        if output == "run":
            raise UserError(
                f"data.data_dir: {path} is the folder of a run; a folder of images inside it can "
                "be named"
            )
        folders = []
        for entry in entries:
            if entry.name.startswith(".") or entry.name in LITTER:
                continue
            kind = _kind(entry)
            suffix = os.path.splitext(entry.name)[1].lower()
            if kind == "folder":
                folders.append(entry.path)
            elif kind == "special file":
                others_left_out[kind] += 1
            elif suffix in suffixes():
                names.append(os.path.relpath(entry.path, path))
            else:
                files_left_out[suffix or "without suffix"] += 1
        pending += reversed(folders)
    # The order in which a folder lists its entries differs between file systems.
    return sorted(names), describe(files_left_out, others_left_out)


def _entries(parent: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(parent) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"data.data_dir: {parent} cannot be searched for images: {error.strerror}"
        ) from error


def _kind(entry: os.DirEntry[str]) -> str:
    """Returns folder, file, or special file: a pipe or a device, which must not be opened."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        dangling = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError:  # a link to itself, or through a closed folder
        dangling = True
    if dangling:
        raise UserError(
            f"data.data_dir: {entry.path} is a link to {os.readlink(entry.path)}, which cannot be "
            "reached; mount or restore what it leads to, or remove the link"
        )
    return "special file"


def _output_kind(names: set[str]) -> str:
    """What this project wrote into a folder with these entries; "" for any other folder."""
    if names and all(_EPOCH.fullmatch(name) for name in names):
        return "folder of samples"
    return next((kind for entries, kind in _OUTPUTS if entries <= names), "")


def describe(
    suffixes_left_out: collections.Counter[str], entries_left_out: collections.Counter[str]
) -> str:
    """Counts for reading.

    >>> describe(collections.Counter({".txt": 10, ".md": 1}), collections.Counter({"run": 2}))
    '11 files (.txt 10, .md 1), 2 runs'
    """
    parts = []
    if number := suffixes_left_out.total():
        common = suffixes_left_out.most_common(_MOST_KINDS)
        kinds = [f"{suffix} {count}" for suffix, count in common]
        if more := number - sum(count for _, count in common):
            kinds.append(f"other {more}")
        parts.append(f"{number} file{'s' if number > 1 else ''} ({', '.join(kinds)})")
    for kind, count in entries_left_out.items():
        noun, *rest = kind.split(" ", 1) if kind != "special file" else [kind]
        parts.append(" ".join([str(count), noun if count == 1 else f"{noun}s", *rest]))
    return ", ".join(parts)


def _open(path: str) -> Image.Image | Unreadable:
    try:
        return open_image(path, upright=True)
    except Exception as error:  # Pillow raises many kinds for a damaged file
        return Unreadable(path, one_line(error))
