"""Tests for a handful of repetitions or cells: contrasts, ordered trends, spreads, regressions.

References: Welch (1947) and Satterthwaite (1946) for contrasts with unequal variances; Jonckheere
(1954) and Terpstra (1952) for ordered alternatives; Brown and Forsythe (1974) for spreads, with the
structural zeros removed as Hines and Hines (2000) do; Holm (1979) for several tests; Tukey (1958)
for the jackknife.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

Array = np.ndarray

CONFIDENCE = 0.95
NUM_PERMUTATIONS = 20_000
NUM_RESAMPLES = 4_999


class Estimate(NamedTuple):
    """An estimate with the two-sided confidence interval and p-value of its difference from 0."""

    value: float
    low: float
    high: float
    p_value: float


def contrast(
    groups: Sequence[Array],
    weights: Sequence[float] | Array,
    null: float = 0.0,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Estimates sum_k w_k mean_k of independent groups with unequal variances.

    The interval and the p-value of its difference from `null` are Student's, with Satterthwaite's
    degrees of freedom; for two groups and weights (-1, 1) this is Welch's t-test.

    Args:
      groups: the readings of each cell, each of shape [num_repetitions >= 2].
      weights: w_k, one per group.
    """
    groups = [_checked(group) for group in groups]
    if len(weights) != len(groups):
        raise ValueError(f"{len(groups)} groups need as many weights, got {len(weights)}")
    value = float(sum(w * g.mean() for w, g in zip(weights, groups, strict=True)))
    shares = np.array(
        [w**2 * g.var(ddof=1) / len(g) for w, g in zip(weights, groups, strict=True)], float
    )
    if shares.sum() == 0.0:  # no spread at all: the estimate is exact
        return Estimate(value, value, value, 0.0 if value != null else 1.0)
    sizes = np.array([len(g) for g in groups])
    freedom = shares.sum() ** 2 / np.sum(shares**2 / (sizes - 1))
    return _student(value, float(np.sqrt(shares.sum())), float(freedom), null, confidence)


def slope_weights(levels: Sequence[float]) -> Array:
    """Returns the weights whose contrast of means is the least-squares slope on log2(level).

    The slope is the average change of the mean when the level doubles.
    """
    x = np.log2(np.asarray(levels, float))
    x = x - x.mean()
    return x / np.sum(x**2)


def jonckheere(groups: Sequence[Array], seed: int = 0) -> tuple[float, float]:
    """The Jonckheere-Terpstra test for a trend over ordered groups.

    Exact where no two readings are equal: under the null hypothesis the statistic is a sum of
    independent Mann-Whitney statistics, each group against all before it. With ties, by
    `NUM_PERMUTATIONS` permutations of the readings.

    Returns:
      The statistic scaled to [-1, 1] (1: every reading is above all of earlier groups; Somers' D)
      and the two-sided p-value.
    """
    groups = [np.asarray(group, float) for group in groups]
    sizes = [len(group) for group in groups]
    values = np.concatenate(groups)
    labels = np.repeat(np.arange(len(groups)), sizes)
    pairs = len(values) ** 2 - sum(n**2 for n in sizes)
    statistic = _concordant(values, labels)
    scaled = 4.0 * statistic / pairs - 1.0
    if len(np.unique(values)) < len(values):
        return scaled, _permuted_p_value(values, labels, statistic, seed)
    pmf = np.ones(1)
    for k in range(1, len(groups)):
        pmf = np.convolve(pmf, mann_whitney_pmf(sum(sizes[:k]), sizes[k]))
    at = round(statistic)
    tail = min(pmf[: at + 1].sum(), pmf[at:].sum())
    return scaled, float(min(1.0, 2.0 * tail))


def mann_whitney_pmf(m: int, n: int) -> Array:
    """Returns the null distribution of Mann and Whitney's U, [m * n + 1].

    Its counts are the coefficients of the Gaussian binomial (m + n choose n)_q, built by factors
    (1 - q^(m+i)) / (1 - q^i).
    """
    counts = np.zeros(m * n + 1)
    counts[0] = 1.0
    for i in range(1, n + 1):
        shift = m + i
        if shift <= m * n:
            counts[shift:] = counts[shift:] - counts[:-shift].copy()
        for start in range(i):
            counts[start::i] = np.cumsum(counts[start::i])
    return counts / counts.sum()


def spread_ratio(first: Sequence[Array], second: Sequence[Array], seed: int = 0) -> Estimate:
    """Compares the spread within cells of two families of cells.

    Args:
      first, second: readings of each cell; pass logarithms for relative spreads.
      seed: of the bootstrap.

    Returns:
      log(sd_first / sd_second), each pooled over its cells; its interval by a bootstrap over
      repetitions within cells; the p-value of Brown and Forsythe's test (Welch's t-test on the
      distances from the cells' medians).
    """
    first, second = [_checked(g) for g in first], [_checked(g) for g in second]
    value = float(np.log(_pooled_sd(first) / _pooled_sd(second)))
    generator = np.random.default_rng(seed)
    upper, lower = (_resampled_log_sd(groups, generator) for groups in (first, second))
    usable = np.isfinite(upper) & np.isfinite(lower)  # a resample can be without any spread
    draws = upper[usable] - lower[usable]
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    test = stats.ttest_ind(_distances(first), _distances(second), equal_var=False)
    return Estimate(value, float(low), float(high), float(test.pvalue))


