"""Simulates how often the interval of +-1.96 standard errors of a metric contains its estimand.

Run by `python -m benchmarks.coverage`. Pairs of sets of features with known moments are
drawn repeatedly. Each pair is measured as evaluations do now ("after") and as an earlier version
did ("before"): one draw per size, the standard error of the line, a jackknife for FID and a
bootstrap for KID.

The estimand: KIDs are unbiased and `fid` depends on its N, so that for them, and in the column
`coverage`, the estimand is the mean over all repeats. `fid_inf` estimates the FID of infinitely
many images, which is known here: the column `of truth` therefore also includes the bias of
`fid_inf`, which no standard error of sampling includes. The rows where evaluations print a note on
this bias (fewer than 3.5 images per feature) are marked by "biased".
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from thermo_ebm.metrics import arrays, extrapolate, fid, kid, standard_errors, subsets
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
_BOOTSTRAP_DRAWS = 100


class Estimate(NamedTuple):
    """A metric of one repeat and its standard error."""

    value: float
    stderr: float


class Row(NamedTuple):
    """A row of the table; spreads are over the repeats."""

    metric: str
    mean: float
    truth: float  # nan where the mean is estimated
    spread_before: float
    spread_after: float
    coverage_before: float
    coverage_after: float
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
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Returns every metric by the earlier procedure and by the present one."""
    design_key, group_key, bootstrap_key = jax.random.split(key, 3)
    features = arrays.feature_pair(real, generated)
    sizes = subsets.extrapolation_sizes(len(real), num_sizes)
    design = extrapolate.make_design(design_key, sizes, len(real), len(generated))
    curves = extrapolate.fid_curves(features, design)
    lines = {
        "fid": extrapolate.half_sample_line(curves, design),
        "kid": extrapolate.kid_lines(features, design)["kid"],
    }
    estimates = {name: line.full for name, line in lines.items()}
    estimates |= {f"{name}_inf": line.intercept for name, line in lines.items()}
    after = {
        name: Estimate(estimate.value, estimate.variance().stderr)
        for name, estimate in estimates.items()
    }
    first = design.averages.argmax(axis=1)  # the first draw of each size
    first_draws = [design.draws[index] for index in first]
    values_of_first_draws = {
        "fid": curves.values[first, 0],
        "kid": kid.subset_distances(features, first_draws, ("polynomial",))["polynomial"].values,
    }
    before = {}
    for name, values in values_of_first_draws.items():
        line = extrapolate.extrapolate(sizes, values)
        before[f"{name}_inf"] = Estimate(line.intercept, line.stderr)
    jackknife_draws = standard_errors.jackknife_draws(group_key, len(real), len(generated))
    replicates = fid.subset_distances(features, jackknife_draws)
    before["fid"] = Estimate(after["fid"].value, standard_errors.jackknife_stderr(replicates))
    before["kid"] = Estimate(after["kid"].value, _bootstrap(bootstrap_key, real, generated))
    return before, after


def _bootstrap(key: jax.Array, real: np.ndarray, generated: np.ndarray) -> float:
    """The earlier `kid_stderr`: a bootstrap over images, without pairs of copies."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    size = real.shape[1]
    matrices = [(x @ y.T / size + 1) ** 3 for x, y in _pairs(real, generated)]
    for matrix in matrices[:2]:
        np.fill_diagonal(matrix, 0.0)
    counts = [
        rng.multinomial(len(side), np.full(len(side), 1 / len(side)), _BOOTSTRAP_DRAWS).astype(
            float
        )
        for side in (real, generated)
    ]
    totals = []
    for matrix, (x, y) in zip(matrices, _pairs(*counts), strict=True):
        sums = np.einsum("bi,bi->b", x @ matrix, y)
        copies = np.sum(x * x, axis=1) if x is y else 0.0
        totals.append(sums / (x.sum(axis=1) * y.sum(axis=1) - copies))
    return float((totals[0] + totals[1] - 2 * totals[2]).std(ddof=1))


def _pairs(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield from ((x, x), (y, y), (x, y))


def simulate(seed: int, case: str, num_images: int, num_features: int, repeats: int) -> list[Row]:
    """Returns a row for each metric of one case."""
    rng = np.random.default_rng([seed, num_images, num_features, *case.encode()])
    estimates, truth = [], np.nan
    for key in jax.random.split(jax.random.key(seed), repeats):
        real, generated, truth = draw_features(rng, num_images, num_features, *CASES[case])
        estimates.append(measure(key, real, generated))
    rows = []
    for metric in METRICS:
        before, after = (
            np.array([repeat[metric] for repeat in procedure]).T
            for procedure in zip(*estimates, strict=True)
        )
        mean = float(after[0].mean())
        of_truth = truth if metric == "fid_inf" else np.nan
        rows.append(
            Row(
                metric,
                mean,
                of_truth,
                float(before[0].std(ddof=1)),
                float(after[0].std(ddof=1)),
                _coverage(before, float(before[0].mean())),
                _coverage(after, mean),
                _coverage(after, of_truth) if metric == "fid_inf" else np.nan,
            )
        )
    return rows


def _coverage(estimates: np.ndarray, target: float) -> float:
    values, stderrs = estimates
    return float(np.mean(np.abs(values - target) <= 1.96 * stderrs))


def print_table(
    seed: int, repeats: int, num_images: Sequence[int], num_features: Sequence[int]
) -> None:
    """Simulates every case at every size and prints each row as soon as it is computed."""
    print(f"{repeats} repeats; sd over them; coverage of +-1.96 standard errors")
    print(
        "    N   D case  metric        mean      truth  sd before   sd after"
        "  coverage before  after  of truth"
    )
    for d, n, case in itertools.product(num_features, num_images, CASES):
        has_note = bias_note(n, d) is not None
        for row in simulate(seed, case, n, d, repeats):
            print(
                f"{n:5d} {d:3d} {case:5s} {row.metric:8s}"
                f" {row.mean:10.4g} {row.truth:10.4g} {row.spread_before:10.3g}"
                f" {row.spread_after:10.3g} {row.coverage_before:16.2f}"
                f" {row.coverage_after:6.2f} {row.coverage_of_truth:9.2f}"
                f"{' biased' if has_note and row.metric == 'fid_inf' else ''}",
                flush=True,
            )
