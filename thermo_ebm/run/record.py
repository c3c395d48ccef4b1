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
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run.changes import add_changes
from thermo_ebm.run.configuration import (
    ABSENT,
    Difference,
    as_json,
    differences,
    read_config,
    write_config,
)
from thermo_ebm.run.layout import (
    CONFIG,
    IMAGES,
    SKIPPED,
    VALIDATION_IMAGES,
    VERSIONS,
    has_begun,
)

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


class Means(NamedTuple):
    """What images are known by: mean levels of parts of some, 0 to 255 (`data.some_means`)."""

    train: Sequence[float] = ()
    validation: Sequence[float] = ()


def record(
    workdir: str | os.PathLike[str],
    config: ConfigDict,
    means: Means,
    backend: str,
    device_kind: str,
    epoch: int = 0,
    step: int = 0,
    skipped: Sequence[str] = (),
) -> None:
    """Writes what the run trains with from now on, which `check_config` and `check_images` let by.

    Args:
      workdir: the run's folder.
      config: the whole configuration, as it is written to `config.json`.
      means: of the images.
      backend: `jax.default_backend()`, asked by the caller.
      device_kind: `jax.devices()[0].device_kind`, likewise.
      epoch: epochs that the furthest repetition has done, for the record of changes.
      step: steps that it has done.
      skipped: names of the images that the run does without.

    Raises:
      UserError: a file cannot be written, or one that is there is damaged.
    """
    folder, new = Path(workdir), as_json(config)
    old = read_config(folder) if (folder / CONFIG).exists() else None
    with files.clear_errors(folder):
        if old is not None and has_begun(folder):
            # Before the configuration: a start that is killed in between finds the change again.
            add_changes(folder, differences(old, new), epoch, step)
        if old != new:
            write_config(folder, new)  # first of a new run's files: what a folder is known by
        for name, some in ((IMAGES, means.train), (VALIDATION_IMAGES, means.validation)):
            if not has_begun(folder) or not (folder / name).exists():
                files.write_json(folder / name, [round(float(mean), 2) for mean in some])
        if not has_begun(folder) and (skipped or (folder / SKIPPED).exists()):
            files.write_json(folder / SKIPPED, list(skipped))
    for change in write_versions(folder, backend, device_kind):
        logging.warning("%s was %s, is %s", change.field, change.old, change.new)


def check_images(workdir: str | os.PathLike[str], means: Means) -> None:
    """Holds some images' mean levels against those the run was started with, if it has begun.

    What the run has no record of is not compared.

    Raises:
      UserError: they differ, or the record is damaged.
    """
    if has_begun(workdir):
        _check_means(Path(workdir) / IMAGES, means.train, "training")
        _check_means(Path(workdir) / VALIDATION_IMAGES, means.validation, "validation")


def _check_means(path: Path, means: Sequence[float], what: str) -> None:
    if not path.exists():
        return
    old = files.read_json(path)
    if not isinstance(old, list) or not all(isinstance(mean, int | float) for mean in old):
        raise UserError(f"{path}: not a list of images' mean levels; move it away")
    same = [abs(a - b) <= _SAME_IMAGE for a, b in zip(old, means, strict=False)]
    if len(old) != len(means) or not all(same):
        raise UserError(
            f"data.data_dir: its {what} images are not those the run was started with "
            f"({same.count(False)} of {len(same)} mean levels differ); point it at the same images "
            f"or use another folder; to go on with these all the same, remove {path}"
        )


def read_skipped(workdir: str | os.PathLike[str]) -> list[str] | None:
    """Names of the images that a run does without; None where it has not begun.

    Raises:
      UserError: the record is damaged.
    """
    path = Path(workdir) / SKIPPED
    if not has_begun(workdir):
        return None
    try:
        names = files.read_json(path)
    except FileNotFoundError:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: not a list of images' names; restore it from a copy")
    return names


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
    with files.clear_errors(path):
        files.write_json(path, new)
    return changed


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
