"""From the repetitions of some cells to one line of evidence."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from study import statistics

VARIANCE_MARGIN = 5.0  # per cent of the variance over entries
# Of the mean metric of the cells compared; FID lies on a large offset, so a share of it is more.
QUALITY_MARGINS = {"KID": 0.05, "FID": 0.02}
SPREAD_MARGIN = 20.0  # per cent of batching's relative spread

Array = np.ndarray


class Evidence(NamedTuple):
    """The evidence on one claim; effect, interval, null and margin are in `unit`."""

    comparison: str  # what was compared, with the numbers of repetitions
    test: str
    effect: float
    low: float
    high: float
    p_value: float
    unit: str
    claimed: (
        int  # +1: the effect is claimed to be above `null`, -1: below, 0: within `margin` of it
    )
    null: float
    margin: float  # >= 0: the smallest distance from `null` that would matter


class Sample(NamedTuple):
    """The last epoch of one cell's repetitions."""

    variance: Array  # over the entries of one gradient vector, [num_repetitions]
    quality: Array  # the metric, lower is better, [num_repetitions]


def quality_margin(metric: str) -> float:
    """Returns the share of a metric's mean that would matter."""
    return QUALITY_MARGINS.get(metric, QUALITY_MARGINS["KID"])


def variance_trend(levels: Mapping[float, Array], name: str, claimed: int) -> Evidence | None:
    """How the variance over entries changes when a setting doubles, in per cent."""
    levels = _usable({level: values[values > 0.0] for level, values in levels.items()})
    if len(levels) < 2:
        return None
    logs = {level: np.log(values) for level, values in levels.items()}
    estimate, test = _trend(logs)
    effect, low, high = (100.0 * np.expm1(x) for x in estimate[:3])
    unit = f"% per doubling of {name}"
    text, p_value = _compared(levels, name), estimate.p_value
    margin = VARIANCE_MARGIN / _doublings(levels)
    return Evidence(text, test, effect, low, high, p_value, unit, claimed, 0.0, margin)


def quality_trend(
    levels: Mapping[float, Array], name: str, claimed: int, metric: str
) -> Evidence | None:
    """How a metric (lower is better; KID or FID) changes when a setting doubles."""
    levels = _usable(levels)
    if len(levels) < 2:
        return None
    (effect, low, high, p_value), test = _trend(levels)
    margin = quality_margin(metric) * _mean_of_cells(levels.values()) / _doublings(levels)
    unit = f"per doubling of {name}"
    text = _compared(levels, name)
    return Evidence(text, test, effect, low, high, p_value, unit, claimed, 0.0, margin)


def quality_difference(
    first: Sequence[Array],
    second: Sequence[Array],
    names: tuple[str, str],
    claimed: int,
    metric: str,
    no_better_by: bool = False,
) -> Evidence | None:
    """A metric's mean over the `second` cells less its mean over the `first`, cells weighing alike.

    With `no_better_by` the claim is that the second cells are no better: the null value is then the
    smallest improvement that would matter, and the interval must lie above it.
    """
    first, second = ([g for g in map(_finite, cells) if len(g) > 1] for cells in (first, second))
    if not first or not second:
        return None
    weights = [-1.0 / len(first)] * len(first) + [1.0 / len(second)] * len(second)
    margin = quality_margin(metric) * _mean_of_cells([*first, *second])
    null = -margin if no_better_by else 0.0
    effect, low, high, p_value = statistics.contrast([*first, *second], weights, null)
    test = "Welch t" if len(weights) == 2 else "Welch contrast"
    counts = [sum(len(g) for g in cells) for cells in (first, second)]
    text = f"{names[1]} (n = {counts[1]}) less {names[0]} (n = {counts[0]})"
    margin = 0.0 if no_better_by else margin
    return Evidence(text, test, effect, low, high, p_value, "difference", claimed, null, margin)


def smallest_is_worse(levels: Mapping[float, Array], name: str, metric: str) -> Evidence | None:
    """Whether a metric is higher at the smallest level than at some larger one (a minimum inside).

    The larger level is chosen by the readings, so its p-value and interval are Bonferroni's over
    all candidates.
    """
    levels = _usable(levels)
    if len(levels) < 3:
        return None
    smallest, *larger = sorted(levels)
    confidence = 1.0 - (1.0 - statistics.CONFIDENCE) / len(larger)
    estimates = {
        level: statistics.contrast([levels[level], levels[smallest]], [-1.0, 1.0], 0.0, confidence)
        for level in larger
    }
    best = max(larger, key=lambda level: estimates[level].value)
    effect, low, high, p_value = estimates[best]
    p_value = min(1.0, p_value * len(larger))
    margin = quality_margin(metric) * _mean_of_cells(levels.values())
    text = f"{name} {smallest:g} less {name} {best:g} (best of {len(larger)})"
    test = f"Welch t, Bonferroni over {len(larger)}"
    return Evidence(text, test, effect, low, high, p_value, "difference", 1, 0.0, margin)


