"""Locks: of a run's folder, where one process trains at a time, and of single files."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from filelock import FileLock, Timeout

from thermo_ebm.errors import UserError
from thermo_ebm.run.layout import CONFIG, LOCK, run_folder

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of flock
_PATIENCE = 0.5  # seconds: `is_held` takes the lock for a moment


@contextlib.contextmanager
def locked(path: Path, patience: float = -1.0) -> Iterator[None]:
    """Holds the lock that the file `path` stands for; it is released if the process dies.

    Args:
      path: the file, created if needed in an existing folder.
      patience: seconds to wait for another process; -1 waits until it releases the lock.

    Raises:
      TimeoutError: another process holds the lock.
      OSError: the file cannot be created. A file system without locks is only reported.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience, poll_interval=0.1)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logging.warning("%s: this file system has no locks (%s)", path.parent, error)
    try:
        yield
    finally:
        lock.release(force=True)


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Creates a run's folder if needed and holds its lock.

    If nothing was recorded in the folder, it is left as it was: absent or empty.

    Raises:
      UserError: another process holds the lock (the message names the process), or the folder
        cannot hold a run.
    """
    folder, absent = Path(workdir), not Path(workdir).exists()
    run_folder(folder)
    path = folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, _PATIENCE))
        except TimeoutError as error:
            raise UserError(_in_use(folder)) from error
        except OSError as error:
            raise UserError(f"workdir={folder}: cannot be written: {error.strerror}") from error
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
    try:
        record = json.loads((folder / LOCK).read_text(encoding="utf-8"))
        holder = f"process {record['pid']} on {record['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # the process has only just taken the lock
        holder = "another process"
    return f"workdir={folder}: in use by {holder}; nothing was done"


def _write_holder(path: Path, text: str) -> None:
    """Records who holds the lock. On a full disk nothing is recorded, but the lock still holds."""
    with contextlib.suppress(OSError), open(path, "r+", encoding="utf-8") as file:
        file.truncate()
        file.write(text)
