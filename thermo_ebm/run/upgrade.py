"""Configurations of earlier versions, read as this version's.

`config.json` contains the version of its fields. A run that was made before a field existed is
read, continued, evaluated and reported with the value of that field in `ADDED`, with which it
behaves as before. This value does not change the name of a sweep's cell: see `is_as_before`.
"""

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from thermo_ebm import fields
from thermo_ebm.errors import UserError

VERSION = 2  # version of the fields; files without a version have version 1
VERSION_FIELD = "version"  # in config.json, beside the fields

# Fields added after version 1, with the values at which a run behaves as it did without them.
ADDED: dict[str, Any] = {
    "data.skip_unreadable": False,
    "data.streaming": False,
    "logging.writers": ["csv", "tensorboard"],
    "model.prior.activation": "leaky_relu",
    "sampler.prior.kernel": "ula",
    "sampler.posterior.kernel": "ula",
    "sampler.chains_per_image": 1,
    "sampler.exchange_every": 0,
    "sampler.image_chunk": 0,
    "sampler.chain_chunk": 0,
    "loss.final_power": 1.0,
    "loss.anneal_epochs": 50,
    "loss.correction": "pooled_gaussian",
    "gradient_noise.amplification": 1.0,
    "gradient_noise.accumulate": 1,
    "gradient_noise.target": 0.0,
    "evaluation.likelihood.every_epochs": 0,
}
# Fields that were removed, and the fields that took their place.
REMOVED: dict[str, str] = {
    "sampler.temperature_chunk": "sampler.image_chunk",
    "logging.tensorboard": "logging.writers",
}
# Removed values and their present equivalents: {(field, old value): {field: value, ...}}.
REPLACED: dict[tuple[str, Any], dict[str, Any]] = {
    ("loss.schedule", "linear"): {"loss.schedule": "power", "loss.power": 1.0},
    ("logging.tensorboard", False): {"logging.writers": ["csv"]},
}


def upgrade(stored: dict[str, Any], where: str) -> dict[str, Any]:
    """The content of a `config.json` as nested fields of this version, without the version number.

    Args:
      stored: nested dicts, not changed.
      where: the file, for the message.

    Raises:
      UserError: the file has a later version than this program, its version is not a number, or a
        group of fields is not a dict.
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
    added |= _todays_values(nested)
    for field in REMOVED:
        fields.remove(nested, field)
    for field, value in added.items():
        group = field.rpartition(".")[0]
        if not isinstance(fields.get(nested, group, {}), dict):
            raise UserError(f"{where}: {group} is not a group of fields")
        fields.put(nested, field, copy.copy(value))
    return nested


def is_of_a_run(stored: Mapping[str, Any]) -> bool:
    """Whether nested dicts are the fields of a run, judged by their groups."""
    return all(isinstance(stored.get(group), dict) for group in ("loss", "sampler"))


def with_todays_values(config: ConfigDict) -> ConfigDict:
    """Replaces values of earlier versions by present ones, in an unlocked configuration."""
    config.update_from_flattened_dict(_todays_values(config))
    return config


def is_as_before(field: str, value: Any) -> bool:
    """Whether a field was added after version 1 and has the value with which nothing changes.

    Cells of sweeps are named by all other fields, so that a new field renames no cell.
    """
    return field in ADDED and ADDED[field] == value


def _todays_values(nested: Any) -> dict[str, Any]:
    """The values to be set in nested dicts or a ConfigDict, by field."""
    todays: dict[str, Any] = {}
    for (field, old), values in REPLACED.items():
        if fields.get(nested, field) == old:
            todays |= values
    return todays
