"""Is one generator better than another? Differences of metrics with intervals and verdicts.

All sets are measured against the same real images, in the same subsets and groups (`estimates`), so
that what a difference owes to the choice of real images is counted once. The interval is

  difference +- t stderr,

with the quantile t of Student's distribution with the degrees of freedom of the error. Verdicts on
all pairs of sets have, for each metric, a probability of at most 5 % that any of them is wrong
where all sets are equally good (Holm 1979).

An undecided difference of this size would be decided, with a probability of 80 %, where

  |difference| = (t_5% + t_80%) stderr(N),     stderr(N)^2 = linear n/N + quadratic (n/N)^2

for N images a side in place of n. A difference measured by chance is as often too large as too
small, and so is this number: it says what to expect, not what will be.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import scipy.stats

from thermo_ebm.metrics import arrays, subsets, summary
from thermo_ebm.metrics.arrays import Array
from thermo_ebm.metrics.estimates import Estimate
from thermo_ebm.metrics.networks.network import Outputs
from thermo_ebm.metrics.standard_errors import Variance

LEVEL = 0.95  # of the intervals; verdicts are wrong with a probability of at most 1 - LEVEL
_POWER = 0.8  # with which `num_images` images decide a difference
_LARGEST_NUMBER = 1_000_000  # of images that is worth telling
# Columns of `summary.summarize`, by what is better.
LOWER_IS_BETTER = (
    *("fid", "fid_inf", "kid", "kid_inf", "kid_rbf_inf"),
    *("cmmd", "cmmd_published", "mind", "mifid", "mifid_inf"),
)
HIGHER_IS_BETTER = ("is_inf", "precision", "recall", "density", "coverage")

Verdict = Literal["better", "worse", "undecided"]


class MetricDifference(NamedTuple):
    """A metric of the first set minus that of the second."""

    metric: str
    first: str
    second: str
    value: float
    stderr: float
    low: float  # ends of the interval of 95 %
    high: float
    p_value: float  # of no difference, adjusted for all pairs of sets
    verdict: Verdict  # on the first set
    # Of generated images in each set, and as many times more real ones, that would decide an
    # undecided difference; None for a decided one, and beyond a million.
    num_images: int | None


class PairedMetrics(NamedTuple):
    """The metrics of several sets against the same real images, and their differences."""

    values: dict[str, dict[str, float]]  # the columns of `summary.summarize` for each set
    differences: list[MetricDifference]  # of each pair of sets, metric by metric

    def table(self) -> str:
        """Both as text."""
        return "\n\n".join((values_table(self.values), differences_table(self.differences)))


def compare_features(
    real: Array, candidates: Mapping[str, Array], seed: int = 0, num_sizes: int = 10
) -> PairedMetrics:
    """Compares sets of generated images with each other, by their features.

    >>> rng = np.random.default_rng(0)
    >>> real, near, far = rng.normal(size=(3, 200, 8)) + np.array([0, 0.1, 1])[:, None, None]
    >>> result = compare_features(real, {"near": near, "far": far}, num_sizes=4)
    >>> {row.metric: row.verdict for row in result.differences}["fid"]
    'better'

    Args:
      real: of real images, [num_real, num_features].
      candidates: of each set of generated images by its name, [num_generated, num_features]; equal
        numbers, as most metrics depend on them. Rows at the same position may depend on each other
        (common random numbers).
      seed: of the subsets and groups.
      num_sizes: of the extrapolation to infinitely many images, at least 3; 0 for none.

    Raises:
      ValueError: features are not finite matrices of equal widths, the sets have different numbers
        of images, or there are too few images.
    """
    logits = np.zeros((0, 0))
    matrices = {name: np.asarray(matrix) for name, matrix in candidates.items()}
    outputs = {name: Outputs(matrix, logits) for name, matrix in matrices.items()}
    num_images = min([len(real), *map(len, matrices.values())])
    sizes = subsets.extrapolation_sizes(num_images, num_sizes) if num_sizes else ()
    return compare_outputs(jax.random.key(seed), Outputs(np.asarray(real), logits), outputs, sizes)


def compare_outputs(
    key: jax.Array, real: Outputs, candidates: Mapping[str, Outputs], sizes: Sequence[int]
) -> PairedMetrics:
    """Compares sets of generated images by a network's outputs.

    Args:
      key: consumed here.
      real: of the real images.
      candidates: of each set by its name; equal numbers of images.
      sizes: of the extrapolation's subsets; none for no extrapolation.

    Raises:
      ValueError: as `compare_features`.
    """
    numbers = {len(outputs.features) for outputs in candidates.values()}
    if len(numbers) != 1:
        raise ValueError(
            f"the sets must have equal numbers of images, not {sorted(numbers) or 'none'}"
        )
    for outputs in candidates.values():
        arrays.feature_pair(real.features, outputs.features, summary.MIN_IMAGES)
    (num_generated,) = numbers
    draws = summary.make_draws(key, sizes, len(real.features), num_generated)
    measurements = {
        name: summary.measure(real, outputs, draws) for name, outputs in candidates.items()
    }
    estimates = {name: measurement.estimates for name, measurement in measurements.items()}
    num_real, num_features = real.features.shape
    is_biased = summary.bias_note(min(num_real, num_generated), num_features) is not None
    return PairedMetrics(
        values={name: measurement.summary.values for name, measurement in measurements.items()},
        differences=differences(
            estimates, num_generated, without_verdict=("fid_inf",) if is_biased else ()
        ),
    )


def differences(
    estimates: Mapping[str, Mapping[str, Estimate]],
    num_images: int,
    without_verdict: Sequence[str] = (),
) -> list[MetricDifference]:
    """The differences of each pair of sets, metric by metric.

    Args:
      estimates: of each set by its name and the metric, all with the same real images and draws;
        metrics that a set lacks are left out.
      num_images: in each set.
      without_verdict: metrics whose differences are undecided at any number of images.
    """
    rows = []
    for metric in (*LOWER_IS_BETTER, *HIGHER_IS_BETTER):
        names = [name for name, metrics in estimates.items() if metric in metrics]
        pairs = list(itertools.combinations(names, 2))
        of_metric: dict[str, Any] = {name: estimates[name][metric] for name in names}
        gaps: list[Estimate] = [of_metric[a].minus(of_metric[b]) for a, b in pairs]
        p_values = holm([_p_value(gap) for gap in gaps])
        for (first, second), gap, p_value in zip(pairs, gaps, p_values, strict=True):
            variance, value = gap.variance(), gap.value
            width = _quantile(gap, (1 + LEVEL) / 2) * variance.stderr
            verdict: Verdict = "undecided"
            if p_value < 1 - LEVEL and metric not in without_verdict:
                verdict = "better" if (value < 0) == (metric in LOWER_IS_BETTER) else "worse"
            number = None
            if verdict == "undecided" and metric not in without_verdict:
                strictest = (1 - LEVEL) / max(len(pairs), 1)
                quantiles = _quantile(gap, 1 - strictest / 2) + _quantile(gap, _POWER)
                number = _deciding_number(value / quantiles, variance, num_images)
            rows.append(
                MetricDifference(
                    *(metric, first, second, value, variance.stderr),
                    *(value - width, value + width, float(p_value), verdict, number),
                )
            )
    return rows


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusts p-values for their number (Holm 1979), [num].

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    factors = len(values) - np.arange(len(values))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return adjusted


def _p_value(gap: Estimate) -> float:
    """Of a difference at least as large, where there is none."""
    stderr = gap.variance().stderr
    if not stderr:
        return float(gap.value == 0)
    return float(2 * scipy.stats.t.sf(abs(gap.value) / stderr, gap.degrees_of_freedom))


def _quantile(gap: Estimate, probability: float) -> float:
    return float(scipy.stats.t.ppf(probability, gap.degrees_of_freedom))


def _deciding_number(stderr: float, variance: Variance, num_images: int) -> int | None:
    """The number of images with this standard error, to two digits, upwards."""
    aim, (linear, quadratic) = stderr**2, variance
    if not aim:
        return None
    # linear r + quadratic r^2 = aim for r = n / N, without a difference of large numbers.
    share = 2 * aim / (linear + math.sqrt(linear**2 + 4 * quadratic * aim))
    number = num_images / share
    if number > _LARGEST_NUMBER:
        return None
    digit = 10 ** max(math.floor(math.log10(number)) - 1, 0)
    return math.ceil(number / digit) * digit


def values_table(values: Mapping[str, Mapping[str, float]]) -> str:
    """The metrics of each set, one column for each, with their standard errors."""
    metrics = dict.fromkeys(
        metric
        for columns in values.values()
        for metric in columns
        if not metric.endswith(("_stderr", "_r_squared"))
    )
    lines = [f"{'metric':22s}" + "".join(f" {name[-24:]:>24s}" for name in values)]
    for metric in metrics:
        cells = []
        for columns in values.values():
            value, stderr = columns.get(metric), columns.get(f"{metric}_stderr")
            error = "" if stderr is None else f"+- {stderr:<9.3g}"
            cells.append("" if value is None else f"{value:11.5g} {error:12s}")
        lines.append(f"{metric:22s}" + "".join(f" {cell:>24s}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def differences_table(rows: Sequence[MetricDifference]) -> str:
    """The differences with their intervals and verdicts."""
    lines = [f"{'metric':14s} {'difference':>12s}  {'95 % interval':25s}  verdict"]
    pair = None
    for row in sorted(rows, key=lambda row: _order(rows, row)):
        if pair != (row.first, row.second):
            pair = row.first, row.second
            lines.append(f"{row.first} - {row.second}")
        interval = f"[{row.low:.4g}, {row.high:.4g}]"
        lines.append(f"{row.metric:14s} {row.value:12.4g}  {interval:25s}  {verdict_text(row)}")
    return "\n".join(lines)


def _order(rows: Sequence[MetricDifference], row: MetricDifference) -> int:
    """Pairs in the order of their first metric."""
    pairs = [(other.first, other.second) for other in rows]
    return pairs.index((row.first, row.second))


def verdict_text(row: MetricDifference) -> str:
    """Such as "A is better" or "undecided; about 3,200 images a side would decide it"."""
    if row.verdict != "undecided":
        better, worse = (
            (row.first, row.second) if row.verdict == "better" else (row.second, row.first)
        )
        return f"{better} is better than {worse}"
    if row.num_images is None:
        return "undecided"
    return f"undecided; a difference of this size needs about {row.num_images:,} images a side"
