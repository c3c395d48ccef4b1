"""Reads run folders: readings, temperatures and evaluations of each repetition by epoch."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from study.changes import describe_change, mixing
from study.run_settings import Run, number_field, read_runs
from study.settings import cell_key
from thermo_ebm.errors import UserError
from thermo_ebm.run.csvfile import check_epochs, read_csv
from thermo_ebm.run.layout import CHANGES, CONFIG


class RunReadings(NamedTuple):
    """All runs' readings (one row per epoch), their temperatures, the runs and remarks on them."""

    frame: pd.DataFrame
    temperatures: pd.DataFrame
    runs: list[Run]
    notes: list[str]


def load_runs(folder: Path) -> RunReadings:
    """Reads every run under `folder`.

    A run whose configuration changed while it trained belongs to no one setting: it is left out of
    the readings, with a note, and stays among the runs.

    Raises:
      UserError: naming the file (and line), for a folder without runs or a malformed file.
    """
    if not folder.is_dir():
        raise UserError(f"runs={folder}: no such folder")
    runs = read_runs(sorted(_run_folders(folder)))
    if not runs:
        raise UserError(f"runs={folder}: holds no run directory (one with a {CONFIG})")
    frames, temperatures, notes = [], [], []
    for run in runs:
        if mixed := mixing(run.changes):
            described = "; ".join(describe_change(change) for change in mixed)
            notes.append(f"{run.folder}: left out: its configuration changed ({described}).")
            continue
        repetitions = sorted(run.folder.glob("rep_[0-9]*/readings.csv"))
        if not repetitions:
            notes.append(f"{run.folder}: left out: it has no readings yet.")
        for path in repetitions:
            readings, remarks = _load_repetition(run, path)
            frames.append(readings)
            notes += remarks
            temperatures.extend(_load_temperatures(run, path.with_name("temperatures.csv")))
    if not frames:
        raise UserError(f"runs={folder}: {_nothing_left(runs)}")
    frame = pd.concat(frames, ignore_index=True)
    notes += _unfinished(frame)
    parts = pd.concat(temperatures, ignore_index=True) if temperatures else pd.DataFrame()
    return RunReadings(frame, parts, runs, notes)


def repetition_of(path: Path) -> int:
    """Returns r of a file in a folder ``rep_<r>``."""
    found = re.fullmatch(r"rep_(\d+)", path.parent.name)
    if found is None:
        raise UserError(f"{path}: its folder is not named rep_<number>; rename or remove it")
    return int(found.group(1))


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yields the outermost folders with a config.json; nothing inside a run is another run."""
    if (folder / CONFIG).is_file():
        yield folder
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            yield from _run_folders(child)


def _nothing_left(runs: list[Run]) -> str:
    if any(mixing(run.changes) for run in runs):
        return (
            f"the configuration of every run with readings changed during training; see {CHANGES}"
        )
    return "no run has a readings.csv yet; train first"


def _refuse_columns(path: Path, columns: set[str]) -> None:
    if columns:
        raise UserError(
            f"{path}, line 1: the column {min(columns)} has another meaning; rename or remove it"
        )


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
    constant: dict[str, Any] = run.settings._asdict()
    repetition = repetition_of(path)
    constant |= {"cell": cell_key(run.settings), "run": str(run.folder), "repetition": repetition}
    _refuse_columns(path, set(constant) & set(frame))
    constant["seed"] = number_field(run, "seed", 0.0) + repetition
    has_plan = "num_epochs" in run.config
    constant["num_epochs"] = number_field(run, "num_epochs", 0.0) if has_plan else float("nan")
    if "seconds" in frame:
        frame["seconds"] /= _group_sizes(run, repetition, frame)
    return pd.concat([frame, pd.DataFrame([constant] * len(frame))], axis=1), notes


def _group_sizes(run: Run, repetition: int, frame: pd.DataFrame) -> pd.Series:
    """Returns how many repetitions trained together at each epoch; each records the time of all.

    Readings without `group_size` are of an earlier version: the size is that of the repetition's
    group under the run's configuration, and the last group can be smaller.
    """
    together = number_field(run, "parallel_repetitions", 1.0)
    total = number_field(run, "num_repetitions", 1.0)
    together = max(together, 1.0)
    left = total - repetition // together * together
    size = max(min(together, left), 1.0)
    recorded = frame.get("group_size", pd.Series(float("nan"), frame.index))
    return recorded.where(recorded > 0.0, size)


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
    table = read_csv(path, required, allow_empty=True)
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
