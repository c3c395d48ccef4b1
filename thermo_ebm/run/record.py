"""What a run records of itself: its configuration, its images and the versions it was made with.

In this order: `with lock.hold(workdir):`, `configuration.check_config`, and `record` once it is
known that the run can go on: what is refused before leaves the record as it was.
"""

import os
import platform
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.configuration import ABSENT, Difference, as_json, differences, read_config
from thermo_ebm.run.layout import CONFIG, IMAGES, VERSIONS, has_begun

# Of 256 levels. Another decoder moves the mean of a quarter of an image by a tenth; those of two
# photographs are tens apart.
_SAME_IMAGE = 2.0
_PACKAGES = (
    "jax",
    "jaxlib",
    "dm-haiku",
    "optax",
    "orbax-checkpoint",
    "chex",
    "numpy",
    "ml-collections",
    "tensorflow-datasets",
)


def record(
    workdir: str | os.PathLike[str],
    config: ConfigDict,
    image_means: Sequence[float],
    backend: str,
    device_kind: str,
) -> None:
    """Writes what the run trains with from now on, which `check_config` and `check_images` let by.

    Args:
      workdir: the run's folder.
      config: the whole configuration, as it is written to `config.json`.
      image_means: mean levels of parts of some training images, 0 to 255 (`data.some_means`).
      backend: `jax.default_backend()`, asked by the caller.
      device_kind: `jax.devices()[0].device_kind`, likewise.

    Raises:
      UserError: a file cannot be written.
    """
    folder, new = Path(workdir), as_json(config)
    if not (folder / CONFIG).exists() or read_config(folder) != new:
        _write_json(folder / CONFIG, new)  # first: it is what a folder is known by
    if not has_begun(folder) or not (folder / IMAGES).exists():
        _write_json(folder / IMAGES, [round(float(mean), 2) for mean in image_means])
    for change in write_versions(folder, backend, device_kind):
        logging.warning("%s was %s, is %s", change.field, change.old, change.new)


def check_images(workdir: str | os.PathLike[str], image_means: Sequence[float]) -> None:
    """Holds some images' mean levels against those the run was started with, if it has begun.

    Raises:
      UserError: they differ, or the record is damaged.
    """
    path = Path(workdir) / IMAGES
    if not has_begun(workdir) or not path.exists():
        return
    old = files.read_json(path)
    if not isinstance(old, list) or not all(isinstance(mean, int | float) for mean in old):
        raise UserError(f"{path}: not a list of images' mean levels; move it away")
    same = [abs(a - b) <= _SAME_IMAGE for a, b in zip(old, image_means, strict=False)]
    if len(old) != len(image_means) or not all(same):
        raise UserError(
            f"data.data_dir: its images are not those the run was started with ({same.count(False)}"
            f" of {len(same)} mean levels differ); point it at the same images or use another "
            f"folder; to go on with these all the same, remove {path}"
        )


def write_versions(
    workdir: str | os.PathLike[str], backend: str, device_kind: str
) -> list[Difference]:
    """Writes `versions.json`: Python, packages, this one, backend and device.

    Args:
      workdir: the run's folder.
      backend: `jax.default_backend()`, asked by the caller.
      device_kind: `jax.devices()[0].device_kind`, likewise.

    Returns:
      What differs from the run's last start: with another version or device the figures may not
      repeat bit for bit. A damaged file counts as none.
    """
    path = Path(workdir) / VERSIONS
    new = versions() | {"backend": backend, "device_kind": device_kind}
    try:
        old = files.read_json(path)
    except (FileNotFoundError, UserError):
        old = new
    changed = differences(old, new) if isinstance(old, dict) else []
    _write_json(path, new)
    return changed


def _write_json(path: Path, value: Any) -> None:
    with files.clear_errors(path):
        files.write_json(path, value)


def versions() -> dict[str, str]:
    """Returns the versions of Python, of the packages that make the figures, and of this one."""
    found = {"python": platform.python_version(), "thermo_ebm": _own_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ABSENT
    return found


def _own_version() -> str:
    try:
        return metadata.version("thermo-ebm")
    except metadata.PackageNotFoundError:  # run from a checkout
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not project.is_file():
            return ABSENT
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
