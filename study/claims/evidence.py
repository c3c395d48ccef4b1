"""From the repetitions of some cells to one line of evidence.

Every test takes groups of cells by the words that name them, the sign of the claimed effect and the
title of the metric, and returns None where the cells it needs are not there.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from study import statistics
from study.statistics import Estimate

VARIANCE_MARGIN = 5.0  # per cent of the variance over entries
# Of the mean metric of the cells compared; FID lies on a large offset, so a share of it is more.
QUALITY_MARGINS = {"KID": 0.05, "FID": 0.02}
SPREAD_MARGIN = 20.0  # per cent of batching's relative spread

Array = np.ndarray


class Evidence(NamedTuple):
    """The evidence on one claim; estimate, null value and margin are in `unit`."""

    comparison: str  # what was compared, with the numbers of repetitions
    test: str
    estimate: Estimate
    unit: str
    sign: int  # +1: the effect is claimed to be above `null`, -1: below, 0: within `margin` of it
    null: float = 0.0
    margin: float = 0.0  # the smallest distance from `null` that would matter


class Sample(NamedTuple):
    """The last epoch of one cell's repetitions."""

    variance: Array  # over the entries of one gradient vector (or the noise), [num_repetitions]
    quality: Array  # the metric, lower is better, [num_repetitions]


Levels = Mapping[Any, Sample]  # cells by the value of the field in which they differ
Groups = Mapping[str, Levels]  # groups of cells by the words that name them


def quality_margin(metric: str, cells: Iterable[Array]) -> float:
    """Returns the difference of a metric that would matter: a share of its mean over cells."""
    share = QUALITY_MARGINS.get(metric, QUALITY_MARGINS["KID"])
    return share * float(np.abs(np.mean([np.mean(values) for values in cells])))


