"""The statistics against hand-computed cases, brute force, and scipy's own tests."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from study import statistics


def test_a_contrast_of_two_groups_is_welchs_test():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=5), 0.7 + 2.0 * generator.normal(size=7)
    estimate = statistics.contrast([first, second], [-1.0, 1.0])
    test = stats.ttest_ind(second, first, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert estimate.value == pytest.approx(second.mean() - first.mean())
    assert estimate.p_value == pytest.approx(test.pvalue)
    assert estimate[1:3] == pytest.approx((interval.low, interval.high))


def test_a_contrast_by_hand():
    # Means 1, 2, 6; variances of the means 1, 1, 1; weights (-1, 0.5, 0.5): value 3, error
    # sqrt(1.5), Satterthwaite's degrees 1.5^2 / (1 + 1/16 + 1/16) = 2.
    groups = [np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.array([5.0, 7.0])]
    estimate = statistics.contrast(groups, [-1.0, 0.5, 0.5])
    assert estimate.value == pytest.approx(3.0)
    reach = 4.30265273 * math.sqrt(1.5)  # Student's 97.5 % point for 2 degrees
    assert estimate.high - estimate.value == pytest.approx(reach)
    assert estimate.p_value == pytest.approx(2 * stats.t.sf(3.0 / math.sqrt(1.5), 2))
    at_null = statistics.contrast(groups, [-1.0, 0.5, 0.5], null=3.0)
    assert at_null.p_value == pytest.approx(1.0)


def test_contrasts_without_spread_and_of_single_readings():
    same = [np.full(3, 2.0), np.full(3, 5.0)]
    assert statistics.contrast(same, [-1.0, 1.0]) == (3.0, 3.0, 3.0, 0.0)
    assert statistics.contrast(same, [-1.0, 1.0], null=3.0).p_value == 1.0
    with pytest.raises(ValueError, match="two repetitions"):
        statistics.contrast([np.ones(1), np.ones(2)], [-1.0, 1.0])
    with pytest.raises(ValueError, match="weights"):
        statistics.contrast(same, [1.0])


def test_the_slope_is_the_change_per_doubling():
    levels = [25.0, 50.0, 100.0, 400.0]
    means = 3.0 - 0.7 * np.log2(levels)
    assert statistics.slope_weights(levels) @ means == pytest.approx(-0.7)


def test_mann_whitneys_distribution_by_counting():
    for m, n in [(1, 1), (2, 3), (4, 3), (5, 5)]:
        counts = np.zeros(m * n + 1)
        for places in itertools.combinations(range(m + n), n):
            counts[sum(place - rank for rank, place in enumerate(places))] += 1
        np.testing.assert_allclose(statistics.mann_whitney_pmf(m, n), counts / counts.sum())


def test_jonckheere_by_hand():
    # One reading each of three groups in order: 1 of 6 orders is as extreme, on either side.
    assert statistics.jonckheere([np.array([x]) for x in (1.0, 2.0, 3.0)]) == (1.0, 1 / 3)
    scaled, p_value = statistics.jonckheere([np.array([2.0, 3.0]), np.array([1.0, 4.0])])
    assert scaled == pytest.approx(0.0)  # 2 of 4 pairs rise
    assert p_value == 1.0


def test_jonckheere_against_all_permutations():
    groups = [np.array([0.0, 3.0]), np.array([1.0, 2.0, 6.0]), np.array([4.0, 5.0])]
    labels = np.repeat([0, 1, 2], [2, 3, 2])

    def rising(order):
        pairs = itertools.combinations(range(7), 2)
        return sum(order[i] < order[j] for i, j in pairs if labels[i] < labels[j])

    statistic = rising(np.concatenate(groups))
    permuted = np.array([rising(order) for order in itertools.permutations(range(7))])
    expected = 2 * min((permuted <= statistic).mean(), (permuted >= statistic).mean())
    scaled, p_value = statistics.jonckheere(groups)
    assert p_value == pytest.approx(min(1.0, expected))
    assert scaled == pytest.approx(2 * statistic / 16 - 1)  # 2*3 + 2*2 + 3*2 pairs


def test_jonckheere_of_two_groups_is_mann_whitneys_exact_test():
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=5), 1.0 + generator.normal(size=6)
    expected = stats.mannwhitneyu(first, second, method="exact").pvalue
    assert statistics.jonckheere([first, second])[1] == pytest.approx(expected)


def test_jonckheere_with_ties_permutes():
    groups = [np.array([1.0, 1.0, 2.0]), np.array([2.0, 3.0, 3.0]), np.array([4.0, 4.0, 5.0])]
    scaled, p_value = statistics.jonckheere(groups)
    assert scaled == pytest.approx(1 - 1 / 27)  # one pair of 27 is tied
    # 2 of the 1,680 ways to fill three groups of three rank as high: p = 4 / 1,680, within three
    # standard errors of 20,000 permutations.
    assert p_value == pytest.approx(4 / 1680, abs=3 * 2 * math.sqrt(2 / 1680 / 20_000))
    assert statistics.jonckheere(groups) == (scaled, p_value)  # seeded
    level = [np.array([1.0, 1.0])] * 3
    assert statistics.jonckheere(level) == (0.0, 1.0)


def test_the_trend_tests_false_alarms():
    """At level 0.05 the exact test rejects in at most 5 % of null cases (3 standard errors)."""
    generator = np.random.default_rng(1)
    draws = generator.normal(size=(600, 3, 5))
    rate = np.mean([statistics.jonckheere(list(groups))[1] < 0.05 for groups in draws])
    assert rate < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
    assert rate > 0.01


@pytest.mark.filterwarnings("ignore:Precision loss")
def test_the_spread_ratio_by_hand():
    first = [np.array([0.0, 2.0, 4.0]), np.array([1.0, 3.0, 5.0])]  # variances 4 and 4
    second = [np.array([0.0, 1.0, 2.0]), np.array([7.0, 8.0, 9.0])]  # 1 and 1
    estimate = statistics.spread_ratio(first, second)
    assert estimate.value == pytest.approx(math.log(2.0))
    # Distances from the medians, one zero a cell dropped: (2, 2, 2, 2) against (1, 1, 1, 1).
    assert estimate.p_value == 0.0


def test_the_spread_test_is_brown_and_forsythes():
    generator = np.random.default_rng(5)
    first, second = 3.0 * generator.normal(size=40), generator.normal(size=40)
    distances = [np.abs(values - np.median(values)) for values in (first, second)]
    expected = stats.ttest_ind(*distances, equal_var=False)
    pooled = stats.ttest_ind(*distances)  # with equal variances it is the classical form
    assert pooled.pvalue == pytest.approx(stats.levene(first, second, center="median").pvalue)
    estimate = statistics.spread_ratio([first], [second])
    assert estimate.p_value == pytest.approx(expected.pvalue)
    assert estimate.low < math.log(3.0) < estimate.high


def test_the_spread_interval_covers():
    """Coverage of four cells of five against four of five: 95 % within 3 standard errors."""
    generator = np.random.default_rng(2)
    draws = generator.normal(size=(120, 2, 4, 5))
    inside = []
    for index, (first, second) in enumerate(draws):
        estimate = statistics.spread_ratio(list(2.0 * first), list(second), seed=index)
        inside.append(estimate.low < math.log(2.0) < estimate.high)
    assert np.mean(inside) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 120)


def test_the_jackknife_over_cells_by_hand():
    """Two kinds of two cells at x = 0 and 1: values 0, 2 and 5, 9.

    The common slope is 3 and the kinds lie 6 apart. Without either cell at x = 0 they lie 7 and
    7 apart, without either at x = 1 they lie 5 and 5 apart: the error is sqrt(3/4 * 4).
    """
    estimate = statistics.difference_between_cells(
        np.array([0.0, 2.0, 5.0, 9.0]), np.array([0.0, 1.0, 0.0, 1.0]), np.array([0, 0, 1, 1])
    )
    assert estimate.value == pytest.approx(6.0)
    error = math.sqrt(3.0)
    reach = 12.7062047 * error  # Student's 97.5 % point for 4 - 3 degrees
    assert estimate.high - estimate.value == pytest.approx(reach)
    assert estimate.p_value == pytest.approx(2 * stats.t.sf(6.0 / error, 1))


def test_a_kind_of_one_cell_is_refused():
    with pytest.raises(ValueError, match="two cells of each kind"):
        statistics.difference_between_cells(np.arange(4.0), np.arange(4.0), np.array([0, 0, 0, 1]))


def test_the_intervals_of_cells_cover():
    """Coverage with 4 and 3 cells of unequal scatter: at least 95 % within 3 standard errors."""
    generator = np.random.default_rng(4)
    covariate = np.array([-1.0, -0.6, -0.2, 0.2, -1.4, -0.7, 0.0])
    kind = np.repeat([0.0, 1.0], [4, 3])
    for scatter in (1.0, 0.3):
        hits = []
        for _ in range(300):
            noise = generator.normal(size=7) * np.where(kind > 0, scatter, 1.0)
            estimate = statistics.difference_between_cells(
                2.0 * covariate + 5.0 * kind + noise, covariate, kind
            )
            hits.append(estimate.low < 5.0 < estimate.high)
        assert np.mean(hits) > 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)


def test_holm_by_hand():
    adjusted = statistics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.9, 0.8]), [1.0, 1.0])
    assert statistics.holm([]).shape == (0,)
