"""Configurations of earlier versions, read as this version's.

`config.json` says which version of the fields it is written in. A run that was made before a field
existed behaves as that field's value in `ADDED`: with the value it is read, trained on, evaluated
and reported. What such a run is called must not change either: see `is_as_before`.
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from thermo_ebm.errors import UserError

VERSION = 2  # of the fields; files without a version are of version 1
VERSION_FIELD = "version"  # in config.json, beside the fields

# Fields that came after version 1, and the value by which a run does what it did without them.
ADDED: dict[str, Any] = {}
# Fields that went.
REMOVED: tuple[str, ...] = ()
# A value that went, and what does the same today: {(field, old value): {field: value, ...}}.
REPLACED: dict[tuple[str, Any], dict[str, Any]] = {
    ("loss.schedule", "linear"): {"loss.schedule": "power", "loss.power": 1.0},
}


def upgrade(stored: dict[str, Any], where: str) -> dict[str, Any]:
    """What a `config.json` holds, as the nested fields of this version, without its version.

    Args:
      stored: nested dicts, not changed.
      where: the file, for the message.

    Raises:
      UserError: it is of a later version than this program's, or its version is no number.
    """
    fields = copy.deepcopy(stored)
    version = fields.pop(VERSION_FIELD, 1)
    if not isinstance(version, int):
        raise UserError(f"{where}: its version is {version!r}, not a whole number")
    if version > VERSION:
        raise UserError(
            f"{where}: written by a later version of this program (version {version} of the "
            f"fields, this program knows {VERSION}): update this program"
        )
    if not is_of_a_run(fields):
        return fields
    for field in REMOVED:
        _pop(fields, field)
    for field, value in ADDED.items():
        if _get(fields, field) is None:
            _set(fields, field, value)
    for field, value in _todays_values(fields).items():
        _set(fields, field, value)
    return fields


def is_of_a_run(fields: Mapping[str, Any]) -> bool:
    """Whether nested fields are those of a run, as far as their groups tell."""
    return {"loss", "sampler"} <= fields.keys()


def with_todays_values(config: ConfigDict) -> ConfigDict:
    """An unlocked configuration whose values of earlier versions are those of today, in place."""
    for field, value in _todays_values(config).items():
        config.update_from_flattened_dict({field: value})
    return config


def is_as_before(field: str, value: Any) -> bool:
    """Whether a field came after version 1 and has the value of before.

    Cells of sweeps are named by their other fields, so that a field that is new renames none.
    """
    return field in ADDED and ADDED[field] == value


def _todays_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    todays: dict[str, Any] = {}
    for (field, old), values in REPLACED.items():
        if _get(fields, field) == old:
            todays |= values
    return todays


def _get(fields: Any, field: str) -> Any:
    """A dotted field's value, None where it is not there."""
    for name in field.split("."):
        if not isinstance(fields, Mapping | ConfigDict) or name not in fields:
            return None
        fields = fields[name]
    return fields


def _set(fields: dict[str, Any], field: str, value: Any) -> None:
    """Sets a dotted field; where its group is missing or none, the file is damaged: left alone."""
    *groups, name = field.split(".")
    for group in groups:
        fields = fields.setdefault(group, {})
        if not isinstance(fields, dict):
            return
    fields[name] = copy.copy(value)


def _pop(fields: Any, field: str) -> None:
    *groups, name = field.split(".")
    for group in groups:
        fields = fields.get(group)
        if not isinstance(fields, dict):
            return
    fields.pop(name, None)
