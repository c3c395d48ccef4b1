"""The settings of a run's cell from the run's configuration."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from study.images import label_sources, read_source
from study.settings import RUNS, THERMODYNAMIC, VANILLA, Settings
from thermo_ebm import fields
from thermo_ebm.errors import UserError
from thermo_ebm.fields import flatten
from thermo_ebm.run.changes import Change, read_changes
from thermo_ebm.run.configuration import is_free, read_config
from thermo_ebm.run.layout import CONFIG

# Fields that change neither what is computed nor which cell a run belongs to. The images are
# recognised by their own record, wherever they are stored.
IGNORED = (
    *(n for n in fields.FIELDS if is_free(n) and n != "num_epochs"),
    *("seed", "data.name"),
)

FIELDS = {
    "batch_size": "batch_size",
    "posterior_steps": "sampler.posterior.num_steps",
    "prior_steps": "sampler.prior.num_steps",
}
THERMODYNAMIC_NUMBERS = {
    "power": "loss.power",
    "num_temperatures": "loss.num_temperatures",
    "kl_weight": "loss.kl_weight",
}
THERMODYNAMIC_WORDS = {
    "schedule": "loss.schedule",
    "kl_form": "loss.kl_form",
    "quadrature": "loss.quadrature",
    "prior_gradient": "loss.prior_gradient",
    "generator_gradient": "loss.generator_gradient",
}


class Run(NamedTuple):
    """One run folder: its path, its config flattened to dotted names, its cell and its changes."""

    folder: Path
    config: dict[str, Any]
    settings: Settings
    changes: list[Change]  # of the configuration, while it trained


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Returns the runs of some folders, each with the settings that tell it from the others.

    Raises:
      UserError: naming the file, for a damaged one or a field without a usable value.
    """
    configs = [flatten(read_config(folder)) for folder in folders]
    pairs = list(zip(folders, configs, strict=True))
    labels = label_sources([read_source(folder, config) for folder, config in pairs])
    runs = [
        Run(folder, config, _settings(folder / CONFIG, config, label), read_changes(folder))
        for (folder, config), label in zip(pairs, labels, strict=True)
    ]
    return _with_other_fields(runs)


def number_field(run: Run, name: str, default: float) -> float:
    """Returns a number of a run's configuration; `default` where the field is not there.

    Raises:
      UserError: naming the file and the field, where it is no finite number.
    """
    return _field(run.folder / CONFIG, {name: default} | run.config, name, float)


def _settings(path: Path, config: Mapping[str, Any], dataset: str) -> Settings:
    _field(path, config, "data.name", str)
    loss = _field(path, config, "loss.name", str)
    if loss not in (VANILLA, THERMODYNAMIC):
        raise UserError(f"{path}: loss.name is {loss!r}, neither vanilla nor thermodynamic")
    values = {name: _field(path, config, field, float) for name, field in FIELDS.items()}
    if loss == THERMODYNAMIC:
        for name, field in THERMODYNAMIC_NUMBERS.items():
            values[name] = _field(path, config, field, float)
        for name, field in THERMODYNAMIC_WORDS.items():
            # A run of a version that had no such choice yet leaves it open.
            values[name] = _field(path, config, field, str) if field in config else None
        if values["kl_form"] == "none":
            values["kl_weight"] = None
    for name in ("batch_size", "power", "num_temperatures"):
        if values.get(name, 1) <= 0:
            raise UserError(f"{path}: {name} is {values[name]:g}, must be positive")
    return Settings(dataset=dataset, origin=RUNS, loss=loss, **values)


def _field(path: Path, config: Mapping[str, Any], name: str, kind: Callable[[Any], Any]) -> Any:
    if name not in config:
        raise UserError(f"{path}: the field {name} is missing; is this a run's configuration?")
    try:
        value = kind(config[name])
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not finite")
    except (TypeError, ValueError, OverflowError):
        expected = "a finite number" if kind is float else "a word"
        raise UserError(f"{path}: {name} is {config[name]!r}, not {expected}") from None
    return value


def _with_other_fields(runs: list[Run]) -> list[Run]:
    """Puts every further field in which the runs of one data set differ into their settings."""
    known = {*FIELDS.values(), *THERMODYNAMIC_NUMBERS.values(), *THERMODYNAMIC_WORDS.values()}
    result = []
    for run in runs:
        peers = [peer.config for peer in runs if peer.settings.dataset == run.settings.dataset]
        follows = ("num_epochs",) if _have_equal_updates(peers) else ()
        parts = []
        for name, value in sorted(run.config.items()):
            vanilla_loss = name.startswith("loss.") and run.settings.loss == VANILLA
            if name in (*known, *follows, "loss.name") or vanilla_loss or _ignored(name):
                continue
            if len({repr(peer[name]) for peer in peers if name in peer}) > 1:
                parts.append(f"{name}={value}")
        result.append(run._replace(settings=run.settings._replace(other="; ".join(parts) or None)))
    return result


def _have_equal_updates(configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all runs are planned with the same number of updates.

    Their numbers of epochs then follow from their batches and are no setting of their own.
    """
    found = set()
    for config in configs:
        try:
            images = config["batch_size"] * config.get("dial.accumulate", 1)
            found.add(config["num_epochs"] * (config["data.num_train"] // images))
        except (KeyError, TypeError, ZeroDivisionError):  # of an earlier version
            return False
    return len(found) == 1


def _ignored(name: str) -> bool:
    return any(name == ignored or name.startswith(f"{ignored}.") for ignored in IGNORED)