def variance_trend(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """How the variance over entries changes when a field doubles, in per cent.

    Args:
      groups: one group, by the name of the field.
      sign: of the claimed change.
      metric: not used.
    """
    ((name, cells),) = groups.items()
    levels = _usable({level: cell.variance[cell.variance > 0.0] for level, cell in cells.items()})
    if len(levels) < 2:
        return None
    estimate, test = _trend({level: np.log(values) for level, values in levels.items()})
    unit = f"% per doubling of {name}"
    margin = VARIANCE_MARGIN / _doublings(levels)
    return Evidence(
        _compared(levels, name), test, _in_per_cent(estimate), unit, sign, margin=margin
    )


def quality_trend(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """How a metric (lower is better; KID or FID) changes when a field doubles.

    Args:
      groups: one group, by the name of the field.
      sign: of the claimed change.
      metric: its title.
    """
    ((name, cells),) = groups.items()
    levels = _usable({level: cell.quality for level, cell in cells.items()})
    if len(levels) < 2:
        return None
    estimate, test = _trend(levels)
    margin = quality_margin(metric, levels.values()) / _doublings(levels)
    unit = f"per doubling of {name}"
    return Evidence(_compared(levels, name), test, estimate, unit, sign, margin=margin)


def quality_difference(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """A metric's mean over the cells of the second group less its mean over those of the first.

    The cells of a group weigh alike.
    """
    return _difference(groups, sign, metric, no_better=False)


def no_better(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """Whether the cells of the second group are no better than those of the first.

    The null value is the smallest improvement that would matter; the interval must lie above it.
    """
    return _difference(groups, sign, metric, no_better=True)


def _difference(groups: Groups, sign: int, metric: str, no_better: bool) -> Evidence | None:
    cells = [list(_usable(_qualities(levels)).values()) for levels in groups.values()]
    first, second = cells
    if not first or not second:
        return None
    weights = [-1.0 / len(first)] * len(first) + [1.0 / len(second)] * len(second)
    margin = quality_margin(metric, [*first, *second])
    null = -margin if no_better else 0.0
    estimate = statistics.contrast([*first, *second], weights, null)
    test = "Welch t" if len(weights) == 2 else "Welch contrast"
    subtrahend, minuend = (
        f"{name} (n = {sum(map(len, group))})" for name, group in zip(groups, cells, strict=True)
    )
    text = f"{minuend} less {subtrahend}"
    margin = 0.0 if no_better else margin
    return Evidence(text, test, estimate, "difference", sign, null, margin)


def smallest_is_worse(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """Whether a metric is higher at the smallest level than at some larger one (a minimum inside).

    The larger level is the best one of the readings, so that its p-value and interval are
    Bonferroni's over all candidates.
    """
    ((name, cells),) = groups.items()
    levels = _usable(_qualities(cells))
    if len(levels) < 3:
        return None
    smallest, *larger = sorted(levels)
    confidence = 1.0 - (1.0 - statistics.CONFIDENCE) / len(larger)
    estimates = {
        level: statistics.contrast([levels[level], levels[smallest]], [-1.0, 1.0], 0.0, confidence)
        for level in larger
    }
    best = max(larger, key=lambda level: estimates[level].value)
    p_value = min(1.0, estimates[best].p_value * len(larger))
    text = f"{name} {smallest:g} less {name} {best:g} (best of {len(larger)})"
    test = f"Welch t, Bonferroni over {len(larger)}"
    margin = quality_margin(metric, levels.values())
    estimate = estimates[best]._replace(p_value=p_value)
    return Evidence(text, test, estimate, "difference", sign, margin=margin)


def narrower_spread(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """Whether the relative spread of the variance within cells is less in the second group."""
    logs = [
        [np.log(values) for cell in levels.values() if len(values := _finite(cell.variance)) > 2]
        for levels in groups.values()
    ]
    if not all(any(np.ptp(values) for values in group) for group in logs):
        return None
    first, second = logs
    estimate = _in_per_cent(statistics.spread_ratio(second, first))
    counts = [f"{name} ({len(group)} cells)" for name, group in zip(groups, logs, strict=True)]
    test = "Brown-Forsythe on logarithms; bootstrap interval"
    unit = "% of the relative standard deviation"
    text = f"{counts[1]} against {counts[0]}"
    return Evidence(text, test, estimate, unit, sign, margin=SPREAD_MARGIN)


def at_equal_variance(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """The metric of the second group less that of the first at equal variance, cells as units.

    A common line on the logarithm of the variance is fitted to the cells' means. None without two
    cells of each kind, or where their variances do not overlap: nothing is then at equal variance.
    """
    return _at_equal(groups, sign, metric, "variance")


def at_equal_noise(groups: Groups, sign: int, metric: str) -> Evidence | None:
    """As `at_equal_variance`, with the gradient's noise in the place of the variance."""
    return _at_equal(groups, sign, metric, "noise")


def _at_equal(groups: Groups, sign: int, metric: str, covariate: str) -> Evidence | None:
    kinds = [_cell_means(levels) for levels in groups.values()]
    if min(len(means) for means in kinds) < 2:
        return None
    low_end = max(means[:, 0].min() for means in kinds)
    high_end = min(means[:, 0].max() for means in kinds)
    if low_end >= high_end:
        return None
    variance, quality = np.concatenate(kinds).T
    indicator = np.repeat([0.0, 1.0], [len(means) for means in kinds])
    estimate = statistics.difference_between_cells(quality, np.log(variance), indicator)
    counts = [f"{name} ({len(means)} cells)" for name, means in zip(groups, kinds, strict=True)]
    span = f"{covariate}s from {low_end:.3g} to {high_end:.3g}"
    text = f"{counts[1]} less {counts[0]}; both reach {span}"
    test = f"regression of the cells' means on log {covariate}, jackknife over cells"
    margin = quality_margin(metric, np.abs(quality))
    return Evidence(text, test, estimate, "difference", sign, margin=margin)


def _trend(levels: Mapping[float, Array]) -> tuple[Estimate, str]:
    """The slope per doubling; its p-value by ranks where there are at least three levels."""
    ordered = sorted(levels)
    values = [levels[level] for level in ordered]
    estimate = statistics.contrast(values, statistics.slope_weights(ordered))
    if len(values) == 2:
        return estimate, "Welch t"
    strength, p_value = statistics.jonckheere(values)
    return estimate._replace(p_value=p_value), f"Jonckheere-Terpstra, D = {strength:.2f}"


def _in_per_cent(logarithm: Estimate) -> Estimate:
    """An estimate of the logarithm of a ratio, as a change in per cent."""
    value, low, high = (100.0 * float(np.expm1(x)) for x in logarithm[:3])
    return Estimate(value, low, high, logarithm.p_value)


def _doublings(levels: Iterable[float]) -> float:
    """Returns log2 of the largest level over the smallest."""
    ordered = sorted(levels)
    return float(np.log2(ordered[-1] / ordered[0]))


def _qualities(levels: Levels) -> dict[float, Array]:
    return {level: cell.quality for level, cell in levels.items()}


def _usable(levels: Mapping[float, Array]) -> dict[float, Array]:
    """Drops readings that are not finite, then levels with fewer than two repetitions."""
    finite = {level: _finite(values) for level, values in levels.items()}
    return {level: values for level, values in finite.items() if len(values) > 1}


def _finite(values: Array) -> Array:
    values = np.asarray(values, float)
    return values[np.isfinite(values)]


def _cell_means(levels: Levels) -> Array:
    """Returns (mean variance, mean metric) of each cell that has both, [num_cells, 2]."""
    means = []
    for cell in levels.values():
        both = np.isfinite(cell.variance) & np.isfinite(cell.quality) & (cell.variance > 0.0)
        if both.any():
            means.append((cell.variance[both].mean(), cell.quality[both].mean()))
    return np.reshape(means, (-1, 2))


def _compared(levels: Mapping[float, Array], name: str) -> str:
    ordered = sorted(levels)
    sizes = "+".join(str(len(levels[level])) for level in ordered)
    return f"{name} {', '.join(f'{level:g}' for level in ordered)} (n = {sizes})"
