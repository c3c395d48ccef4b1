"""Fields of a configuration by their dotted names, such as `loss.power`."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict


def flatten(nested: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Nested dicts, or a ConfigDict, as one dict with dotted names.

    >>> flatten({"seed": 0, "loss": {"power": 6.0}})
    {'seed': 0, 'loss.power': 6.0}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def get(nested: Any, field: str, default: Any = None) -> Any:
    """A field's value in nested dicts or a ConfigDict; `default` if there is no such field."""
    for name in field.split("."):
        if not isinstance(nested, Mapping | ConfigDict) or name not in nested:
            return default
        nested = nested[name]
    return nested


def put(nested: dict[str, Any], field: str, value: Any) -> None:
    """Sets a field in nested dicts; missing groups are created."""
    *groups, name = field.split(".")
    for group in groups:
        nested = nested.setdefault(group, {})
    nested[name] = value


def remove(nested: dict[str, Any], field: str) -> None:
    """Removes a field from nested dicts, if it exists."""
    group, _, name = field.rpartition(".")
    within = get(nested, group) if group else nested
    if isinstance(within, dict):
        within.pop(name, None)


def nearest(field: str, known: Iterable[str]) -> str:
    """End of a message about an unknown field: a suggestion of the field that may be meant."""
    matches = difflib.get_close_matches(field, list(known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
