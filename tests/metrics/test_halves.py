"""Half-samples: exact for linear and quadratic statistics, and errors that cover in a summary."""

import jax
import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage import CASES
from thermo_ebm.metrics import fid, halves, lines, responses
from thermo_ebm.metrics.subsets import Draw


def weighted(statistic, groups):
    """A statistic of image weights [num] under each of the half-samples' weights."""
    return np.array([statistic(weights[groups]) for weights in halves.WEIGHTS])


def test_groups_are_random_and_as_equal_as_can_be():
    groups = halves.assign_groups(jax.random.key(0), 50)
    assert set(np.bincount(groups, minlength=32)) == {1, 2}
    assert (groups != halves.assign_groups(jax.random.key(1), 50)).any()
    assert halves.WEIGHTS.shape == (63, 32)
    assert (halves.WEIGHTS > 0).all()
    assert halves.WEIGHTS.sum(axis=1) == pytest.approx(32)


def test_of_a_mean_of_group_means_it_is_the_textbook_s():
    values = np.random.default_rng(0).normal(size=32)
    replicates = weighted(lambda w: w @ values / w.sum(), np.arange(32))
    # No quadratic response: sd / sqrt(32) with 31 degrees of freedom.
    assert halves.stderr(replicates) == pytest.approx(values.std(ddof=1) / np.sqrt(32))
    with pytest.raises(ValueError, match="replicates must be"):
        halves.stderr(replicates[:-1])


def test_of_a_quadratic_statistic_it_is_less_than_a_jackknifes():
    """|mean|^2 at mean 0 in 6 dimensions has the variance 2 * 6 / n^2.

    The estimate is meant to be one and a half times that, a jackknife's is twice.
    """
    rng, num = np.random.default_rng(1), 64
    squares, jackknifed = [], []
    for repeat in range(300):
        x = rng.normal(size=(num, 6))
        groups = halves.assign_groups(jax.random.key(repeat), num)
        replicates = weighted(lambda w, x=x: np.sum((w @ x / w.sum()) ** 2), groups)
        squares.append(halves.stderr(replicates) ** 2)
        left_out = [np.sum(x[groups != group].mean(axis=0) ** 2) for group in range(32)]
        jackknifed.append(31 * np.var(left_out))
    true = 12 / num**2
    assert 1.3 * true < np.mean(squares) < 1.75 * true
    assert np.mean(jackknifed) > 1.8 * true


def test_responses_without_weights_are_the_metrics_of_the_draw():
    rng = np.random.default_rng(2)
    real, generated = rng.normal(size=(80, 7)), rng.normal(size=(90, 7)) + 0.3
    draw = Draw(rng.permutation(80)[:60], rng.permutation(90)[:50])
    groups = responses.Groups(
        halves.assign_groups(jax.random.key(0), 80), halves.assign_groups(jax.random.key(1), 90)
    )
    small = responses.leading_directions(real, generated)
    curve = responses.fid_responses(*small, groups, draw)
    expected = fid.frechet_distance(real[draw.real], generated[draw.generated])
    assert curve[0] == pytest.approx(expected, rel=1e-9)
    # A weight of 1.5 and 0.5 is what images repeated three times and once would have.
    weights = halves.WEIGHTS[5]
    means, covariances = responses._weighted_moments(real, groups.real)
    expected_mean = np.average(real, axis=0, weights=weights[groups.real])
    expected_covariance = np.cov(real, rowvar=False, aweights=weights[groups.real])
    np.testing.assert_allclose(means[5], expected_mean)
    np.testing.assert_allclose(covariances[5], expected_covariance)


def test_leading_directions_hold_most_of_the_spread():
    rng = np.random.default_rng(3)
    spectrum = np.exp(-np.arange(200) / 20)
    rotation = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    x, y = (rng.normal(size=(300, 200)) * spectrum @ rotation for _ in range(2))
    small, other = responses.leading_directions(x, y)
    assert small.shape == other.shape == (300, 96)
    ratio = small.var(axis=0).sum() / x.var(axis=0).sum()
    assert 0.99 * np.sum(spectrum[:96] ** 2) / np.sum(spectrum**2) < ratio <= 1


@pytest.mark.parametrize(
    ("case", "num_images", "num_features"),
    [("near", 120, 12), *(pytest.param(case, 300, 48, marks=pytest.mark.slow) for case in CASES)],
)
def test_errors_cover(case, num_images, num_features):
    """The short form of `python -m benchmarks.metrics --coverage`: 60 pairs of sets.

    95 % is within 3.5 standard errors of what is counted, and the intercept that averages several
    draws spreads no more than that of one draw.
    """
    rng = np.random.default_rng([6, *case.encode()])
    measured = [
        coverage.measure(
            key, *coverage.draw_features(rng, num_images, num_features, *CASES[case])[:2], 4
        )
        for key in jax.random.split(jax.random.key(7), 60)
    ]
    for metric in coverage.METRICS:
        before, after = np.array([[side[metric] for side in one] for one in measured]).swapaxes(
            0, 1
        )
        inside = np.abs(after[:, 0] - after[:, 0].mean()) <= 1.96 * after[:, 1]
        assert inside.mean() > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 60), metric
        ratio = np.sqrt(np.mean(after[:, 1] ** 2)) / after[:, 0].std(ddof=1)
        assert 0.7 < ratio < 1.7, metric
        assert after[:, 0].std() < 1.1 * before[:, 0].std(), metric


def test_the_curves_average_draws_without_moving_the_exact_one():
    rng = np.random.default_rng(8)
    real, generated = rng.normal(size=(60, 100)), rng.normal(size=(60, 100)) * 1.2
    design = lines.make_design(jax.random.key(0), (20, 40, 60), 60, 60)
    assert [len(of_size) for of_size in design.draws] == [4, 4, 1]
    curves = lines.fid_curves(real, generated, design)
    for curve, of_size in zip(curves, design.draws, strict=True):
        exact = fid.frechet_distance(real[of_size[0].real], generated[of_size[0].generated])
        assert curve[0, 0] == pytest.approx(exact, rel=1e-6)
        assert curve.shape == (len(of_size), 63)
