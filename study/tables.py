"""Tables of a report: every repetition's last epoch, the cells' means, the quadratic fits."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.polynomial import Polynomial

from study.cells import SYMBOLS, regime_groups, regimes
from study.readings import Section
from study.titles import reading_columns, reading_title

NUM_RESAMPLES = 2_000


class QuadraticFit(NamedTuple):
    """A quadratic through the cells' means of one regime: metric = c0 + c1 v + c2 v^2."""

    coefficients: np.ndarray  # (c0, c1, c2)
    num_cells: int  # with 3 the curve passes through all means and tests nothing
    r_squared: float
    vertex: float  # the variance over entries at which the metric is least; NaN without a minimum
    low: float  # end of the measured variances
    high: float


def repetitions(section: Section) -> pd.DataFrame:
    """Returns one row per repetition: configuration fields and the last epoch's readings."""
    fields = [name for name in section.cells.columns if section.last[name].notna().any()]
    readings = reading_columns(section.last.columns)
    return section.last[[*fields, "repetition", "epoch", *readings]]


def cells_table(section: Section) -> pd.DataFrame:
    """Returns one row per cell: fields, repetitions, mean and standard deviation of readings.

    The standard deviations have n - 1 in the denominator.
    """
    groups = section.last.groupby("cell", sort=False)
    columns = {
        "regime": regimes(section.cells),
        "repetitions": groups.size(),
        "epochs": groups["epoch"].max(),
    }
    for name in reading_columns(section.last.columns):
        columns |= {f"{name}_mean": groups[name].mean(), f"{name}_sd": groups[name].std()}
    fields = section.cells.dropna(axis="columns", how="all")
    return fields.assign(**columns).rename_axis("cell").reset_index()


def quadratic_fit(variance: Sequence[float], metric: Sequence[float]) -> QuadraticFit | None:
    """Fits the quadratic of figures 10 and 11 to the means of cells; None below three cells."""
    x, y = np.asarray(variance, float), np.asarray(metric, float)
    mask = np.isfinite(x) & np.isfinite(y)
    x, y = x[mask], y[mask]
    if len(np.unique(x)) < 3:
        return None
    coefficients = np.zeros(3)
    fitted = Polynomial.fit(x, y, 2).convert().coef
    coefficients[: len(fitted)] = fitted
    residual = y - np.polynomial.polynomial.polyval(x, coefficients)
    total = np.sum((y - y.mean()) ** 2)
    r_squared = float(1.0 - np.sum(residual**2) / total) if total > 0.0 else float("nan")
    opens = coefficients[2] > 0.0
    vertex = float(-coefficients[1] / (2.0 * coefficients[2])) if opens else float("nan")
    return QuadraticFit(coefficients, len(x), r_squared, vertex, float(x.min()), float(x.max()))


def fits_table(section: Section, metric: str, seed: int = 0) -> pd.DataFrame:
    """Returns one row per regime and variant: its quadratic, and a 95 % interval of its vertex.

    The interval is of a bootstrap over repetitions within cells, among the resamples that have a
    minimum; `share_with_minimum` says how many have one inside the measured variances.
    """
    evaluated = section.last[["cell", "train_grad_var", metric]]
    evaluated = evaluated[np.isfinite(evaluated.drop(columns="cell")).all(axis="columns")]
    rows = []
    for regime, group in regime_groups(section.cells):
        members = evaluated[evaluated["cell"].isin(group.index)].groupby("cell", sort=False)
        means = members.mean()
        fit = quadratic_fit(means["train_grad_var"], means[metric])
        if fit is None:
            continue
        pairs = [part[["train_grad_var", metric]].to_numpy() for _, part in members]
        low, high, share = _vertex_interval(pairs, np.random.default_rng(seed))
        if not np.isfinite(fit.vertex):  # an interval of nothing would mislead
            low, high = float("nan"), float("nan")
        rows.append(
            {
                "regime": regime,
                "metric": reading_title(metric),
                "cells": fit.num_cells,
                "members": "; ".join(group.index),
                **{f"c{i}": value for i, value in enumerate(fit.coefficients)},
                "r_squared": fit.r_squared if fit.num_cells > 3 else float("nan"),
                "variance_at_minimum": fit.vertex,
                "ci_low": low,
                "ci_high": high,
                "share_with_minimum": share,
                "lowest_variance": fit.low,
                "highest": fit.high,
            }
        )
    return pd.DataFrame(rows)


def column_titles(frame: pd.DataFrame) -> dict[str, str]:
    """Returns short column titles for tables on a page."""
    return {
        name: SYMBOLS.get(name, name if "." in name else reading_title(name))
        for name in frame.columns
    }


def _vertex_interval(
    pairs: Sequence[np.ndarray], generator: np.random.Generator
) -> tuple[float, float, float]:
    """Returns an interval of the vertex, and the share of resamples with a minimum inside.

    Args:
      pairs: variance over entries and metric of each cell's repetitions, [num_repetitions, 2].
      generator: of the resamples.
    """
    means = []
    for variance, metric in (part.T for part in pairs):
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
