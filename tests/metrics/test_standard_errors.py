"""Half-samples and the jackknife: exact for simple statistics, and errors that cover."""

import jax
import numpy as np
import pytest

from benchmarks import coverage_of_metrics as coverage
from benchmarks.coverage_of_metrics import CASES
from thermo_ebm.metrics import arrays, extrapolate, fid, manifold, standard_errors


def weighted_values(statistic, groups):
    """A statistic of image weights [num] under each of the half-samples' weights."""
    return np.array([statistic(weights[groups]) for weights in standard_errors.WEIGHTS])


def test_groups_are_random_and_nearly_equal():
    groups = standard_errors.assign_groups(jax.random.key(0), 50)
    assert set(standard_errors.group_sizes(groups)) == {1, 2}
    assert (groups != standard_errors.assign_groups(jax.random.key(1), 50)).any()
    assert standard_errors.WEIGHTS.shape == (63, 32)
    assert (standard_errors.WEIGHTS > 0).all()
    assert standard_errors.WEIGHTS.sum(axis=1) == pytest.approx(32)


def test_weighted_means_are_means_under_each_weighting():
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=50), standard_errors.assign_groups(jax.random.key(0), 50)
    expected = weighted_values(lambda weights: np.average(values, weights=weights), groups)
    np.testing.assert_allclose(standard_errors.weighted_means(values, groups), expected)


def test_half_sample_error_of_a_mean_is_the_textbook_error():
    values = np.random.default_rng(0).normal(size=32)
    replicates = weighted_values(lambda w: w @ values / w.sum(), np.arange(32))
    # No quadratic response: sd / sqrt(32) with 31 degrees of freedom.
    expected = values.std(ddof=1) / np.sqrt(32)
    assert standard_errors.half_sample_variance(replicates).stderr == pytest.approx(expected)
    with pytest.raises(ValueError, match="replicates must be"):
        standard_errors.half_sample_variance(replicates[:-1])


def test_half_sample_error_of_a_quadratic_statistic_is_below_a_jackknifes():
    """|mean|^2 at mean 0 in 6 dimensions has the variance 2 * 6 / n^2.

    The estimate is meant to be one and a half times that; a jackknife's is twice.
    """
    rng, num = np.random.default_rng(1), 64
    squares, jackknifed = [], []
    for repeat in range(300):
        x = rng.normal(size=(num, 6))
        groups = standard_errors.assign_groups(jax.random.key(repeat), num)
        replicates = weighted_values(lambda w, x=x: np.sum((w @ x / w.sum()) ** 2), groups)
        squares.append(standard_errors.half_sample_variance(replicates).stderr ** 2)
        without_group = [np.sum(x[groups != group].mean(axis=0) ** 2) for group in range(32)]
        jackknifed.append(31 * np.var(without_group))
    true_variance = 12 / num**2
    assert 1.3 * true_variance < np.mean(squares) < 1.75 * true_variance
    assert np.mean(jackknifed) > 1.8 * true_variance


@pytest.mark.parametrize(
    ("case", "num_images", "num_features"),
    [("near", 120, 12), *(pytest.param(case, 300, 48, marks=pytest.mark.slow) for case in CASES)],
)
def test_standard_errors_of_fid_and_kid_cover(case, num_images, num_features):
    """The short form of `python -m benchmarks.coverage`: 60 pairs of sets.

    The counted coverage is within 3.5 standard errors of 95 %.
    """
    rng = np.random.default_rng([6, *case.encode()])
    measured = [
        coverage.measure(
            key, *coverage.draw_features(rng, num_images, num_features, *CASES[case])[:2], 4
        )
        for key in jax.random.split(jax.random.key(7), 60)
    ]
    for metric in coverage.METRICS:
        values, stderrs = np.array([estimates[metric] for estimates in measured]).T
        inside = np.abs(values - values.mean()) <= 1.96 * stderrs
        assert inside.mean() > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 60), metric
        ratio = np.sqrt(np.mean(stderrs**2)) / values.std(ddof=1)
        assert 0.7 < ratio < 1.7, metric


