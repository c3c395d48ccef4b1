"""Tables of experiments on the gradient's noise: every cell, and the knobs side by side."""

import numpy as np
import pandas as pd

from study import statistics
from study.claims.noise import NOISE, variant_names
from study.knobs import KNOBS, Family, families
from study.names import LIKELIHOOD
from study.readings import final
from study.settings import cells_of
from study.tables import repetitions

QUALITY = ("kid", "kid_inf", "fid", "fid_inf", "precision", "recall", "coverage")


def quality_table(frame: pd.DataFrame, network: str) -> pd.DataFrame:
    """Returns one row per cell of the experiments on the noise.

    Args:
      frame: the readings of one data set and origin.
      network: the feature network of the metrics.

    Returns:
      Variant, knob, its value (the centre stands once, without a knob), repetitions, and of each
      measure: the mean, the standard deviation over repetitions (n - 1), and, where an evaluation
      has one, the root mean square of its standard error (of the sampling of images or chains).
      Noise per parameter; log-likelihood in nats; hours of training per repetition.
    """
    last = _last(frame)
    if NOISE not in last:
        return pd.DataFrame()
    measures = {NOISE: "noise", LIKELIHOOD: "log_likelihood"}
    measures |= {"effective_sample_size": "ess", "hours": "hours"}
    measures |= {f"{network}_{metric}": metric for metric in QUALITY}
    rows = []
    for family, name in _named(last):
        for knob, key, value in _cells(family):
            part = last[last["cell"] == key]
            row: dict[str, object] = {"variant": name, "knob": knob, "value": value}
            row["repetitions"] = len(part)
            for column, short in measures.items():
                if column in part:
                    row[f"{short}_mean"] = part[column].mean()
                    row[f"{short}_sd"] = part[column].std(ddof=1)
                if f"{column}_stderr" in part:
                    row[f"{short}_stderr"] = float(np.sqrt((part[f"{column}_stderr"] ** 2).mean()))
            rows.append(row)
    return pd.DataFrame(rows)


def knobs_table(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns one row per variant of the loss and knob, and one of all its knobs together.

    Args:
      frame: the readings of one data set and origin.
      metric: the column of the metric that is set against the noise.

    Returns:
      The number of cells; the lowest and highest noise and their ratio; the relative standard
      deviation of the noise over repetitions (root mean square over cells); the time per update of
      the costliest cell over the centre's; the slope of the metric per doubling of the noise with
      its 95 % interval and R^2, of the least-squares line through the cells' means. NaN where two
      cells are all there is.
    """
    last = _last(frame)
    if NOISE not in last or metric not in last:
        return pd.DataFrame()
    rows = []
    for family, name in _named(last):
        levels = {knob: list(cells) for knob, cells in family.levels.items()}
        for knob, cells in {**levels, "all": family.cells}.items():
            parts = [last[last["cell"] == key] for key in cells]
            noise = np.array([part[NOISE].mean() for part in parts])
            spread = [part[NOISE].std(ddof=1) / part[NOISE].mean() for part in parts]
            row: dict[str, object] = {"variant": name, "knob": knob, "cells": len(cells)}
            row |= {"lowest_noise": noise.min(), "highest_noise": noise.max()}
            row |= {"range": noise.max() / noise.min()}
            row |= {"relative_sd": float(np.sqrt(np.mean(np.square(spread))))}
            row |= {"cost": _cost(parts, last[last["cell"] == family.centre])}
            means = np.array([part[metric].mean() for part in parts])
            rows.append(row | _line(np.log2(noise), means))
    return pd.DataFrame(rows)


def _last(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per repetition, with its cell, hours and standard errors."""
    last, table = final(frame), repetitions(frame)
    if "hours" in table:
        last["hours"] = table["hours"].to_numpy()
    return last


def _named(last: pd.DataFrame) -> list[tuple[Family, str]]:
    found = families(cells_of(last))
    return list(zip(found, variant_names(found), strict=True))


def _cells(family: Family) -> list[tuple[str, str, float]]:
    """(knob, cell, value) of every cell, the centre first."""
    rows = [("", family.centre, float("nan"))]
    for knob in KNOBS:
        cells = family.levels.get(knob, {})
        rows += [(knob, key, value) for key, value in cells.items() if key != family.centre]
    return rows


def _cost(parts: list[pd.DataFrame], centre: pd.DataFrame) -> float:
    """The time per update of the costliest cell over that of the centre."""
    if "hours" not in centre or "step" not in centre:
        return float("nan")
    times = [(part["hours"] / part["step"]).mean() for part in [*parts, centre]]
    return float(np.max(times) / times[-1])


def _line(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The line through the cells' means: slope, its interval, R^2."""
    names = ("slope", "ci_low", "ci_high", "r_squared")
    usable = np.isfinite(x) & np.isfinite(y)
    if usable.sum() < 3:
        return dict.fromkeys(names, float("nan"))
    return dict(zip(names, statistics.line(x[usable], y[usable]), strict=True))
