"""Tables of a report: every repetition's last epoch, the cells' means, the quadratic fits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from thermo_ebm.analysis.readings import final, metric_title
from thermo_ebm.analysis.settings import (
    REGIMES,
    SYMBOLS,
    Settings,
    cells_of,
    group_cells,
    regime,
    short_labels,
)

NUM_RESAMPLES = 2_000
READING_ORDER = (
    *("train_grad_var", "train_grad_var_prior", "train_grad_var_generator"),
    *("train_loss", "val_loss", "grad_noise", "grad_noise_batch", "grad_noise_mcmc"),
    *("grad_noise_relative", "skipped_steps", "hours", "images_per_second"),
)
METRICS = (
    *("kid_inf", "kid_rbf_inf", "fid_inf", "mifid_inf", "is_inf", "kid", "fid"),
    *("precision", "recall", "density", "coverage"),
)


class QuadraticFit(NamedTuple):
    """A quadratic through the cells' means of one regime: metric = c0 + c1 v + c2 v^2."""

    coefficients: np.ndarray  # (c0, c1, c2)
    num_cells: int  # with 3 the curve passes through all means and tests nothing
    r_squared: float
    vertex: float  # the gradient variance at which the metric is least; NaN without a minimum
    low: float  # end of the measured variances
    high: float


