"""Reads run folders: the config, and each repetition's readings, temperatures and evaluations."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from thermo_ebm.analysis.csvfile import check_epochs, read_csv
from thermo_ebm.analysis.settings import RUNS, THERMODYNAMIC, VANILLA, Settings, cell_key
from thermo_ebm.errors import UserError

# Fields that change neither what is computed nor which cell a run belongs to.
IGNORED = (
    *("seed", "num_repetitions", "parallel_repetitions", "steps_per_dispatch", "checkpoint"),
    *("logging", "divergence", "data.name", "data.data_dir", "sampler.temperature_chunk"),
)

FIELDS = {
    "batch_size": "batch_size",
    "posterior_steps": "sampler.posterior.num_steps",
    "prior_steps": "sampler.prior.num_steps",
}
THERMODYNAMIC_FIELDS = {
    "power": "loss.power",
    "schedule": "loss.schedule",
    "num_temperatures": "loss.num_temperatures",
    "kl_weight": "loss.kl_weight",
    "kl_form": "loss.kl_form",
    "quadrature": "loss.quadrature",
    "prior_gradient": "loss.prior_gradient",
    "generator_gradient": "loss.generator_gradient",
}


class Run(NamedTuple):
    """One run folder: its path, its config flattened to dotted names, and its cell."""

    folder: Path
    config: dict[str, Any]
    settings: Settings


class RunReadings(NamedTuple):
    """All runs' readings (an epoch a row), their temperatures, the runs and remarks on them."""

    frame: pd.DataFrame
    temperatures: pd.DataFrame
    runs: list[Run]
    notes: list[str]


def load_runs(folder: Path) -> RunReadings:
    """Reads every run under `folder`.

    Raises:
      UserError: naming the file (and line), for a folder without runs or a malformed file.
    """
    if not folder.is_dir():
        raise UserError(f"--runs={folder}: no such folder")
    runs = _with_other_fields([_load_config(path) for path in sorted(_run_folders(folder))])
    if not runs:
        raise UserError(f"--runs={folder}: holds no run folder (one with a config.json)")
    frames, temperatures, notes = [], [], []
    for run in runs:
        repetitions = sorted(run.folder.glob("rep_[0-9]*/readings.csv"))
        if not repetitions:
            notes.append(f"{run.folder}: no readings yet; left out.")
        for path in repetitions:
            readings, remarks = _load_repetition(run, path)
            frames.append(readings)
            notes += remarks
            temperatures.extend(_load_temperatures(run, path.with_name("temperatures.csv")))
    if not frames:
        raise UserError(f"--runs={folder}: no run has a readings.csv yet; train first")
    frame = pd.concat(frames, ignore_index=True)
    notes += _unfinished(frame)
    parts = pd.concat(temperatures, ignore_index=True) if temperatures else pd.DataFrame()
    return RunReadings(frame, parts, runs, notes)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested config as dotted names: ``{"loss": {"power": 6}}`` as ``loss.power``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = tuple(value) if isinstance(value, list) else value
    return flat


