"""Noise or steps: what each does to the models, from the results of `noise_or_step`.

Cells of one reference (folder) differ from the centre in one thing; their repetitions have its
seeds, so that differences are paired. The p-values of all comparisons of one metric are adjusted by
Holm's method, the intervals are not.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from study import statistics
from study.claims.verdicts import ALPHA
from thermo_ebm import files
from thermo_ebm.errors import UserError

METRICS = {
    "kid": "KID",
    "fid": "FID",
    "log_marginal_likelihood": "held-out log p(x), nats",
    "recall": "recall",
    "density": "density",
}
ARMS = {
    "plain": "noise, steps unchanged",
    "alone": "shorter steps, no noise added",
    "amplified": "both (Adam as published)",
}
CELL = ["amplification", "second_moment", "power", "chains_per_image", "batch_size"]
UNSTABLE = 2.0  # times the centre's mean KID, above which a repetition counts as unstable


class Comparison(NamedTuple):
    """One cell against another, by one metric."""

    reference: str
    cell: str
    against: str
    metric: str
    pairs: int
    difference: float
    low: float  # of the 95 % interval
    high: float
    p_value: float


def load(folders: Sequence[Path]) -> pd.DataFrame:
    """One row per repetition, with the columns `reference`, `cell` (its label) and `unstable`.

    Raises:
      UserError: a folder has no results, or no centre.
    """
    parts = []
    for folder in folders:
        results = [files.read_json(path) for path in sorted(folder.glob("*.json"))]
        if not results:
            raise UserError(f"{folder}: no results; run study.measurements.noise_or_step")
        rows = pd.DataFrame(
            [row | result["cell"] for result in results for row in result["repetitions"]]
        ).assign(reference=folder.name)
        common = rows[CELL].mode().iloc[0]
        rows["cell"] = [_label(row, common) for _, row in rows.iterrows()]
        centre = rows[rows["cell"] == "centre"]
        if centre.empty:
            raise UserError(f"{folder}: the centre, without amplification, is not there yet")
        ends = ~np.isfinite(rows["kid"]) | ~np.isfinite(rows["log_marginal_likelihood"])
        rows["unstable"] = ends | (rows["kid"] > UNSTABLE * centre["kid"].mean())
        rows["unstable"] |= rows["skipped"] > 0
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)


def _label(row: pd.Series, common: pd.Series) -> str:
    """`centre`, `c = 16, noise, steps unchanged`, or the settings that differ from the centre."""
    if row["amplification"] != 1:
        return f"c = {row['amplification']:g}: {ARMS[row['second_moment']]}"
    names = {"power": "p", "chains_per_image": "M", "batch_size": "B"}
    parts = [f"{name} = {row[key]:g}" for key, name in names.items() if row[key] != common[key]]
    return ", ".join(parts) or "centre"


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: means over repetitions, and the noise and step size over the centre's."""
    columns = [*METRICS, "train_update_noise", "train_step_size", "train_step_noise", "seconds"]
    order = ["reference", *CELL, "cell"]
    grouped = frame.groupby(order, sort=True)
    table = grouped[columns].mean().join(grouped["unstable"].agg(["sum", "size"])).reset_index()
    table = table.rename(columns={"sum": "unstable", "size": "repetitions"})
    centres = table[table["cell"] == "centre"].set_index("reference")
    for name in ("train_update_noise", "train_step_size", "train_step_noise"):
        table[f"{name}_ratio"] = table[name] / table["reference"].map(centres[name])
    return table


def comparisons(frame: pd.DataFrame) -> pd.DataFrame:
    """Every cell against the centre, and both against the steps alone, with Holm's p-values."""
    table = pd.DataFrame(list(_comparisons(frame)))
    adjusted = table.groupby("metric")["p_value"].transform(lambda p: statistics.holm(list(p)))
    return table.assign(p_holm=adjusted)


def _comparisons(frame: pd.DataFrame) -> Iterator[Comparison]:
    for reference, rows in frame.groupby("reference"):
        labels = [label for label in rows["cell"].unique() if label != "centre"]
        pairs = [(label, "centre") for label in labels]
        for label in labels:
            alone = label.replace(ARMS["amplified"], ARMS["alone"])
            if alone != label and alone in labels:
                pairs.append((label, alone))
        for label, against in pairs:
            first, second = (
                rows[rows["cell"] == name].set_index("seed") for name in (label, against)
            )
            for metric in METRICS:
                paired = (first[metric] - second[metric]).dropna().to_numpy()
                if len(paired) < 2:
                    continue
                estimate = statistics.contrast([paired], [1.0])
                yield Comparison(str(reference), label, against, metric, len(paired), *estimate)


def verdict(row: pd.Series) -> str:
    """What a comparison shows after Holm's adjustment."""
    if row["p_holm"] >= ALPHA:
        return "undecided"
    return "higher" if row["difference"] > 0 else "lower"
