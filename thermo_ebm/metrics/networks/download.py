"""The FID weights: where they are looked for, and the download that a user asks for."""

import hashlib
import http.client
import os
import re
import tempfile
import urllib.request
from pathlib import Path

from absl import logging

from thermo_ebm.errors import UserError, one_line

INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"
INCEPTION_URL = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION_FILE}"
)
_CHUNK = 1 << 20
_MAX_BYTES = 1 << 28  # the file has 95 MB


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_prefix(name: str) -> str:
    """Returns the digits that a weight file's name promises: those after its last hyphen."""
    return Path(name).stem.rsplit("-", 1)[-1]


def find_inception_weights(path: str | Path | None, cache_dir: Path) -> Path:
    """Returns the file of InceptionV3's FID weights.

    Args:
      path: the user's file; None or "" looks in the cache folder.
      cache_dir: where `python -m launch.fetch_weights` puts it.

    Raises:
      UserError: if there is none; the line says both ways to one.
    """
    if path:
        if not Path(path).is_file():
            raise UserError(f"inception_weights={path}: there is no such file")
        if not sha256_of(Path(path)).startswith(sha256_prefix(INCEPTION_FILE)):
            logging.warning(
                "%s is not %s: its figures cannot be compared with published ones",
                path,
                INCEPTION_FILE,
            )
        return Path(path)
    cached = cache_dir / INCEPTION_FILE
    if not cached.is_file():
        raise UserError(
            f"InceptionV3's weights are not in {cache_dir}: run `python -m launch.fetch_weights`"
            f" where there is a network, or give --inception_weights=PATH to {INCEPTION_FILE}"
        )
    return cached


def fetch(url: str, cache_dir: Path, timeout: float = 30.0) -> Path:
    """Downloads a weight file into the cache folder; the file is checked and written atomically.

    Args:
      url: its address; the name ends in a hyphen and the first digits of its SHA-256, 8 at least.
      cache_dir: the folder; a file that is there and right is left alone.
      timeout: seconds without any data.

    Returns:
      The file's path.

    Raises:
      UserError: if it cannot be downloaded or written, or has another SHA-256; nothing is left.
    """
    target = cache_dir / url.rsplit("/", 1)[-1]
    expected = sha256_prefix(target.name)
    if not re.fullmatch("[0-9a-f]{8,64}", expected):
        raise UserError(
            f"cannot fetch {url}: its name must end in a hyphen and at least 8 hexadecimal digits"
            f" of its SHA-256, as {INCEPTION_FILE} does"
        )
    try:
        if target.is_file() and sha256_of(target).startswith(expected):
            return target
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_dir, suffix=".part", delete=False) as partial:
            part = Path(partial.name)
        try:
            _download(url, part, timeout)
            _check(part, expected, url)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: of the address
        reason = one_line(error)[:200]  # a bad status line comes as it was sent
        raise UserError(
            f"cannot fetch {url} into {cache_dir} ({reason}): run `python -m launch.fetch_weights`"
            f" where there is a network, or give --inception_weights=PATH to {target.name}"
        ) from error
    return target


def _download(url: str, path: Path, timeout: float) -> None:
    with urllib.request.urlopen(url, timeout=timeout) as response, path.open("wb") as file:
        received = 0
        while chunk := response.read(_CHUNK):
            received += len(chunk)
            if received > _MAX_BYTES:
                raise UserError(f"{url} sends more than {_MAX_BYTES} bytes; nothing is kept")
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _check(path: Path, expected: str, url: str) -> None:
    actual = sha256_of(path)
    if not actual.startswith(expected):
        raise UserError(
            f"{url} has the SHA-256 {actual[:8]}..., not {expected}...; nothing is kept, try again"
        )
