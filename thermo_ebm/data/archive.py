"""Images in one zip or tar file, read where they lie: nothing is unpacked.

Members are chosen as `folder.folder` chooses files: hidden ones and what operating systems add are
left out, members that are no images are counted. A compressed tar file cannot be read image by
image and is refused.
"""

import collections
import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from thermo_ebm.data.folder import LITTER, describe
from thermo_ebm.data.images import Images, Source, Unreadable, open_image, suffixes
from thermo_ebm.errors import UserError, one_line

_Read = Callable[[str], bytes]  # the content of a member, by its name


def is_archive(path: str) -> bool:
    """Whether a file is a zip file with images, or a tar file."""
    if not os.path.isfile(path):
        return False
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            return any(_suffix(name) in suffixes() for name in file.namelist())
    return tarfile.is_tarfile(path)


def archive(path: str) -> Source:
    """Opens every image of a zip or tar file, in the order of their names.

    Raises:
      UserError: the file is damaged, compressed as a whole, or has no image.
    """
    try:
        members, read = _open_zip(path) if zipfile.is_zipfile(path) else _open_tar(path)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise UserError(
            f"data.data_dir: {path} cannot be read as a zip or tar file: {one_line(error)}"
        ) from error
    names, left_out = _images_among(members)
    if not names:
        raise UserError(f"data.data_dir: no images in {path}" + (f" ({left_out})" * bool(left_out)))

    def decode(indices: Sequence[int]) -> list[Image.Image | Unreadable]:
        return [_decoded(path, names[i], read) for i in indices]

    remarks = (f"left out: {left_out}",) if left_out else ()
    return Images(path, decode, np.arange(len(names)), remarks=remarks), None


def _open_zip(path: str) -> tuple[list[str], _Read]:
    """A zip file's members; threads may read them together."""
    file = zipfile.ZipFile(path)
    return [info.filename for info in file.infolist() if not info.is_dir()], file.read


def _open_tar(path: str) -> tuple[list[str], _Read]:
    """A tar file's members, each read at its own place in the file."""
    try:
        with tarfile.open(path, "r:") as file:
            places = {m.name: (m.offset_data, m.size) for m in file.getmembers() if m.isreg()}
    except tarfile.ReadError as error:
        if not tarfile.is_tarfile(path):
            raise
        raise UserError(
            f"data.data_dir: {path} is a compressed tar file, whose images cannot be read one by "
            "one; unpack it and name the folder"
        ) from error

    def read(name: str) -> bytes:
        offset, size = places[name]
        with open(path, "rb") as content:
            content.seek(offset)
            return content.read(size)

    return list(places), read


def _images_among(members: Sequence[str]) -> tuple[list[str], str]:
    """The names of images, in order, and a count of the other members."""
    names, others = [], collections.Counter[str]()
    for name in members:
        parts = PurePosixPath(name).parts
        if any(part in LITTER or part.startswith(".") for part in parts if part not in (".", "..")):
            continue
        if _suffix(name) in suffixes():
            names.append(name)
        else:
            others[_suffix(name) or "without suffix"] += 1
    return sorted(names), describe(others, collections.Counter())


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _decoded(path: str, name: str, read: _Read) -> Image.Image | Unreadable:
    try:
        return open_image(io.BytesIO(read(name)), upright=True)
    except Exception as error:  # Pillow and zlib raise many kinds for a damaged member
        return Unreadable(f"{path}/{name}", one_line(error))