def test_jackknife_leaves_out_every_image_once():
    draws = standard_errors.jackknife_draws(jax.random.key(0), 23, 31)
    assert len(draws) == standard_errors.NUM_JACKKNIFE_GROUPS
    for side, number in (("real", 23), ("generated", 31)):
        groups = [np.setdiff1d(np.arange(number), getattr(draw, side)) for draw in draws]
        assert sorted(np.concatenate(groups)) == list(range(number))
        assert {len(group) for group in groups} <= {number // 10, number // 10 + 1}
    # The groups are drawn at random: the order of the files does not matter.
    second = standard_errors.jackknife_draws(jax.random.key(1), 23, 31)
    assert any(not np.array_equal(*pair) for pair in zip(draws[0], second[0], strict=True))


def test_jackknife_of_few_images_has_groups_of_one():
    draws = standard_errors.jackknife_draws(jax.random.key(0), 4, 31)
    assert [len(draw.real) for draw in draws] == [3] * 4
    with pytest.raises(ValueError, match="no 10 groups of 1 and 31 images"):
        standard_errors.jackknife_draws(jax.random.key(0), 1, 31)
    with pytest.raises(ValueError, match="at least two"):
        standard_errors.jackknife_stderr([1.0])


def test_jackknife_error_of_a_mean_is_the_textbook_error():
    values = np.random.default_rng(0).normal(size=12)
    replicates = [np.delete(values, index).mean() for index in range(12)]
    expected = values.std(ddof=1) / np.sqrt(12)
    assert standard_errors.jackknife_stderr(replicates) == pytest.approx(expected)


def value_and_jackknife_error(metric, rng, num, dim, shift, scale):
    """A metric of two fresh sets and its standard error."""
    real = rng.normal(size=(num, dim))
    generated = scale * rng.normal(size=(num, dim)) + shift
    key = jax.random.key(int(rng.integers(1 << 30)))
    draws = standard_errors.jackknife_draws(key, num, num)
    return metric(real, generated), standard_errors.jackknife_stderr(
        [metric(real[draw.real], generated[draw.generated]) for draw in draws]
    )


METRICS = {
    "fid": fid.frechet_distance,
    "precision": lambda real, generated: manifold.manifold_metrics(real, generated).precision,
    "coverage": lambda real, generated: manifold.manifold_metrics(real, generated).coverage,
    "difference of means": lambda real, generated: generated.mean() - real.mean(),
}


def test_jackknife_error_against_the_spread_over_fresh_sets():
    """The ratio of the two; 100 sets give the spread to 7 %, the root mean square to 3 %."""
    for name, shift, scale, low, high in [
        ("difference of means", 0.0, 1.0, 0.8, 1.2),
        ("fid", 0.8, 1.0, 0.8, 1.3),  # apart: right
        ("fid", 0.0, 1.0, 1.0, 2.2),  # alike: safe
        ("precision", 0.8, 1.0, 0.8, 1.4),
        ("coverage", 0.8, 1.0, 0.9, 1.7),
    ]:
        rng = np.random.default_rng(7)
        values, errors = np.array(
            [value_and_jackknife_error(METRICS[name], rng, 60, 6, shift, scale) for _ in range(100)]
        ).T
        ratio = np.sqrt(np.mean(errors**2)) / values.std(ddof=1)
        assert low < ratio < high


@pytest.mark.slow
def test_errors_of_fid_cover_where_the_spectrum_is_flat():
    """96 directions hold half of the spread: their response alone covers 0.8 or less.

    24 pairs of sets; the coverage is within 3.5 standard errors of 95 %, and the error at most
    twice the spread. For equal distributions it is conservative, up to sqrt(2).
    """
    rng = np.random.default_rng(8)
    sizes, measured, smaller = (150, 200, 250), [], []
    for key in jax.random.split(jax.random.key(9), 24):
        real, generated = (rng.normal(size=(250, 192)) * scale for scale in (1.0, 1.1))
        features = arrays.feature_pair(real, generated)
        design = extrapolate.make_design(key, sizes, 250, 250)
        curves = extrapolate.fid_curves(features, design)
        line = extrapolate.half_sample_line(curves, design)
        measured.append(
            [
                (estimate.value, estimate.variance().stderr)
                for estimate in (line.full, line.intercept)
            ]
        )
        directions = fid.leading_directions(features)
        replicates = fid.weighted_distances(directions, design.groups, design.draws[-1])
        smaller.append(standard_errors.half_sample_variance(replicates).stderr)
    for name, (values, stderrs) in zip(
        ("fid", "fid_inf"), np.array(measured).transpose(1, 2, 0), strict=True
    ):
        inside = np.abs(values - values.mean()) <= 1.96 * stderrs
        assert inside.mean() > 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / 24), name
        assert np.sqrt(np.mean(stderrs**2)) < 2 * values.std(ddof=1), name
        if name == "fid":
            assert np.mean(stderrs) > 1.2 * np.mean(smaller)
