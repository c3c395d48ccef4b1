"""The run's folder: its lock, its configuration, and the images and versions it was made with.

In this order: `with hold(workdir):`, `check_config`, and `record` once it is known that the run can
go on: what is refused before leaves the record as it was.
"""

import contextlib
import fcntl
import json
import os
import platform
import socket
import time
import tomllib
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError

CONFIG, IMAGES, VERSIONS, LOCK = "config.json", "images.json", "versions.json", ".lock"
_LOCK_TRIES = 5  # a tenth of a second apart
# Of 256 levels. Another decoder moves the mean of a quarter of an image by a tenth; those of two
# photographs are tens apart.
_SAME_IMAGE = 2.0

# What may change when a run goes on: how far, how often and where, never what is computed.
FREE_FIELDS = (
    "num_epochs",
    "num_repetitions",
    "parallel_repetitions",
    "steps_per_dispatch",
    "data.data_dir",
    "sampler.temperature_chunk",
    "checkpoint",
    "divergence",
    "logging",
)
# What never may: checkpoints have its shape, or count their epochs by it.
FIXED_FIELDS = (
    "batch_size",
    "data.channels",
    "data.image_size",
    "data.num_train",
    "model.generator.features",
    "model.generator.kernel_size",
    "model.generator.strides",
    "model.generator.widths",
    "model.latent_dim",
    "model.prior.features",
)
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
ABSENT = "(absent)"


class Difference(NamedTuple):
    """One field that is not what it was."""

    field: str  # dotted, as in --config.loss.power
    old: Any
    new: Any


def repetition_dir(workdir: str | os.PathLike[str], repetition: int) -> Path:
    """Returns the folder of repetition `repetition`, counted from 0; makes nothing."""
    return Path(workdir) / f"rep_{repetition:02d}"


