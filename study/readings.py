"""One tidy table of readings, from run folders and from the study's published files alike."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from study.names import split_metric
from study.published import load_published
from study.run_settings import Run
from study.runs import load_runs
from study.settings import Settings
from thermo_ebm.errors import UserError

EVERY_EPOCH = (
    *("epoch", "step", "train_loss", "train_grad_mean", "val_loss"),
    *("train_grad_var", "train_grad_var_prior", "train_grad_var_generator"),
)


class Readings(NamedTuple):
    """Everything that a report is made of."""

    frame: pd.DataFrame  # one row per repetition and epoch; columns as in `load`
    temperatures: pd.DataFrame  # last epoch's temperatures.csv of all repetitions; may be empty
    runs: list[Run]  # the run folders read
    notes: list[str]  # what a reader must know of the data, one line each


def load(runs: Path | None, published: Path | None) -> Readings:
    """Reads run folders, the published readings, or both.

    Returns:
      Readings whose frame has the columns of `Settings` (NaN where a setting has no meaning),
      ``cell`` (equal for equal settings), ``run``, ``repetition``, ``seed``, ``num_epochs``,
      ``epoch`` (from 1), the columns of readings.csv, and those of eval.csv
      (``<network>_<metric>``); losses in nats per image.

    Raises:
      UserError: where nothing is asked for, or a folder or file is missing or malformed.
    """
    if runs is None and published is None:
        raise UserError("nothing to report on: give runs, readings or both")
    frames, temperatures, folders, notes = [], pd.DataFrame(), [], []
    if runs is not None:
        own = load_runs(runs)
        frame, doubled = drop_doubled(own.frame)
        frames.append(frame)
        temperatures, folders, notes = own.temperatures, own.runs, own.notes + doubled
    if published is not None:
        frames.append(load_published(published))
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return Readings(_drop_empty(frame), temperatures, folders, notes)


def drop_doubled(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keeps one of several repetitions with the same images, settings and seed: they are one draw.

    Returns the rows kept (of the repetition with most epochs) and a note for each one dropped.
    """
    notes, drop = [], []
    for _, rows in frame.groupby(["cell", "seed"], sort=False):
        members = [part for _, part in rows.groupby(["run", "repetition"])]
        if len(members) < 2:
            continue
        members.sort(key=len, reverse=True)
        for part in members[1:]:
            drop.extend(part.index)
            name = f"{part['run'].iloc[0]}/rep_{part['repetition'].iloc[0]:02d}"
            kept = members[0]["run"].iloc[0]
            notes.append(f"{name}: left out: it repeats the settings and the seed of {kept}.")
    return frame.drop(index=drop).reset_index(drop=True), notes


def final(frame: pd.DataFrame, epochs: int = 1) -> pd.DataFrame:
    """Returns one row per repetition: its last epoch, or the readings' means over the last ones.

    A reading that is not taken every epoch (a metric, the gradient noise) keeps its newest value; a
    loss or gradient statistic that is not finite at the end stays so.
    """
    keys = ["cell", "run", "repetition"]
    groups = frame.sort_values([*keys, "epoch"], kind="stable").groupby(keys, sort=False)
    last = groups.tail(1).reset_index(drop=True)
    for name in frame.columns:
        if name not in EVERY_EPOCH and name not in Settings._fields and name not in keys:
            last[name] = groups[name].last().to_numpy()
    if epochs > 1:
        fixed = {*Settings._fields, *keys, "seed", "num_epochs", "epoch", "step"}
        names = [name for name in frame.columns if name not in fixed]
        ends = groups["epoch"].transform("max")
        recent = frame[frame["epoch"] > ends.reindex(frame.index) - epochs]
        means = recent.groupby(keys)[names].mean()
        last[names] = means.reindex(pd.MultiIndex.from_frame(last[keys])).to_numpy()
    return last


def networks(frame: pd.DataFrame) -> list[str]:
    """Returns the feature networks that the readings hold a KID or FID of, InceptionV3 first."""
    found = []
    for column in frame.columns:
        name = split_metric(column)
        if name and name.metric in ("kid_inf", "fid_inf") and frame[column].notna().any():
            found.append(name.network)
    return sorted(set(found), key=lambda name: ("inception" not in name, name))


def sections(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Returns the (data set, origin) pairs of a frame, sorted: a report has a part for each."""
    pairs = frame[["dataset", "origin"]].drop_duplicates().itertuples(index=False)
    return sorted((str(dataset), str(origin)) for dataset, origin in pairs)


def section(frame: pd.DataFrame, dataset: str, origin: str) -> pd.DataFrame:
    """Returns the rows of one data set and origin, without columns that hold nothing there."""
    rows = frame[(frame["dataset"] == dataset) & (frame["origin"] == origin)]
    return _drop_empty(rows.reset_index(drop=True))


def _drop_empty(frame: pd.DataFrame) -> pd.DataFrame:
    """Drops columns without any value, except those of the settings, which are always there."""
    keep = {*Settings._fields, "cell", "run", "repetition", "seed", "num_epochs", "epoch"}
    empty = [name for name in frame.columns if name not in keep and frame[name].isna().all()]
    return frame.drop(columns=empty)
