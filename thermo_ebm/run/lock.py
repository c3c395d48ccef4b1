"""The lock of a run's folder: one process trains there at a time."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from filelock import FileLock, Timeout

from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import CONFIG, run_folder

LOCK = ".lock"
_PATIENCE = 0.5  # seconds: `is_held` takes the lock for a moment


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Creates the folder if needed and holds its lock, which is released if the process dies.

    If nothing was recorded in the folder, it is left as it was: absent or empty.

    Raises:
      UserError: another process holds the lock (the message names the process), or the folder
        cannot hold a run.
    """
    folder, absent = Path(workdir), not Path(workdir).exists()
    run_folder(folder)
    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=0.1)
    except Timeout as error:
        raise UserError(_in_use(folder)) from error
    except PermissionError as error:
        raise UserError(f"workdir={folder}: cannot be written: {error.strerror}") from error
    except OSError as error:
        if not path.exists():
            raise UserError(f"workdir={folder}: cannot be written: {error.strerror}") from error
        logging.warning("%s: this file system has no locks (%s)", folder, error)
    _write_holder(path, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
    try:
        yield
    finally:
        _write_holder(path, "")
        if not (folder / CONFIG).exists():
            with contextlib.suppress(OSError):
                path.unlink()
                if absent:
                    folder.rmdir()  # fails if anything is left
        lock.release(force=True)


def is_held(workdir: str | os.PathLike[str]) -> bool:
    """Whether a process holds the lock of the folder, that is, trains there."""
    path = Path(workdir) / LOCK
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a file system without locks, or one that cannot be written
        return False


def check_free(workdir: str | os.PathLike[str]) -> None:
    """Checks, as `hold` does, that no other process holds the lock; writes nothing.

    Raises:
      UserError: another process holds it.
    """
    if is_held(workdir):
        raise UserError(_in_use(Path(workdir)))


def _in_use(folder: Path) -> str:
    return f"workdir={folder}: in use by {_holder(folder / LOCK)}; nothing was done"


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # the process has only just taken the lock
        return "another process"


def _write_holder(path: Path, text: str) -> None:
    """Records who holds the lock. On a full disk nothing is recorded, but the lock still holds."""
    with contextlib.suppress(OSError), open(path, "r+", encoding="utf-8") as file:
        file.truncate()
        file.write(text)