def narrower_spread(
    first: Sequence[Array], second: Sequence[Array], names: tuple[str, str]
) -> Evidence | None:
    """Whether the relative spread of the variance over entries within cells is less in `second`."""
    first, second = (
        [np.log(g) for g in map(_finite, cells) if len(g) > 2] for cells in (first, second)
    )
    if not first or not second or not all(any(np.ptp(g) for g in s) for s in (first, second)):
        return None
    estimate = statistics.spread_ratio(second, first)
    effect, low, high = (100.0 * np.expm1(x) for x in estimate[:3])
    test = "Brown-Forsythe on logarithms; bootstrap interval"
    text = f"{names[1]} ({len(second)} cells) against {names[0]} ({len(first)} cells)"
    unit, p_value = "% of the relative standard deviation", estimate.p_value
    return Evidence(text, test, effect, low, high, p_value, unit, -1, 0.0, SPREAD_MARGIN)


def poorer_at_equal_variance(
    first: Sequence[Sample], second: Sequence[Sample], names: tuple[str, str], metric: str
) -> Evidence | None:
    """Whether `second` has the higher metric at equal variance over entries, cells as units.

    A common line on the logarithm of the variance is fitted to the cells' means. None without two
    cells of each kind, or where their variances do not overlap: nothing is then at equal variance.
    """
    return _at_equal(first, second, names, metric, "variance", claimed=1)


def alike_at_equal_noise(
    first: Sequence[Sample], second: Sequence[Sample], names: tuple[str, str], metric: str
) -> Evidence | None:
    """Whether `first` and `second` have the same metric at equal noise, cells as units.

    As `poorer_at_equal_variance`, with the gradient's noise in the place of the variance. The claim
    is that the difference is too small to matter, on either side.
    """
    return _at_equal(first, second, names, metric, "noise", claimed=0)


def _at_equal(
    first: Sequence[Sample],
    second: Sequence[Sample],
    names: tuple[str, str],
    metric: str,
    covariate: str,
    claimed: int,
) -> Evidence | None:
    kinds = [_cell_means(samples) for samples in (first, second)]
    if min(len(means) for means in kinds) < 2:
        return None
    low_end = max(means[:, 0].min() for means in kinds)
    high_end = min(means[:, 0].max() for means in kinds)
    if low_end >= high_end:
        return None
    variance, quality = np.concatenate(kinds).T
    indicator = np.repeat([0.0, 1.0], [len(means) for means in kinds])
    estimate = statistics.difference_between_cells(quality, np.log(variance), indicator)
    effect, low, high, p_value = estimate
    text = (
        f"{names[1]} ({len(kinds[1])} cells) less {names[0]} ({len(kinds[0])} cells); both reach "
        f"{covariate}s from {low_end:.3g} to {high_end:.3g}"
    )
    test = f"regression of the cells' means on log {covariate}, jackknife over cells"
    margin = quality_margin(metric) * float(np.mean(np.abs(quality)))
    return Evidence(text, test, effect, low, high, p_value, "difference", claimed, 0.0, margin)


def _trend(levels: Mapping[float, Array]) -> tuple[statistics.Estimate, str]:
    """The slope per doubling; its p-value by ranks where there are at least three levels."""
    ordered = sorted(levels)
    groups = [levels[level] for level in ordered]
    estimate = statistics.contrast(groups, statistics.slope_weights(ordered))
    if len(groups) == 2:
        return estimate, "Welch t"
    strength, p_value = statistics.jonckheere(groups)
    return estimate._replace(p_value=p_value), f"Jonckheere-Terpstra, D = {strength:.2f}"


def _doublings(levels: Iterable[float]) -> float:
    """Returns log2 of the largest level over the smallest."""
    ordered = sorted(levels)
    return float(np.log2(ordered[-1] / ordered[0]))


def _usable(levels: Mapping[float, Array]) -> dict[float, Array]:
    """Drops readings that are not finite, then levels with fewer than two repetitions."""
    finite = {level: _finite(values) for level, values in levels.items()}
    return {level: values for level, values in finite.items() if len(values) > 1}


def _finite(values: Array) -> Array:
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def _cell_means(samples: Sequence[Sample]) -> Array:
    """Returns (mean variance, mean metric) of each cell that has both, [num_cells, 2]."""
    means = []
    for sample in samples:
        both = np.isfinite(sample.variance) & np.isfinite(sample.quality) & (sample.variance > 0.0)
        if both.any():
            means.append((sample.variance[both].mean(), sample.quality[both].mean()))
    return np.reshape(means, (-1, 2))


def _mean_of_cells(groups: Iterable[Array]) -> float:
    return float(np.abs(np.mean([np.mean(group) for group in groups])))


def _compared(levels: Mapping[float, Array], name: str) -> str:
    ordered = sorted(levels)
    sizes = "+".join(str(len(levels[level])) for level in ordered)
    return f"{name} {', '.join(f'{level:g}' for level in ordered)} (n = {sizes})"