def checkpoints_dir(workdir: str | os.PathLike[str], repetition: int) -> Path:
    """Returns the folder of a repetition's checkpoints; makes nothing."""
    return repetition_dir(workdir, repetition) / "checkpoints"


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Makes the folder if need be and holds its lock; the system releases it if the process dies.

    Raises:
      UserError: another process holds it (named), or it is no folder for a run.
    """
    folder = _run_folder(workdir)
    try:
        file = open(folder / LOCK, "a+", encoding="utf-8")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"--workdir={folder}: cannot be written: {error.strerror}") from error
    with file:
        _lock(file, folder)
        _write_holder(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        try:
            yield
        finally:
            _write_holder(file, "")


def is_held(workdir: str | os.PathLike[str]) -> bool:
    """Whether a process holds the folder's lock now, that is, trains there."""
    try:
        with open(Path(workdir) / LOCK, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        return False
    return False


def check_config(
    workdir: str | os.PathLike[str], config: ConfigDict, allow: Sequence[str] = ()
) -> list[Difference]:
    """Holds `config` against the one the run started with; writes nothing.

    A folder in which no repetition has begun takes any configuration.

    Args:
      workdir: the run's folder.
      config: the whole configuration.
      allow: fields (`loss.power`) or groups of them (`loss`) that may differ, besides FREE_FIELDS.

    Returns:
      The differences accepted.

    Raises:
      UserError: another field differs (a table says which), or one of FIXED_FIELDS; `allow` names a
        field that does not exist; `config.json` is damaged; or the folder is none of a run.
    """
    folder = _run_folder(workdir)
    new = as_json(config)
    found = read_config(folder) if (folder / CONFIG).exists() else None
    begun = found is not None and has_begun(folder)
    if found is not None and not begun and not {"loss", "sampler"} <= found.keys():
        raise UserError(
            f"--workdir={folder}: its {CONFIG} is no run's (its fields: "
            f"{', '.join(list(found)[:3]) or 'none'}); choose another folder"
        )
    old = found if begun else None
    known = set(flatten(new)) | set(flatten(old or {}))
    for name in allow:
        if not any(_covers(name, field) for field in known):
            raise UserError(f"--allow_config_change={name}: there is no such field")
    changed = differences(old, new) if old is not None else []
    allowed = (*FREE_FIELDS, *allow)
    refused = [d for d in changed if not any(_covers(name, d.field) for name in allowed)]
    if refused:
        raise UserError(_refusal(folder, refused))
    if fixed := _fixed(changed):
        raise UserError(
            f"--workdir={folder}: {', '.join(fixed)} cannot change in a run, whose checkpoints and "
            "epochs are made by it; use another folder"
        )
    return changed


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


def has_begun(workdir: str | os.PathLike[str]) -> bool:
    """Whether a repetition has: from then on the configuration binds."""
    return any(Path(workdir).glob("rep_*"))


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


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a run's `config.json` as nested dicts.

    Raises:
      UserError: it is not there, or damaged.
    """
    path = Path(workdir) / CONFIG
    try:
        config = files.read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; {workdir} is no run's folder") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a configuration")
    return config


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Returns the fields of two nested dicts that differ, in the order of their names."""
    before, after = flatten(old), flatten(new)
    return [
        Difference(field, before.get(field, ABSENT), after.get(field, ABSENT))
        for field in sorted(before | after)
        if before.get(field, ABSENT) != after.get(field, ABSENT)
    ]


def as_json(config: ConfigDict) -> dict[str, Any]:
    """Returns the configuration as JSON gives it back: nested dicts, tuples as lists."""
    return json.loads(json.dumps(config.to_dict()))


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


def _run_folder(workdir: str | os.PathLike[str]) -> Path:
    """Makes the folder, or finds it to be empty or a run's. Hidden files do not count."""
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        raise UserError(f"--workdir={folder}: no folder can be made there: {error}") from error
    if names and CONFIG not in names:
        raise UserError(
            f"--workdir={folder}: not empty and no run's (no {CONFIG}); choose another folder"
        )
    return folder


def _lock(file: TextIO, folder: Path) -> None:
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if not tries_left:
                message = f"--workdir={folder}: in use by {_holder(file)}; nothing done"
                raise UserError(message) from error
            time.sleep(0.1)  # `is_held` takes it for a moment
        except OSError as error:  # some network file systems
            logging.warning("%s: this file system has no locks (%s)", folder, error)
            return


def _holder(file: TextIO) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):  # it has only just taken the lock
        return "another process"


def _write_holder(file: TextIO, text: str) -> None:
    """Says who holds the lock. On a full disk it stays unsaid, and the lock holds all the same."""
    with contextlib.suppress(OSError):
        # Not through the file's buffer, which closing it would try to write again.
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), text.encode(), 0)


def is_free(field: str) -> bool:
    """Whether a field may change when a run goes on."""
    return any(_covers(name, field) for name in FREE_FIELDS)


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _covers(name: str, field: str) -> bool:
    return field == name or field.startswith(name + ".")


def _fixed(changed: Sequence[Difference]) -> list[str]:
    """Fields that may not change, but for those that another version did not have."""
    return [d.field for d in changed if d.field in FIXED_FIELDS and ABSENT not in (d.old, d.new)]


def _refusal(folder: Path, refused: list[Difference]) -> str:
    rows = [("field", "in the run", "asked for")]
    rows += [(d.field, _cell(d.old), _cell(d.new)) for d in refused]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = [f"  {field:<{widths[0]}}  {old:<{widths[1]}}  {new}" for field, old, new in rows]
    fixed = _fixed(refused)
    names = ",".join(d.field for d in refused)
    way_on = f"Use another folder, or go on all the same with --allow_config_change={names}"
    if fixed:
        way_on = f"Use another folder: {', '.join(fixed)} cannot change in a run"
    return "\n".join(
        [
            f"--workdir={folder}: the run was started with another configuration:",
            *table,
            way_on,
        ]
    )


def _cell(value: Any) -> str:
    return value if value == ABSENT else json.dumps(value)


def _own_version() -> str:
    try:
        return metadata.version("thermo-ebm")
    except metadata.PackageNotFoundError:  # run from a checkout
        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not project.is_file():
            return ABSENT
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
