"""Simulates how often the interval of +-1.96 standard errors of a metric contains its estimand.

Run by `python -m benchmarks.coverage`. Pairs of sets of features with known moments are
drawn repeatedly.

The estimand: KIDs are unbiased and `fid` depends on its N, so that for them, and in the column
`coverage`, the estimand is the mean over all repeats. `fid_inf` estimates the FID of infinitely
many images, which is known here: the column `of truth` therefore also includes the bias of
`fid_inf`, which no standard error of sampling includes. The rows where evaluations print a note on
this bias (fewer than 3.5 images per feature) are marked by "biased".
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import arrays, extrapolate, subsets
from thermo_ebm.metrics.summary import bias_note

# Shift, scale, and how fast the spectrum falls: by exp(-7) from the first feature to the last.
CASES = {
    "equal": (0.0, 1.0, 7.0),
    "near": (0.05, 1.05, 7.0),
    "far": (0.5, 1.4, 7.0),
    "flat": (0.05, 1.05, 0.0),
}
NUM_IMAGES, NUM_FEATURES = (400, 1500), (48, 512)
METRICS = ("fid_inf", "fid", "kid_inf", "kid")


class Estimate(NamedTuple):
    """A metric of one repeat and its standard error."""

    value: float
    stderr: float


class Row(NamedTuple):
    """A row of the table; spreads are over the repeats."""

    metric: str
    mean: float
    truth: float  # nan where the mean is estimated
    spread: float
    coverage: float
    coverage_of_truth: float


def draw_features(
    rng: np.random.Generator,
    num_images: int,
    num_features: int,
    shift: float,
    scale: float,
    decay: float = 7.0,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns both sides, float64 [num_images, num_features], and the FID of their distributions.

    Skewed marginals with a spectrum that falls by exp(-decay); the generated side is scaled about
    its mean and then shifted, each by a share of the real side's spread.
    """
    spectrum = np.exp(-decay * np.arange(num_features) / num_features)
    direction = np.full(num_features, num_features**-0.5)
    gap = shift * np.sqrt(np.sum(spectrum**2)) * direction

    def sample() -> np.ndarray:
        return (rng.gamma(4.0, 0.5, (num_images, num_features)) - 2.0) * spectrum

    truth = float(np.sum(gap**2) + (scale - 1) ** 2 * np.sum(spectrum**2))
    return 1.0 + sample(), 1.0 + scale * sample() + gap, truth


def measure(
    key: jax.Array, real: np.ndarray, generated: np.ndarray, num_sizes: int = 10
) -> dict[str, Estimate]:
    """Returns every metric with its standard error."""
    features = arrays.feature_pair(real, generated)
    sizes = subsets.extrapolation_sizes(len(real), num_sizes)
    design = extrapolate.make_design(key, sizes, len(real), len(generated))
    curves = extrapolate.fid_curves(features, design)
    lines = {
        "fid": extrapolate.half_sample_line(curves, design),
        "kid": extrapolate.kid_lines(features, design)["kid"],
    }
    estimates = {name: line.full for name, line in lines.items()}
    estimates |= {f"{name}_inf": line.intercept for name, line in lines.items()}
    return {
        name: Estimate(estimate.value, estimate.variance().stderr)
        for name, estimate in estimates.items()
    }


def simulate(seed: int, case: str, num_images: int, num_features: int, repeats: int) -> list[Row]:
    """Returns a row for each metric of one case."""
    rng = np.random.default_rng([seed, num_images, num_features, *case.encode()])
    repeated, truth = [], np.nan
    for key in jax.random.split(jax.random.key(seed), repeats):
        real, generated, truth = draw_features(rng, num_images, num_features, *CASES[case])
        repeated.append(measure(key, real, generated))
    rows = []
    for metric in METRICS:
        estimates = np.array([estimate[metric] for estimate in repeated]).T
        mean, spread = float(estimates[0].mean()), float(estimates[0].std(ddof=1))
        of_metric = truth if metric == "fid_inf" else np.nan
        of_truth = _coverage(estimates, truth) if metric == "fid_inf" else np.nan
        rows.append(Row(metric, mean, of_metric, spread, _coverage(estimates, mean), of_truth))
    return rows


def _coverage(estimates: np.ndarray, target: float) -> float:
    values, stderrs = estimates
    return float(np.mean(np.abs(values - target) <= 1.96 * stderrs))


def print_table(
    seed: int, repeats: int, num_images: Sequence[int], num_features: Sequence[int]
) -> None:
    """Simulates every case at every size and prints each row as soon as it is computed."""
    print(f"{repeats} repeats; sd over them; coverage of +-1.96 standard errors")
    print("    N   D case  metric        mean      truth         sd  coverage  of truth")
    for d, n, case in itertools.product(num_features, num_images, CASES):
        has_note = bias_note(n, d) is not None
        for row in simulate(seed, case, n, d, repeats):
            print(
                f"{n:5d} {d:3d} {case:5s} {row.metric:8s}"
                f" {row.mean:10.4g} {row.truth:10.4g} {row.spread:10.3g}"
                f" {row.coverage:9.2f} {row.coverage_of_truth:9.2f}"
                f"{' biased' if has_note and row.metric == 'fid_inf' else ''}",
                flush=True,
            )
