"""MIND: closed forms, the exact pairing of unequal sets, a reference's figures, its error."""

import numpy as np
import pytest
import scipy.stats

from thermo_ebm.metrics import mind, standard_errors
from thermo_ebm.metrics.arrays import FeaturePair
from thermo_ebm.metrics.standard_errors import ImageGroups

DIRECTIONS = mind.random_directions(4, 50)


def groups(num_real, num_generated):
    return ImageGroups(np.arange(num_real) % 32, np.arange(num_generated) % 32)


def test_a_shift_is_counted_in_all_directions():
    """W^2 of a shift by s along u is (u.s)^2, whose mean is |s|^2 / D; MIND is then 3 |s|^2."""
    x = np.random.default_rng(0).normal(size=(40, 5))
    shift = np.array([0.3, 0, -0.4, 0, 0.5])
    directions = np.eye(5)
    assert mind.monge_distance(x, x + shift, directions) == pytest.approx(3 * 0.5)
    assert mind.monge_distance(x, x + shift) == pytest.approx(3 * 0.5, rel=0.1)
    assert mind.monge_distance(x, x[::-1]) == 0.0


def test_unequal_numbers_are_paired_by_quantiles():
    """Against scipy's transport by linear programming of each projection."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(9, 2)), rng.gamma(2.0, size=(6, 2))
    directions = mind.random_directions(2, 3)
    costs = []
    for direction in directions:
        cost = (x @ direction)[:, None] - (y @ direction)
        # Copies of each point make equal numbers, whose assignment is the transport.
        cost = np.repeat(np.repeat(cost**2, 2, axis=0), 3, axis=1)
        rows, columns = scipy.optimize.linear_sum_assignment(cost)
        costs.append(cost[rows, columns].mean())
    expected = 6 * np.mean(costs)
    assert mind.monge_distance(x, y, directions) == pytest.approx(expected, rel=1e-12)


def test_derivative_is_that_of_weights():
    """Against a central difference of the exact distance where one image has a copy more or less.

    With k copies of each image, one copy more is a weight of 1 + 1/k.
    """
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(15, 3)) * 1.5 + 0.5
    directions = mind.random_directions(3, 20)
    _, influences = mind._distance_and_influences(FeaturePair(x, y), directions)
    copies = 40
    for side, (matrix, values) in enumerate(zip((x, y), influences, strict=True)):
        differences = []
        for image in range(5):
            ends = []
            for number in (copies + 1, copies - 1):
                repeats = np.full(len(matrix), copies)
                repeats[image] = number
                pair = [x, y]
                pair[side] = np.repeat(matrix, repeats, axis=0)
                ends.append(mind.monge_distance(*pair, directions))
            differences.append((ends[0] - ends[1]) / 2 * copies * len(matrix))
        np.testing.assert_allclose(values[:5], differences, atol=0.05 * np.std(differences))


@pytest.mark.parametrize("shift", [0.0, 0.4], ids=["equal", "apart"])
def test_error_is_the_spread_over_fresh_sets(shift):
    rng = np.random.default_rng(3)
    values, stderrs = [], []
    for _ in range(40):
        pair = FeaturePair(rng.gamma(2.0, size=(150, 4)), rng.gamma(2.0, size=(120, 4)) + shift)
        estimate = mind.estimate(pair, groups(150, 120), 50)
        values.append(estimate.value)
        stderrs.append(estimate.variance().stderr)
        assert estimate.value == pytest.approx(mind.monge_distance(*pair, DIRECTIONS))
    ratio = np.sqrt(np.mean(np.square(stderrs))) / np.std(values, ddof=1)
    assert 0.8 < ratio < 2.3  # conservative, most for equal distributions
    inside = np.mean(np.abs(np.array(values) - np.mean(values)) <= 2.04 * np.array(stderrs))
    assert inside > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 40)


def test_weighted_distances_are_those_of_repeated_images():
    """Weights of 3/2 and 1/2 are three copies and one: the grid of quantiles is close."""
    rng = np.random.default_rng(4)
    pair = FeaturePair(rng.normal(size=(64, 2)), rng.normal(size=(64, 2)) + 1)
    members = groups(64, 64)
    directions = mind.random_directions(2, 8)
    replicates = mind._weighted_distances(pair, members, directions)
    repeats = (2 * standard_errors.WEIGHTS[5][members.real]).astype(int)
    copied = [np.repeat(matrix, repeats, axis=0) for matrix in pair]
    assert replicates[5] == pytest.approx(mind.monge_distance(*copied, directions), rel=0.02)
    assert replicates[0] == pytest.approx(mind.monge_distance(*pair, directions), rel=0.02)