def repetition_of(path: Path) -> int:
    """Returns r of a file in a folder ``rep_<r>``."""
    found = re.fullmatch(r"rep_(\d+)", path.parent.name)
    if found is None:
        raise UserError(f"{path}: its folder is not named rep_<number>; rename or remove it")
    return int(found.group(1))


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yields the outermost folders with a config.json; nothing inside a run is another run."""
    if (folder / "config.json").is_file():
        yield folder
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            yield from _run_folders(child)


def _load_config(folder: Path) -> Run:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}:1: holds no JSON object")
    flat = flatten(config)
    return Run(folder, flat, _settings(path, flat))


def _settings(path: Path, config: Mapping[str, Any]) -> Settings:
    loss = _field(path, config, "loss.name", str)
    if loss not in (VANILLA, THERMODYNAMIC):
        raise UserError(f"{path}: loss.name is {loss!r}, neither vanilla nor thermodynamic")
    values = {name: _field(path, config, field, float) for name, field in FIELDS.items()}
    if loss == THERMODYNAMIC:
        numbers = ("power", "num_temperatures", "kl_weight")
        for name, field in THERMODYNAMIC_FIELDS.items():
            values[name] = _field(path, config, field, float if name in numbers else str)
        if values["schedule"] == "linear":
            values["power"] = 1.0  # the linear schedule is the power schedule at p = 1
        if values["kl_form"] == "none":
            values["kl_weight"] = None
    for name in ("batch_size", "power", "num_temperatures"):
        if values.get(name, 1) <= 0:
            raise UserError(f"{path}: {name} is {values[name]:g}, must be positive")
    dataset = _field(path, config, "data.name", str)
    return Settings(dataset=dataset, origin=RUNS, loss=loss, **values)


def _field(path: Path, config: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in config:
        raise UserError(f"{path}: the field {name} is missing")
    try:
        value = kind(config[name])
        if kind is not str and not math.isfinite(value):
            raise ValueError("not finite")
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: {name} is {config[name]!r}, not a {kind.__name__}") from None
    return value


def _with_other_fields(runs: list[Run]) -> list[Run]:
    """Puts every further field in which the runs of one data set differ into their settings."""
    known = {*FIELDS.values(), *THERMODYNAMIC_FIELDS.values(), "loss.name"}
    result = []
    for run in runs:
        peers = [peer.config for peer in runs if peer.settings.dataset == run.settings.dataset]
        parts = []
        for name, value in sorted(run.config.items()):
            vanilla_loss = name.startswith("loss.") and run.settings.loss == VANILLA
            if name in known or vanilla_loss or _ignored(name):
                continue
            if len({repr(peer[name]) for peer in peers if name in peer}) > 1:
                parts.append(f"{name}={value}")
        result.append(run._replace(settings=run.settings._replace(other="; ".join(parts) or None)))
    return result


def _ignored(name: str) -> bool:
    return any(name == ignored or name.startswith(f"{ignored}.") for ignored in IGNORED)


def _refuse_columns(path: Path, columns: set[str]) -> None:
    if columns:
        raise UserError(f"{path}, line 1: column {min(columns)} has another meaning; remove it")


def _load_repetition(run: Run, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Returns the epochs of one repetition with its run's settings, and remarks on them."""
    readings = read_csv(path, ("epoch", "train_loss", "train_grad_var"), allow_empty=True)
    check_epochs(path, readings, "epoch")
    frame = pd.DataFrame(readings.columns)
    notes: list[str] = []
    evaluations = path.with_name("eval.csv")
    if evaluations.is_file():
        table = read_csv(evaluations, ("epoch",), allow_empty=True)
        check_epochs(evaluations, table, "epoch", repeats=True)  # checkpoints within an epoch
        metrics = pd.DataFrame(table.columns).drop(columns="step", errors="ignore")
        _refuse_columns(evaluations, set(metrics) & set(frame) - {"epoch"})
        notes = _old_evaluations(path.parent, metrics, frame["epoch"].max())
        frame = frame.merge(metrics.drop_duplicates("epoch", keep="last"), on="epoch", how="left")
    repetition = repetition_of(path)
    constant: dict[str, Any] = run.settings._asdict()
    constant |= {"cell": cell_key(run.settings), "run": str(run.folder), "repetition": repetition}
    _refuse_columns(path, set(constant) & set(frame))
    source = run.folder / "config.json"
    constant["seed"] = _field(source, {"seed": 0} | run.config, "seed", float) + repetition
    if "num_epochs" in run.config:
        constant["num_epochs"] = _field(source, run.config, "num_epochs", float)
    else:
        constant["num_epochs"] = float("nan")
    if "seconds" in frame:
        # Repetitions that train in one program each record the time of all of them.
        counts = {"parallel_repetitions": 1, "num_repetitions": 1} | run.config
        fields = ("parallel_repetitions", "num_repetitions")
        together = min(_field(source, counts, name, float) for name in fields)
        frame["seconds"] /= max(together, 1)
    return pd.concat([frame, pd.DataFrame([constant] * len(frame))], axis=1), notes


def _old_evaluations(folder: Path, metrics: pd.DataFrame, last: float) -> list[str]:
    """Remarks on metrics that stand beside the variance of a later epoch than their own."""
    names = [name for name in metrics.columns if name != "epoch"]
    newest = {metrics.loc[metrics[name].notna(), "epoch"].max() for name in names}
    return [
        f"{folder}: metrics of epoch {epoch:g} beside the readings of epoch {last:g}."
        for epoch in sorted(epoch for epoch in newest if epoch < last)
    ]


def _load_temperatures(run: Run, path: Path) -> list[pd.DataFrame]:
    if not path.is_file():
        return []
    required = ("epoch", "index", "temperature", "expected_log_likelihood")
    table = read_csv(path, (*required, "kl_forward", "kl_backward"), allow_empty=True)
    frame = pd.DataFrame(table.columns)
    check_epochs(path, table, "epoch", repeats=True)
    frame = frame[frame["epoch"] == frame["epoch"].max()]
    return [frame.assign(cell=cell_key(run.settings), repetition=repetition_of(path))]


def _unfinished(frame: pd.DataFrame) -> list[str]:
    notes = []
    for (run, repetition), rows in frame.groupby(["run", "repetition"]):
        trained = rows.loc[rows["train_loss"].notna(), "epoch"].max()
        planned = rows["num_epochs"].iloc[0]
        if trained < planned:
            notes.append(f"{run}/rep_{repetition:02d}: {trained:g} of {planned:g} epochs done.")
    return notes
