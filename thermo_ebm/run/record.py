"""The record of a run: its configuration, its images and the versions of all packages.

The order of calls is `with lock.hold(workdir):`, `configuration.check_config`, and then `record`
once it is known that the run can continue, so that a refused start leaves the record unchanged.
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

# In units of 1 of 256 levels. Another decoder changes the mean of a quarter of an image by a tenth
# of a level; the means of two photographs differ by tens of levels.
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
    """Mean levels that identify a run's images, 0 to 255 (`data.some_means`)."""

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
    """Records what the run trains with from now on, after `check_config` and `check_images`.

    Args:
      workdir: the run's folder.
      config: the complete configuration, as it is written to `config.json`.
      means: of the images.
      backend: `jax.default_backend()`, asked by the caller.
      device_kind: `jax.devices()[0].device_kind`, likewise.
      epoch: epochs that the furthest repetition has done, for the record of changes.
      step: steps that it has done.
      skipped: names of the images that the run skips.

    Raises:
      UserError: a file cannot be written, or an existing file is damaged.
    """
    folder, new = Path(workdir), as_json(config)
    old = read_config(folder) if (folder / CONFIG).exists() else None
    with files.clear_errors(folder):
        if old is not None and has_begun(folder):
            # Before the configuration: a start that is killed in between finds the change again.
            add_changes(folder, differences(old, new), epoch, step)
        if old != new:
            write_config(
                folder, new
            )  # the first file of a new run, which marks the folder as a run directory
        for name, some in ((IMAGES, means.train), (VALIDATION_IMAGES, means.validation)):
            if not has_begun(folder) or not (folder / name).exists():
                files.write_json(folder / name, [round(float(mean), 2) for mean in some])
        if not has_begun(folder) and (skipped or (folder / SKIPPED).exists()):
            files.write_json(folder / SKIPPED, list(skipped))
    for change in write_versions(folder, backend, device_kind):
        logging.warning("%s was %s, is %s", change.field, change.old, change.new)


def check_images(workdir: str | os.PathLike[str], means: Means) -> None:
    """Compares the mean levels of some images with those recorded when the run began.

    Images without a record are not compared.

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
        raise UserError(f"{path}: not a list of images' mean levels; move the file away")
    same = [abs(a - b) <= _SAME_IMAGE for a, b in zip(old, means, strict=False)]
    if len(old) != len(means) or not all(same):
        raise UserError(
            f"data.data_dir: its {what} images are not those that the run was started with "
            f"({same.count(False)} of {len(same)} mean levels differ); use the same images "
            f"or another folder; to continue with these images anyway, remove {path}"
        )


def read_skipped(workdir: str | os.PathLike[str]) -> list[str] | None:
    """Names of the images that a run skips; None if the run has not begun.

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
