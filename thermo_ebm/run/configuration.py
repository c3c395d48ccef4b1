"""The configuration of a run: written, read, and compared with the one requested now."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.fields import (
    FIELDS,
    FIXED,
    FORMER,
    FREE,
    defaults,
    flatten,
    is_within,
    nest,
    unknown,
)
from thermo_ebm.run.layout import CONFIG, has_begun, run_folder

VERSION = 3  # of the fields
VERSION_NAME = "version"  # in config.json, beside the fields
ABSENT = "(absent)"


class Difference(NamedTuple):
    """One field whose value has changed."""

    field: str  # dotted, as in --config.loss.power
    old: Any
    new: Any


def check_config(
    workdir: str | os.PathLike[str],
    config: ConfigDict,
    allow: Sequence[str] = (),
    make_folder: bool = True,
) -> list[Difference]:
    """Compares `config` with the configuration that the run was started with; writes no file.

    A folder in which no repetition has begun takes any configuration.

    Args:
      workdir: the run's folder.
      config: the complete configuration.
      allow: fields (`loss.power`) or groups of them (`loss`) that may differ, besides free ones.
      make_folder: whether to create an absent folder.

    Returns:
      The differences accepted.

    Raises:
      UserError: a field differs that is neither free nor allowed (a table says which), or that may
        never change; `allow` names a field that does not exist; `config.json` is damaged; or the
        folder is not that of a run.
    """
    folder = run_folder(workdir, make_folder)
    for name in allow:
        if not any(is_within(field, name) for field in FIELDS):
            raise UserError(f"allow_config_change={name}: {unknown(name)}")
    if not (folder / CONFIG).exists():
        return []
    old = read_config(folder)
    if not has_begun(folder):
        return []
    changed = differences(old, as_json(config))
    refused = [
        difference
        for difference in changed
        if not is_free(difference.field)
        and not any(is_within(difference.field, name) for name in allow)
    ]
    if refused:
        raise UserError(*_refusal(folder, refused))
    if fixed := _fixed(changed):
        raise UserError(
            f"workdir={folder}: {', '.join(fixed)} cannot change in an existing run, because they "
            "determine its checkpoints and epochs; use another folder"
        )
    return changed


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a run's `config.json` as nested dicts; fields that it does not have get their defaults.

    Raises:
      UserError: it is not there, damaged, not that of a run, or of another version.
    """
    path = Path(workdir) / CONFIG
    try:
        return complete(files.read_json(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; {workdir} is not a run directory") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def complete(stored: Any) -> dict[str, Any]:
    """The content of a `config.json` with the defaults of fields that it does not have.

    Raises:
      ValueError: it is not the configuration of a run, or one of another version.
    """
    if not isinstance(stored, dict) or not all(
        isinstance(stored.get(group), dict) for group in ("loss", "sampler")
    ):
        raise ValueError("not the configuration of a run; choose another folder")
    version = stored.get(VERSION_NAME, VERSION)
    flat = {name: value for name, value in flatten(stored).items() if name != VERSION_NAME}
    if version != VERSION:
        former = "".join(f"; {name} was {FORMER[name]}" for name in flat if name in FORMER)
        raise ValueError(
            f"its fields have version {version!r}, this program reads version {VERSION}{former}"
        )
    return nest(flatten(json.loads(json.dumps(defaults()))) | _former_behaviour(flat) | flat)


def _former_behaviour(flat: dict[str, Any]) -> dict[str, Any]:
    """Values of fields that a run lacks, where the default is not what its version did."""
    changes_noise = flat.get("gradient_noise.amplification", 1) != 1 or flat.get(
        "gradient_noise.target"
    )
    return {"gradient_noise.second_moment": "amplified"} if changes_noise else {}


def write_config(workdir: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """Writes a run's `config.json` from nested dicts, with the version of the fields.

    Raises:
      OSError: it cannot be written.
    """
    content = {VERSION_NAME: VERSION} | fields
    files.write_json(Path(workdir) / CONFIG, content)


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


def is_free(name: str) -> bool:
    """Whether a field may change when a run continues."""
    return name in FIELDS and FIELDS[name].on_resume == FREE


def _fixed(changed: Sequence[Difference]) -> list[str]:
    names = [difference.field for difference in changed]
    return [name for name in names if name in FIELDS and FIELDS[name].on_resume == FIXED]


def _refusal(folder: Path, refused: list[Difference]) -> list[str]:
    """The lines of the message."""
    rows = [("field", "in the run", "asked for")]
    rows += [(field, _cell(old), _cell(new)) for field, old, new in refused]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    table = [f"  {field:<{widths[0]}}  {old:<{widths[1]}}  {new}" for field, old, new in rows]
    names = ",".join(difference.field for difference in refused)
    advice = f"Use another folder, or continue anyway with allow_config_change={names}"
    if fixed := _fixed(refused):
        advice = f"Use another folder: {', '.join(fixed)} cannot change in an existing run"
    first = f"workdir={folder}: the run was started with another configuration:"
    return [first, *table, advice]


def _cell(value: Any) -> str:
    return value if value == ABSENT else json.dumps(value)
