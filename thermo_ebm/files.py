"""Atomic writing: a file is always the old or the new version, whatever interrupts the write.

Also a way to name a folder without the characters that libraries take for wildcards.
"""

import contextlib
import errno
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thermo_ebm.errors import UserError

# A hidden file in a folder of exported samples; data sets that lie around the folder leave it out.
SAMPLES_MARK = ".thermo_ebm_samples"
# Links to the open files of this process, by their numbers; Linux alone has them for folders.
OPEN_FILES = Path("/proc/self/fd")


@contextlib.contextmanager
def clear_errors(where: str | os.PathLike[str]) -> Iterator[None]:
    """Turns an operating-system error while writing under `where` into one clear line.

    Raises:
      UserError: in place of an OSError that the body raises.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "make room and" if full else "when that is fixed"
        raise UserError(
            f"{error.filename or where}: could not be written ({error.strerror or error}); what "
            f"was written before is intact: {what} run the same command again"
        ) from error


@contextlib.contextmanager
def without_wildcards(folder: Path) -> Iterator[Path]:
    """An absolute path of an existing folder for libraries that search below it by patterns.

    Such libraries (Orbax) find nothing below a folder whose path contains *, ? or [. Where it does,
    this path leads to the same folder by the number of an open file or by a symbolic link, and is
    valid only inside the context, and only in this process.
    """
    folder = folder.absolute()
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    if OPEN_FILES.is_dir():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            yield OPEN_FILES / str(descriptor)
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory(dir="/tmp") as beside:
            link = Path(beside, "folder")
            link.symlink_to(folder, target_is_directory=True)
            yield link


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replaces `path` atomically: a crash or a full disk leaves what was there before.

    The bytes are written to a hidden file in the same folder and forced to disk; then the hidden
    file is renamed to `path`.

    Raises:
      OSError: as the system says (ENOSPC on a full disk); the unfinished file is removed.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(unfinished, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    _sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replaces `path` atomically by UTF-8 text; line ends stay as given."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Replaces `path` atomically by indented JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads JSON.

    Raises:
      FileNotFoundError: there is no such file.
      UserError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: JSONDecodeError, UnicodeDecodeError
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Forces the new name to disk; file systems that refuse this do not need it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
