"""Summaries of tables of a held-out likelihood: means, the bidirectional gap, detection."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from thermo_ebm.evaluation.likelihood_files import Row
from thermo_ebm.metrics.detection import Detection, detection


class Mean(NamedTuple):
    """Means over images, in nats per image."""

    num_images: int
    log_likelihood: float
    low: float  # the ends of the mean's 95 % interval, from the spread over images
    high: float
    bits_per_dim: float
    stderr: float  # standard error of the estimate for the given images
    least_effective_sample_size: float


def mean(rows: list[Row]) -> Mean:
    """The mean log-likelihood of a table, at least 2 rows."""
    values, errors, sizes, bits = (
        _column(rows, name)
        for name in ("log_likelihood", "stderr", "effective_sample_size", "bits_per_dim")
    )
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return Mean(
        num_images=len(values),
        log_likelihood=float(values.mean()),
        low=float(values.mean() - half),
        high=float(values.mean() + half),
        bits_per_dim=float(bits.mean()),
        stderr=float(np.sqrt((errors**2).sum()) / len(errors)),
        least_effective_sample_size=float(sizes.min()),
    )


class Gap(NamedTuple):
    """Means over simulated images, in nats per image."""

    num_images: int
    lower: float
    log_likelihood: float
    upper: float
    gap: float  # upper - lower
    gap_stderr: float  # over images


def gap(rows: list[Row]) -> Gap:
    """The bidirectional gap of a table of simulated images, at least 2 rows."""
    lower, value, upper = (_column(rows, name) for name in ("lower", "log_likelihood", "upper"))
    apart = upper - lower
    error = float(apart.std(ddof=1) / math.sqrt(len(rows)))
    return Gap(
        num_images=len(rows),
        lower=float(lower.mean()),
        log_likelihood=float(value.mean()),
        upper=float(upper.mean()),
        gap=float(apart.mean()),
        gap_stderr=error,
    )


# Higher for images that are unlike the model's: name -> a table's rows -> [num].
SCORES: Mapping[str, Callable[[list[Row]], np.ndarray]] = {
    "log_likelihood": lambda rows: -_column(rows, "log_likelihood"),
    "tilt": lambda rows: -_column(rows, "tilt"),
    "pang": lambda rows: (
        _column(rows, "reconstruction") - _column(rows, "tilt") + _column(rows, "norm")
    ),
}


def detections(inliers: list[Row], outliers: list[Row], seed: int = 0) -> dict[str, Detection]:
    """How well each of `SCORES` tells the outliers apart."""
    return {
        name: detection(score(inliers), score(outliers), seed) for name, score in SCORES.items()
    }


def _column(rows: list[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], np.float64)