def difference_between_cells(values: Array, covariate: Array, indicator: Array) -> Estimate:
    """Estimates the difference between two kinds of cells at an equal covariate.

    The coefficient of `indicator` in the least-squares fit of `values` on 1, `covariate` and
    `indicator`. Cells are the units: the error is the jackknife's, which leaves out one cell at a
    time, and Student's t has (number of cells - 3) degrees of freedom. However far the line is from
    the cells' means, and however many repetitions a cell has, is in the scatter between cells.

    Args:
      values, covariate, indicator: one entry per cell, [num_cells]; `indicator` is 0 or 1.

    Raises:
      ValueError: fewer than four cells, or a fit that one cell alone decides (a kind of one cell).
    """
    indicator = np.asarray(indicator, float)
    if len(indicator) < 4 or min(np.sum(indicator == kind) for kind in (0.0, 1.0)) < 2:
        raise ValueError(f"needs at least two cells of each kind, got {indicator.tolist()}")
    design = np.column_stack([np.ones(len(indicator)), covariate, indicator])
    fit = OLS(np.asarray(values, float), design).fit()
    without = [
        OLS(np.delete(values, cell), np.delete(design, cell, axis=0)).fit().params[2]
        for cell in range(len(indicator))
    ]
    cells = len(indicator)
    error = float(np.sqrt((cells - 1) / cells * np.sum((without - np.mean(without)) ** 2)))
    return _student(float(fit.params[2]), error, cells - 3, 0.0, CONFIDENCE)


class FittedLine(NamedTuple):
    """A least-squares line through the means of cells."""

    slope: float
    ci_low: float  # 95 % interval, Student's with num_cells - 2 degrees of freedom
    ci_high: float
    r_squared: float


def line(x: Array, y: Array) -> FittedLine:
    """Fits a line through the means of cells, which are the units; NaN below three cells.

    Args:
      x, y: one entry per cell, [num_cells]; cells that lack one are left out.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    usable = np.isfinite(x) & np.isfinite(y)
    if usable.sum() < 3:
        return FittedLine(*[float("nan")] * 4)
    x, y = x[usable], y[usable]
    fit = OLS(y, np.column_stack([np.ones(len(x)), x])).fit()
    low, high = fit.conf_int(1.0 - CONFIDENCE)[1]
    return FittedLine(float(fit.params[1]), float(low), float(high), float(fit.rsquared))


def holm(p_values: Sequence[float]) -> Array:
    """Returns p-values adjusted by Holm's step-down method, in the order given."""
    if not len(p_values):
        return np.empty(0)
    return multipletests(np.asarray(p_values, float), method="holm")[1]


def _student(value: float, error: float, freedom: float, null: float, level: float) -> Estimate:
    if error == 0.0:
        return Estimate(value, value, value, 0.0 if value != null else 1.0)
    reach = float(stats.t.ppf(0.5 + level / 2.0, freedom)) * error
    p_value = float(2.0 * stats.t.sf(abs(value - null) / error, freedom))
    return Estimate(value, value - reach, value + reach, p_value)


def _checked(group: Array) -> Array:
    group = np.asarray(group, float)
    if group.ndim != 1 or len(group) < 2:
        raise ValueError(f"a cell needs at least two repetitions, got shape {group.shape}")
    return group


def _concordant(values: Array, labels: Array) -> float:
    """Returns the number of pairs from different groups in rising order, ties counting half."""
    signs = (np.sign(values[None, :] - values[:, None]) + 1.0) / 2.0
    return float(np.sum(signs * (labels[:, None] < labels[None, :])))


def _permuted_p_value(values: Array, labels: Array, statistic: float, seed: int) -> float:
    generator = np.random.default_rng(seed)
    draws = np.array(
        [_concordant(generator.permutation(values), labels) for _ in range(NUM_PERMUTATIONS)]
    )
    below = 1 + np.sum(draws <= statistic + 1e-9)
    above = 1 + np.sum(draws >= statistic - 1e-9)
    return float(min(1.0, 2.0 * min(below, above) / (NUM_PERMUTATIONS + 1)))


def _pooled_sd(groups: Sequence[Array]) -> float:
    squares = sum(float(np.sum((g - g.mean()) ** 2)) for g in groups)
    return float(np.sqrt(squares / sum(len(g) - 1 for g in groups)))


def _resampled_log_sd(groups: Sequence[Array], generator: np.random.Generator) -> Array:
    """Returns log pooled standard deviations of bootstrap samples, [NUM_RESAMPLES]."""
    squares = np.zeros(NUM_RESAMPLES)
    for group in groups:
        drawn = group[generator.integers(len(group), size=(NUM_RESAMPLES, len(group)))]
        squares += drawn.var(axis=1, ddof=1) * (len(group) - 1)
    with np.errstate(divide="ignore"):
        return 0.5 * np.log(squares / sum(len(g) - 1 for g in groups))


def _distances(groups: Sequence[Array]) -> Array:
    """Distances from the cells' medians, without the zero that an odd cell always has."""
    parts = []
    for group in groups:
        distances = np.sort(np.abs(group - np.median(group)))
        parts.append(distances[1:] if len(group) % 2 else distances)
    return np.concatenate(parts)
