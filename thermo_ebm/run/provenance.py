"""What a run trains with: its configuration, its images, and the versions of all packages.

The order of calls is `with lock.hold(workdir):`, `configuration.check_config`, `check_images`, and
then `record_start` once it is known that the run can continue, so that a refused start leaves the
record unchanged.
"""

import itertools
import os
import platform
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import files, runtime
from thermo_ebm.errors import UserError
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
    MODEL,
    VALIDATION_IMAGES,
    VERSIONS,
    has_begun,
)
from thermo_ebm.run.records import add_changes

# In units of 1 of 256 levels. Another decoder changes the mean of a quarter of an image by a tenth
# of a level; the means of two photographs differ by tens of levels.
_SAME_LEVEL = 2.0
_NUM_SAMPLES = 64  # number of images that identify a data set
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


class ImageLevels(NamedTuple):
    """Mean levels, 0 to 255, that identify a run's images (`mean_levels`)."""

    train: Sequence[float] = ()
    validation: Sequence[float] = ()


def sample_numbers(num: int) -> np.ndarray:
    """The numbers of the images by which a set of `num` images is identified: int [<= 64]."""
    return np.unique(np.linspace(0, num - 1, min(num, _NUM_SAMPLES)).astype(int))


def mean_levels(images: np.ndarray) -> list[float]:
    """Mean levels of the quarters of uint8 [num, size, size, channels], [num * 4 * channels]."""
    half = -(-images.shape[1] // 2)
    sides = (slice(half), slice(-half, None))
    means = np.zeros((len(images), 2, 2, images.shape[-1]), np.float32)
    for row, column in itertools.product(range(2), repeat=2):
        means[:, row, column] = images[:, sides[row], sides[column]].mean(axis=(1, 2))
    return means.ravel().tolist()


def are_same_images(levels: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two lists of mean levels are those of the same images, decoded by any decoder."""
    return len(levels) == len(other) and _num_different(levels, other) == 0


def read_levels(path: Path) -> list[float] | None:
    """Recorded mean levels of a run's images; None if there is no such record.

    Raises:
      UserError: the record is damaged.
    """
    try:
        levels = files.read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(levels, list) or not all(isinstance(level, int | float) for level in levels):
        raise UserError(f"{path}: not a list of images' mean levels; move the file away")
    return levels


def check_images(workdir: str | os.PathLike[str], levels: ImageLevels) -> None:
    """Compares images with those that were recorded when the run began.

    Images without a record are not compared.

    Raises:
      UserError: they differ, or the record is damaged.
    """
    if not has_begun(workdir):
        return
    for name, kind, new in (
        (IMAGES, "training", levels.train),
        (VALIDATION_IMAGES, "validation", levels.validation),
    ):
        path = Path(workdir) / name
        old = read_levels(path)
        if old is not None and not are_same_images(old, new):
            raise UserError(
                f"data.data_dir: its {kind} images are not those that the run was started with "
                f"({_num_different(old, new)} of {min(len(old), len(new))} mean levels differ); "
                "use the same images or another folder; to continue with these images anyway, "
                f"remove {path}"
            )


def source_change(workdir: str | os.PathLike[str], sha256: str) -> str:
    """One line if the source of a run's own networks is not the recorded one, else "".

    Args:
      workdir: the run's folder.
      sha256: of the source that there is now. A run without a record has no other.

    Raises:
      UserError: the record is damaged.
    """
    path = Path(workdir) / MODEL
    try:
        record = files.read_json(path)
    except FileNotFoundError:
        return ""
    if not isinstance(record, dict) or not {"factory", "sha256"} <= record.keys():
        raise UserError(f"{path}: not the record of a run's networks; move the file away")
    if record["sha256"] == sha256:
        return ""
    module = str(record["factory"]).partition(":")[0]
    return (
        f"model.factory={record['factory']}: the source of {module} is not the one that the run "
        f"was started with (SHA-256 {str(record['sha256'])[:12]} then, {sha256[:12]} now)"
    )


def check_source(workdir: str | os.PathLike[str], sha256: str) -> None:
    """Refuses to continue a run with another source of its own networks.

    Raises:
      UserError: it differs, or the record is damaged.
    """
    change = source_change(workdir, sha256) if has_begun(workdir) else ""
    if change:
        raise UserError(
            f"{change}; use the same source or another folder; to continue with this source "
            f"anyway, remove {Path(workdir) / MODEL}"
        )


def _num_different(levels: Sequence[float], other: Sequence[float]) -> int:
    return sum(abs(a - b) > _SAME_LEVEL for a, b in zip(levels, other, strict=False))


class Device(NamedTuple):
    """What a run computes on, as JAX says."""

    backend: str  # `jax.default_backend()`
    kind: str  # `jax.devices()[0].device_kind`


def record_start(
    workdir: str | os.PathLike[str],
    config: ConfigDict,
    levels: ImageLevels,
    device: Device,
    done: tuple[int, int] = (0, 0),
    source: dict[str, str] | None = None,
) -> None:
    """Records what the run trains with from now on, after `check_config` and `check_images`.

    Args:
      workdir: the run's folder.
      config: the complete configuration.
      levels: of the images.
      device: the first device.
      done: epochs and steps that the furthest repetition has done, for the record of changes.
      source: `factory` and `sha256` of own networks, None without them.

    Raises:
      UserError: a file cannot be written, or an existing record is damaged.
    """
    folder, new = Path(workdir), as_json(config)
    old = read_config(folder) if (folder / CONFIG).exists() else None
    with files.clear_errors(folder):
        if old is not None and has_begun(folder):
            # Before the configuration: a start that is killed in between finds the change again.
            add_changes(folder, differences(old, new), *done)
        if old != new:
            # The first file of a new run, which marks the folder as a run directory.
            write_config(folder, new)
        for name, means in ((IMAGES, levels.train), (VALIDATION_IMAGES, levels.validation)):
            if not has_begun(folder) or not (folder / name).exists():
                files.write_json(folder / name, [round(float(mean), 2) for mean in means])
        if source is not None and not (has_begun(folder) and (folder / MODEL).exists()):
            files.write_json(folder / MODEL, source)
    for change in write_versions(folder, device):
        logging.warning("%s was %s, is %s", change.field, change.old, change.new)


def write_versions(workdir: str | os.PathLike[str], device: Device) -> list[Difference]:
    """Writes the versions of Python, packages and project, the device, and the settings of JAX.

    Returns:
      What differs from the run's last start: with another version or device the figures may not
      repeat bit for bit. A damaged file counts as none.
    """
    path = Path(workdir) / VERSIONS
    new = versions() | {"backend": device.backend, "device_kind": device.kind}
    new |= runtime.effective_settings()
    try:
        old = files.read_json(path)
    except (FileNotFoundError, UserError):
        old = new
    changed = differences(old, new) if isinstance(old, dict) else []
    with files.clear_errors(path):
        files.write_json(path, new)
    return changed


def versions() -> dict[str, str]:
    """The versions of Python, of the packages that make the figures, and of this project."""
    installed = {"python": platform.python_version(), "thermo_ebm": _project_version()}
    for package in _PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            installed[package] = ABSENT
    return installed


def _project_version() -> str:
    try:
        return metadata.version("thermo-ebm")
    except metadata.PackageNotFoundError:  # run from a checkout
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not project.is_file():
            return ABSENT
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
