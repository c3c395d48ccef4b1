"""One tidy table of readings, from run folders and from the study's published files alike."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from thermo_ebm.analysis.published import NETWORK, load_published
from thermo_ebm.analysis.runs import Run, load_runs
from thermo_ebm.analysis.settings import Settings
from thermo_ebm.errors import UserError

NETWORK_TITLES = {
    NETWORK: "InceptionV3 (jax-fid)",
    "inception_v3": "InceptionV3",
    "efficientnet_lite0": "EfficientNet-Lite0",
}
METRIC_TITLES = {"kid_inf": "KID∞", "fid_inf": "FID∞", "mifid_inf": "MIFID∞", "is_inf": "IS∞"}
METRIC_TITLES |= {"kid": "KID", "fid": "FID", "kid_rbf_inf": "KID∞ (RBF)", "coverage": "coverage"}
EVERY_EPOCH = (
    *("epoch", "step", "train_loss", "train_grad_mean", "val_loss"),
    *("train_grad_var", "train_grad_var_prior", "train_grad_var_generator"),
)


class Readings(NamedTuple):
    """Everything that a report is made of."""

    frame: pd.DataFrame  # one row a repetition and epoch; columns as in `load`
    temperatures: pd.DataFrame  # last epoch's temperatures.csv of all repetitions; may be empty
    runs: list[Run]  # the run folders read
    notes: list[str]  # what a reader must know of the data, a line each


def load(runs: Path | None, published: Path | None) -> Readings:
    """Reads run folders, the published readings, or both.

    Returns:
      Readings whose frame has the columns of `Settings` (NaN where a setting has no meaning),
      ``cell`` (equal for equal settings), ``run``, ``repetition``, ``seed``, ``num_epochs``,
      ``epoch`` (1-based), the columns of readings.csv, and those of eval.csv
      (``<network>_<metric>``); losses in nats an image.

    Raises:
      UserError: where nothing is asked for, or a folder or file is missing or malformed.
    """
    if runs is None and published is None:
        raise UserError("nothing to report on: give --runs=FOLDER, --readings=FOLDER or both")
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
    """Keeps one of several repetitions with the same settings and seed: they are one draw.

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
            notes.append(f"{name}: settings and seed of {members[0]['run'].iloc[0]}; left out.")
    return frame.drop(index=drop).reset_index(drop=True), notes


def final(frame: pd.DataFrame, epochs: int = 1) -> pd.DataFrame:
    """Returns one row a repetition: its last epoch, or the readings' means over the last ones.

    A reading that is not taken every epoch (a metric, the gradient noise) has its last value there
    is; a loss or gradient statistic that is not finite at the end stays so.
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
        for metric in ("_kid_inf", "_fid_inf"):
            name = column.removesuffix(metric)
            if name != column and not name.endswith("_rbf") and name not in found:
                found.append(name)
    present = [name for name in found if _has_values(frame, name)]
    return sorted(present, key=lambda name: ("inception" not in name, name))


def metric_title(column: str) -> str:
    """Returns the axis title of a metric's column, with the network that made it."""
    for network in sorted(NETWORK_TITLES, key=len, reverse=True):
        if column.startswith(f"{network}_"):
            metric = column.removeprefix(f"{network}_")
            return f"{METRIC_TITLES.get(metric, metric)}, {NETWORK_TITLES[network]}"
    return column


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


def _has_values(frame: pd.DataFrame, network: str) -> bool:
    names = (f"{network}_kid_inf", f"{network}_fid_inf")
    return any(name in frame and bool(frame[name].notna().any()) for name in names)
