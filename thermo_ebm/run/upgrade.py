"""Configurations of earlier versions, read as this version's.

`config.json` says which version of the fields it is written in. A run that was made before a field
existed behaves as that field's value in `ADDED`: with the value it is read, trained on, evaluated
and reported. Nor does the name of a sweep's cell change by it: see `is_as_before`.
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from thermo_ebm import fields
from thermo_ebm.errors import UserError

VERSION = 2  # of the fields; files without a version are of version 1
VERSION_FIELD = "version"  # in config.json, beside the fields

# Fields that came after version 1, and the value by which a run does what it did without them.
ADDED: dict[str, Any] = {
    "data.skip_unreadable": False,
    "data.streaming": False,
    "model.prior.activation": "leaky_relu",
    "sampler.prior.kernel": "ula",
    "sampler.posterior.kernel": "ula",
    "sampler.chains_per_image": 1,
    "sampler.exchange_every": 0,
    "sampler.image_chunk": 0,
    "loss.final_power": 1.0,
    "loss.anneal_epochs": 50,
    "loss.correction": "pooled_gaussian",
    "dial.amplification": 1.0,
    "dial.accumulate": 1,
    "dial.target_noise": 0.0,
    "dial.max_amplification": 64.0,
    "evaluation.likelihood.every_epochs": 0,
    "evaluation.likelihood.num_images": 64,
    "evaluation.likelihood.num_temperatures": 24,
    "evaluation.likelihood.chains_per_image": 8,
    "evaluation.likelihood.steps_per_temperature": 10,
    "evaluation.likelihood.prior_steps": 100,
}
# Fields that went.
REMOVED: tuple[str, ...] = ("sampler.temperature_chunk",)
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
      UserError: it is of a later version than this program's, its version is not a number, or a
        group of fields is none.
    """
    nested = copy.deepcopy(stored)
    version = nested.pop(VERSION_FIELD, 1)
    if not isinstance(version, int):
        raise UserError(f"{where}: its version is {version!r}, not a whole number")
    if version > VERSION:
        raise UserError(
            f"{where}: written by a later version of this program (version {version} of the "
            f"fields, this program knows {VERSION}): update this program"
        )
    if not is_of_a_run(nested):
        return nested
    flat = fields.flatten(nested)
    added = {field: value for field, value in ADDED.items() if field not in flat}
    for field in REMOVED:
        fields.remove(nested, field)
    for field, value in (added | _todays_values(nested)).items():
        group = field.rpartition(".")[0]
        if not isinstance(fields.get(nested, group, {}), dict):
            raise UserError(f"{where}: {group} is not a group of fields")
        fields.put(nested, field, copy.copy(value))
    return nested


def is_of_a_run(stored: Mapping[str, Any]) -> bool:
    """Whether nested dicts are the fields of a run, as far as their groups tell."""
    return all(isinstance(stored.get(group), dict) for group in ("loss", "sampler"))


def with_todays_values(config: ConfigDict) -> ConfigDict:
    """An unlocked configuration whose values of earlier versions are those of today, in place."""
    config.update_from_flattened_dict(_todays_values(config))
    return config


def is_as_before(field: str, value: Any) -> bool:
    """Whether a field came after version 1 and has the value of before.

    Cells of sweeps are named by their other fields, so that a field that is new renames none.
    """
    return field in ADDED and ADDED[field] == value


def _todays_values(nested: Any) -> dict[str, Any]:
    """What is to be set in nested dicts or a ConfigDict, by field."""
    todays: dict[str, Any] = {}
    for (field, old), values in REPLACED.items():
        if fields.get(nested, field) == old:
            todays |= values
    return todays