def repetitions(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a repetition: settings and the last epoch's readings."""
    last = final(frame)
    if "seconds" in frame:
        hours = frame.groupby(["cell", "run", "repetition"])["seconds"].sum() / 3600.0
        keys = pd.MultiIndex.from_frame(last[["cell", "run", "repetition"]])
        last["hours"] = hours.reindex(keys).to_numpy()
    settings = [name for name in Settings._fields if last[name].notna().any()]
    readings = reading_columns(last)
    return last[[*settings, "repetition", "epoch", *readings]]


def cells_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a cell: settings, repetitions, mean and standard deviation of readings.

    The standard deviations have n - 1 in the denominator.
    """
    last = repetitions(frame)
    last["cell"] = final(frame)["cell"].to_numpy()
    cells = cells_of(final(frame))
    names = [name for name in Settings._fields if name in last]
    rows = []
    labels = short_labels(cells)
    for key, settings in cells.items():
        part = last[last["cell"] == key]
        row: dict[str, object] = {"cell": labels[key]}
        row |= {name: getattr(settings, name) for name in names}
        row |= {"regime": regime(settings), "repetitions": len(part), "epochs": part["epoch"].max()}
        for name in reading_columns(last):
            row[f"{name}_mean"] = part[name].mean()
            row[f"{name}_sd"] = part[name].std(ddof=1)
        rows.append(row)
    return pd.DataFrame(rows)


def reading_columns(frame: pd.DataFrame) -> list[str]:
    """Returns the columns of readings worth a table, gradient variance and KID first."""
    first = [name for name in READING_ORDER if name in frame]
    metrics = [
        name
        for metric in METRICS
        for name in frame.columns
        if name.endswith(f"_{metric}") and (metric != "kid_inf" or "_rbf_" not in name)
    ]
    unique = list(dict.fromkeys([*first[:1], *metrics, *first[1:]]))
    return [name for name in unique if frame[name].notna().any()]


def regime_groups(cells: dict[str, Settings]) -> list[tuple[str, Settings, dict[str, Settings]]]:
    """Returns (regime, a settings of it, its cells) of each regime of each variant.

    A variant is every setting but the batch size for the vanilla model and all but the power for
    the thermodynamic one: what the paper joins by one curve.
    """
    groups = []
    for name in REGIMES:
        members = {key: s for key, s in cells.items() if regime(s) == name}
        without = ("batch_size",) if name == REGIMES[0] else ("power",)
        groups += [(name, first, group) for first, group in group_cells(members, without)]
    return groups


def quadratic_fit(variance: Sequence[float], metric: Sequence[float]) -> QuadraticFit | None:
    """Fits the quadratic of figures 10 and 11 to the means of cells; None below three cells."""
    x, y = np.asarray(variance, float), np.asarray(metric, float)
    mask = np.isfinite(x) & np.isfinite(y)
    x, y = x[mask], y[mask]
    if len(np.unique(x)) < 3:
        return None
    center, scale = x.mean(), np.ptp(x)
    a, b, c = np.polyfit((x - center) / scale, y, 2)
    coefficients = np.array(
        [c - b * center / scale + a * (center / scale) ** 2, b / scale - 2 * a * center / scale**2,
         a / scale**2]
    )  # fmt: skip
    residual = y - np.polynomial.polynomial.polyval(x, coefficients)
    total = np.sum((y - y.mean()) ** 2)
    r_squared = float(1.0 - np.sum(residual**2) / total) if total > 0.0 else float("nan")
    vertex = float(center - scale * b / (2.0 * a)) if a > 0.0 else float("nan")
    return QuadraticFit(coefficients, len(x), r_squared, vertex, float(x.min()), float(x.max()))


def fits_table(frame: pd.DataFrame, metric: str, seed: int = 0) -> pd.DataFrame:
    """Returns one row a regime and variant: its quadratic, and a 95 % interval of its vertex.

    The interval is of a bootstrap over repetitions within cells, among the resamples that have a
    minimum; `share_with_minimum` says how many have one inside the measured variances.
    """
    last = final(frame)
    cells = cells_of(last)
    labels = short_labels(cells)
    rows = []
    for name, _, group in regime_groups(cells):
        parts = [last[last["cell"] == key] for key in group]
        pairs = [(part["train_grad_var"].to_numpy(float), part[metric].to_numpy(float))
                 for part in parts]  # fmt: skip
        pairs = [pair for pair in pairs if np.isfinite(pair[1]).any()]  # others: not evaluated
        fit = quadratic_fit([v.mean() for v, _ in pairs], [np.nanmean(m) for _, m in pairs])
        if fit is None:
            continue
        low, high, share = _vertex_interval(pairs, np.random.default_rng(seed))
        if not np.isfinite(fit.vertex):  # an interval of nothing would mislead
            low, high = float("nan"), float("nan")
        row: dict[str, object] = {
            "regime": name,
            "metric": metric_title(metric),
            "cells": fit.num_cells,
        }
        row["members"] = "; ".join(labels[key] for key in group)
        row |= {f"c{i}": value for i, value in enumerate(fit.coefficients)}
        row |= {"r_squared": fit.r_squared if fit.num_cells > 3 else float("nan")}
        row |= {"variance_at_minimum": fit.vertex, "ci_low": low, "ci_high": high}
        row |= {"share_with_minimum": share, "lowest_variance": fit.low, "highest": fit.high}
        rows.append(row)
    return pd.DataFrame(rows)


def setting_titles(frame: pd.DataFrame) -> dict[str, str]:
    """Returns short column titles for tables on a page."""
    titles = {name: SYMBOLS.get(name, name) for name in frame.columns}
    for name in frame.columns:
        for suffix, title in (("_mean", "mean"), ("_sd", "sd")):
            if name.endswith(suffix):
                titles[name] = f"{reading_title(name.removesuffix(suffix))}, {title}"
    return titles


def reading_title(name: str) -> str:
    """Returns a reading's name for an axis or a column."""
    titles = {
        "train_grad_var": "gradient variance",
        "train_grad_var_prior": "gradient variance (prior)",
        "train_grad_var_generator": "gradient variance (generator)",
        "train_loss": "training loss (nats)",
        "val_loss": "validation loss (nats)",
        "hours": "training time (h)",
    }
    return titles.get(name) or metric_title(name).replace("_", " ")


def _vertex_interval(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], generator: np.random.Generator
) -> tuple[float, float, float]:
    vertices, inside = [], 0
    for _ in range(NUM_RESAMPLES):
        means = []
        for variance, metric in pairs:
            drawn = generator.integers(len(variance), size=len(variance))
            means.append((variance[drawn].mean(), metric[drawn].mean()))
        fit = quadratic_fit(*zip(*means, strict=True))
        if fit is not None and np.isfinite(fit.vertex):
            vertices.append(fit.vertex)
            inside += fit.low < fit.vertex < fit.high
    if not vertices:
        return float("nan"), float("nan"), 0.0
    low, high = np.quantile(vertices, [0.025, 0.975])
    return float(low), float(high), inside / NUM_RESAMPLES
