"""Tables of a report: every repetition's last epoch, the cells' means, the quadratic fits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial

from study.names import METRIC_TITLES, reading_title, split_metric
from study.readings import final
from study.settings import (
    REGIMES,
    SYMBOLS,
    Settings,
    cells_of,
    group_cells,
    regime,
    short_labels,
)

NUM_RESAMPLES = 2_000
# The first one stands before the metrics.
READING_ORDER = (
    *("train_grad_var", "train_grad_var_prior", "train_grad_var_generator"),
    *("train_grad_noise", "train_grad_noise_prior", "train_grad_noise_generator"),
    *("val_log_likelihood", "train_loss", "val_loss"),
    *("grad_noise", "grad_noise_batch", "grad_noise_mcmc", "grad_noise_relative"),
    *("train_update_noise", "train_grad_signal", "train_noise_scale"),
    *("dial_amplification", "dial_saturated"),
    *("effective_sample_size", "acceptance_prior", "acceptance_posterior"),
    *("swap_rate", "global_barrier"),
    *("skipped_steps", "hours", "images_per_second"),
)


class QuadraticFit(NamedTuple):
    """A quadratic through the cells' means of one regime: metric = c0 + c1 v + c2 v^2."""

    coefficients: np.ndarray  # (c0, c1, c2)
    num_cells: int  # with 3 the curve passes through all means and tests nothing
    r_squared: float
    vertex: float  # the variance over entries at which the metric is least; NaN without a minimum
    low: float  # end of the measured variances
    high: float


def repetitions(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per repetition: settings and the last epoch's readings."""
    last = final(frame)
    if "seconds" in frame:
        hours = frame.groupby(["cell", "run", "repetition"])["seconds"].sum() / 3600.0
        keys = pd.MultiIndex.from_frame(last[["cell", "run", "repetition"]])
        last["hours"] = hours.reindex(keys).to_numpy()
    settings = [name for name in Settings._fields if last[name].notna().any()]
    readings = reading_columns(last)
    return last[[*settings, "repetition", "epoch", *readings]]


def cells_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per cell: settings, repetitions, mean and standard deviation of readings.

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
    """Returns the columns of readings worth a table, the variance over entries and KID first."""
    first = [name for name in READING_ORDER if name in frame]
    metrics = [
        name
        for metric in METRIC_TITLES
        for name in frame.columns
        if (found := split_metric(name)) and found.metric == metric
    ]
    unique = dict.fromkeys([*first[:1], *metrics, *first[1:]])
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
    coefficients = np.zeros(3)
    found = Polynomial.fit(x, y, 2).convert().coef
    coefficients[: len(found)] = found
    residual = y - np.polynomial.polynomial.polyval(x, coefficients)
    total = np.sum((y - y.mean()) ** 2)
    r_squared = float(1.0 - np.sum(residual**2) / total) if total > 0.0 else float("nan")
    opens = coefficients[2] > 0.0
    vertex = float(-coefficients[1] / (2.0 * coefficients[2])) if opens else float("nan")
    return QuadraticFit(coefficients, len(x), r_squared, vertex, float(x.min()), float(x.max()))


def fits_table(frame: pd.DataFrame, metric: str, seed: int = 0) -> pd.DataFrame:
    """Returns one row per regime and variant: its quadratic, and a 95 % interval of its vertex.

    The interval is of a bootstrap over repetitions within cells, among the resamples that have a
    minimum; `share_with_minimum` says how many have one inside the measured variances.
    """
    last = final(frame)
    cells = cells_of(last)
    labels = short_labels(cells)
    rows = []
    for name, _, group in regime_groups(cells):
        pairs = [_finite_pairs(last[last["cell"] == key], metric) for key in group]
        pairs = [pair for pair in pairs if len(pair[0])]  # the others were not evaluated
        fit = quadratic_fit([v.mean() for v, _ in pairs], [m.mean() for _, m in pairs])
        if fit is None:
            continue
        low, high, share = _vertex_interval(pairs, np.random.default_rng(seed))
        if not np.isfinite(fit.vertex):  # an interval of nothing would mislead
            low, high = float("nan"), float("nan")
        row: dict[str, object] = {
            "regime": name,
            "metric": reading_title(metric),
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


def _finite_pairs(rows: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns (variance over entries, metric) of the repetitions that have both."""
    values = rows[["train_grad_var", metric]].to_numpy(float)
    return tuple(values[np.isfinite(values).all(axis=1)].T)


def _vertex_interval(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], generator: np.random.Generator
) -> tuple[float, float, float]:
    """Returns an interval of the vertex, and the share of resamples with a minimum inside."""
    means = []
    for variance, metric in pairs:
        drawn = generator.integers(len(variance), size=(NUM_RESAMPLES, len(variance)))
        means.append((variance[drawn].mean(axis=1), metric[drawn].mean(axis=1)))
    x, y = (np.stack(part, axis=1) for part in zip(*means, strict=True))
    vertices = _vertices(x, y)
    inside = np.mean((vertices > x.min(axis=1)) & (vertices < x.max(axis=1)))
    vertices = vertices[np.isfinite(vertices)]
    if not len(vertices):
        return float("nan"), float("nan"), 0.0
    low, high = np.quantile(vertices, [0.025, 0.975])
    return float(low), float(high), float(inside)


def _vertices(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The minimum of the quadratic through each row's points; NaN where there is none.

    `quadratic_fit` for many rows at once.

    Args:
      x, y: [num_rows, num_cells].
    """
    center, scale = x.mean(axis=1), np.ptp(x, axis=1)
    u = (x - center[:, None]) / scale[:, None]
    design = np.stack([np.ones_like(u), u, u**2], axis=-1)
    _, b, a = (np.linalg.pinv(design) @ y[..., None])[..., 0].T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a > 0.0, center - scale * b / (2.0 * a), np.nan)
