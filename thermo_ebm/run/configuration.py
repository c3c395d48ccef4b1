"""The configuration of a run: written, read, and compared with the one requested now."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.fields import flatten
from thermo_ebm.run import upgrade
from thermo_ebm.run.layout import CONFIG, has_begun, run_folder

# Fields that may change when a run continues; none of them changes what is computed.
FREE_FIELDS = (
    "num_epochs",
    "num_repetitions",
    "parallel_repetitions",
    "steps_per_dispatch",
    "data.data_dir",
    "data.skip_unreadable",  # the images that a run leaves out are recorded when it begins
    "data.streaming",
    "sampler.image_chunk",
    "sampler.chain_chunk",
    "checkpoint",
    "divergence",
    "logging",
)
# Fields that may never change: they determine checkpoints' shapes or the steps per epoch.
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
      allow: fields (`loss.power`) or groups of them (`loss`) that may differ, besides FREE_FIELDS.
      make_folder: whether to create an absent folder.

    Returns:
      The differences accepted.

    Raises:
      UserError: another field differs (a table says which), or one of FIXED_FIELDS; `allow` names a
        field that does not exist; `config.json` is damaged; or the folder is not that of a run.
    """
    folder = run_folder(workdir, make_folder)
    new = as_json(config)
    found = read_config(folder) if (folder / CONFIG).exists() else None
    begun = found is not None and has_begun(folder)
    if found is not None and not begun and not upgrade.is_of_a_run(found):
        raise UserError(
            f"workdir={folder}: its {CONFIG} is not that of a run (its fields: "
            f"{', '.join(list(found)[:3]) or 'none'}); choose another folder"
        )
    old = found if begun else None
    known = set(flatten(new)) | set(flatten(old or {}))
    for name in allow:
        if not any(_covers(name, field) for field in known):
            raise UserError(f"allow_config_change={name}: there is no such field")
    changed = differences(old, new) if old is not None else []
    allowed = (*FREE_FIELDS, *allow)
    refused = [d for d in changed if not any(_covers(name, d.field) for name in allowed)]
    if refused:
        raise UserError(_refusal(folder, refused))
    if fixed := _fixed(changed):
        raise UserError(
            f"workdir={folder}: {', '.join(fixed)} cannot change in an existing run, because they "
            "determine its checkpoints and epochs; use another folder"
        )
    return changed


def read_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a run's `config.json` as nested dicts of this version's fields; see `upgrade`.

    Raises:
      UserError: it is not there, damaged, or of a later version.
    """
    path = Path(workdir) / CONFIG
    try:
        config = files.read_json(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; {workdir} is not a run directory") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: not a configuration")
    return upgrade.upgrade(config, str(path))


def write_config(workdir: str | os.PathLike[str], fields: dict[str, Any]) -> None:
    """Writes a run's `config.json` from nested dicts, with the version of the fields.

    Raises:
      OSError: it cannot be written.
    """
    content = {upgrade.VERSION_FIELD: upgrade.VERSION} | fields
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


def is_free(field: str) -> bool:
    """Whether a field may change when a run goes on."""
    return any(_covers(name, field) for name in FREE_FIELDS)


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
    way_on = f"Use another folder, or continue anyway with allow_config_change={names}"
    if fixed:
        way_on = f"Use another folder: {', '.join(fixed)} cannot change in an existing run"
    return "\n".join(
        [
            f"workdir={folder}: the run was started with another configuration:",
            *table,
            way_on,
        ]
    )


def _cell(value: Any) -> str:
    return value if value == ABSENT else json.dumps(value)
