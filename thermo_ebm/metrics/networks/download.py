"""Published weight files: where they are searched for, and their download on request."""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from thermo_ebm.errors import UserError

_CHUNK = 1 << 20
_MAX_BYTES = 1 << 32


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_prefix(name: str) -> str:
    """Returns the digits of the SHA-256 in a weight file's name: those after its last hyphen."""
    return Path(name).stem.rsplit("-", 1)[-1]


def user_file(path: str | Path) -> Path:
    """Returns the path of a user's weight file.

    Raises:
      UserError: if there is no such file.
    """
    if not Path(path).is_file():
        raise UserError(f"weights={path}: there is no such file")
    return Path(path)


def cached_name(url: str, network: str = "") -> str:
    """Returns the name of a published file in the cache folder.

    Its own if it ends in digits of its SHA-256; else that of the network, which tells files called
    `pytorch_model.bin` apart.
    """
    name = url.rsplit("/", 1)[-1]
    return name if has_checksum(name) or not network else f"{network}{Path(name).suffix}"


def has_checksum(name: str) -> bool:
    """Returns whether a file's name ends in a hyphen and at least 8 digits of its SHA-256."""
    return "-" in name and re.fullmatch("[0-9a-f]{8,64}", sha256_prefix(name)) is not None


def find_weights(url: str, path: str | Path | None, cache_dir: Path, network: str = "") -> Path:
    """Returns the user's weight file, or the downloaded file, whose checksum is verified.

    Where none is published, it is that of the download, which is kept beside the file.

    Args:
      url: the published file's address; the name ends in the first digits of its SHA-256.
      path: the user's file, whatever it holds; None or "" looks in the cache folder.
      cache_dir: where `python -m launch.fetch_weights` puts the published file.
      network: the network's name, where the file's name has no checksum.

    Raises:
      UserError: if there is no such file, or the downloaded file is damaged.
    """
    name = cached_name(url, network)
    file = user_file(path) if path else cache_dir / name
    command = f"python -m launch.fetch_weights{f' --network={network}' if network else ''}"
    if not file.is_file():
        raise UserError(
            f"the weights {name} are not in {cache_dir}: run `{command}`"
            " where there is a network, or give their path as --weights=PATH"
        )
    if not path and not sha256_of(file).startswith(_expected(file)):
        raise UserError(f"{file} is damaged: run `{command}` again")
    return file


def _expected(file: Path) -> str:
    """The first digits of the SHA-256 that a file in the cache folder has; "" if unknown."""
    if has_checksum(file.name):
        return sha256_prefix(file.name)
    record = _record(file)
    return record.read_text(encoding="ascii").strip() if record.is_file() else ""


def _record(file: Path) -> Path:
    """Where the checksum of a file without a published one is kept."""
    return file.with_name(f"{file.name}.sha256")


def fetch(url: str, cache_dir: Path, timeout: float = 30.0, network: str = "") -> Path:
    """Downloads a weight file into the cache folder; the file is checked and written atomically.

    Args:
      url: the file's address; its name ends in a hyphen and the first digits of its SHA-256, at
        least 8, unless it is the published file of `network`.
      cache_dir: the folder; an undamaged file there is not downloaded again.
      network: the name of a network for whose file no checksum is published: the SHA-256 of the
        download is kept beside it, and later uses are checked against that.
      timeout: seconds without any data.

    Returns:
      The file's path.

    Raises:
      UserError: if it cannot be downloaded or written, or has another SHA-256; nothing is left.
    """
    target = cache_dir / cached_name(url, network)
    expected = _expected(target)
    if not has_checksum(target.name) and not network:
        raise UserError(
            f"cannot fetch {url}: its name must end in a hyphen and at least 8 hexadecimal digits"
            " of its SHA-256"
        )
    try:
        if expected and target.is_file() and sha256_of(target).startswith(expected):
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_dir, suffix=".part", delete=False) as partial:
            part = Path(partial.name)
        try:
            _download(url, part, timeout)
            actual = sha256_of(part)
            if has_checksum(target.name) and not actual.startswith(expected):
                raise UserError(
                    f"{url} has the SHA-256 {actual[:8]}..., not {expected}...; nothing is stored,"
                    " try again"
                )
            os.replace(part, target)
            if not has_checksum(target.name):
                _record(target).write_text(f"{actual}\n", encoding="ascii")
        finally:
            part.unlink(missing_ok=True)
    except (
        OSError,
        ValueError,
        http.client.HTTPException,
    ) as error:  # ValueError: a malformed address
        if isinstance(error, OSError) and error.filename is not None:
            raise UserError(f"{error.filename}: cannot be written: {error.strerror}") from error
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        cause = cause.strerror or cause if isinstance(cause, OSError) else cause
        reason = " ".join(str(cause).split())[:200]  # a bad status line is quoted as it was sent
        raise UserError(
            f"cannot fetch {url} into {cache_dir} ({reason}): run `python -m launch.fetch_weights`"
            f" where there is a network, or give the path of {target.name} as --weights=PATH"
        ) from error
    return target


def _download(url: str, path: Path, timeout: float) -> None:
    with urllib.request.urlopen(url, timeout=timeout) as response, path.open("wb") as file:
        received = 0
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if received > _MAX_BYTES:
                raise UserError(f"{url} sends more than {_MAX_BYTES} bytes; nothing is stored")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
