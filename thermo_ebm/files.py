"""Atomic writing: a file is always the old or the new version, whatever interrupts the write."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thermo_ebm.errors import UserError

# A hidden file in a folder of exported samples; data sets that lie around the folder leave it out.
SAMPLES_MARK = ".thermo_ebm_samples"


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
