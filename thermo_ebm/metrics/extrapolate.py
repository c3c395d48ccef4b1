"""Metrics at infinitely many images (Chong & Forsyth 2020): a straight line in 1/N, at 1/N = 0."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thermo_ebm.metrics import checks


class Extrapolation(NamedTuple):
    """The line value = intercept + slope / N."""

    intercept: float  # the metric at infinitely many images
    stderr: float  # standard error of the intercept
    slope: float  # bias times N
    r_squared: float  # share of the values' variance that the line explains; nan if they have none


def extrapolate(
    sizes: Sequence[int] | checks.Array, values: Sequence[float] | checks.Array
) -> Extrapolation:
    """Fits value = intercept + slope / N by least squares.

    The standard error supposes independent errors of equal size. The errors of a metric shrink
    with N and its subsets share images: this error describes the fit, not the sampling of images;
    `summary.summarize` gives the error of the whole procedure.

    Args:
      sizes: [num_sizes], the N, positive; at least three points and two different N.
      values: [num_sizes], the metric at each.

    Raises:
      ValueError: if these conditions do not hold, or a value is not finite.
    """
    n, y = np.asarray(sizes, np.float64), np.asarray(values, np.float64)
    if n.ndim != 1 or n.shape != y.shape or len(n) < 3:
        raise ValueError(
            f"sizes and values must be two lists of at least three, not {n.shape} and {y.shape}"
        )
    if not (np.isfinite(n).all() and np.isfinite(y).all() and (n > 0).all()):
        raise ValueError("sizes must be positive and sizes and values finite")
    if (n == n[0]).all():
        raise ValueError("sizes must not all be the same")
    x = 1.0 / n
    deviation = x - x.mean()
    spread = np.sum(deviation**2)
    slope = np.sum(deviation * (y - y.mean())) / spread
    intercept = y.mean() - slope * x.mean()
    residual = np.sum((y - intercept - slope * x) ** 2)
    total = np.sum((y - y.mean()) ** 2)
    variance = residual / (len(n) - 2) * (1.0 / len(n) + x.mean() ** 2 / spread)
    r_squared = 1.0 - residual / total if total > 0 else np.nan
    return Extrapolation(float(intercept), float(np.sqrt(variance)), float(slope), float(r_squared))


def intercept_weights(sizes: Sequence[int]) -> np.ndarray:
    """Returns w [num_sizes], of sum 1, such that `extrapolate`'s intercept is w . values."""
    x = 1.0 / np.asarray(sizes, np.float64)
    deviation = x - x.mean()
    return 1.0 / len(x) - x.mean() * deviation / np.sum(deviation**2)
