"""The line in 1/N: exact values, coverage of its standard error, and FID's bias."""

import jax
import numpy as np
import pytest
import scipy.stats

from thermo_ebm.metrics import extrapolate, fid, subsets
from thermo_ebm.metrics.arrays import FeaturePair

SIZES = (1000, 1389, 1778, 2167, 2556, 2944, 3333, 3722, 4111, 4500)


def test_extrapolation_recovers_a_known_bias_exactly():
    fit = extrapolate.extrapolate(SIZES, [3.7 + 520.0 / size for size in SIZES])
    assert fit.intercept == pytest.approx(3.7, rel=1e-12)
    assert fit.slope == pytest.approx(520.0, rel=1e-10)
    assert fit.stderr == pytest.approx(0.0, abs=1e-10)
    assert fit.r_squared == pytest.approx(1.0)


def test_extrapolation_agrees_with_scipys_regression():
    rng = np.random.default_rng(0)
    values = 1 + 100 / np.array(SIZES) + rng.normal(0, 0.01, 10)
    fit = extrapolate.extrapolate(SIZES, values)
    regression = scipy.stats.linregress(1 / np.array(SIZES), values)
    expected = (
        regression.intercept,
        regression.intercept_stderr,
        regression.slope,
        regression.rvalue**2,
    )
    assert fit == pytest.approx(expected, rel=1e-9)


def test_standard_error_of_the_extrapolation_covers():
    """Over 2,000 noisy lines, the share of t-intervals of 95 % that contain it, to 3 errors."""
    rng = np.random.default_rng(1)
    width = scipy.stats.t.ppf(0.975, len(SIZES) - 2)
    line = 2 + 300 / np.array(SIZES)
    fits = [extrapolate.extrapolate(SIZES, line + rng.normal(0, 0.05, 10)) for _ in range(2000)]
    inside = np.mean([abs(fit.intercept - 2) < width * fit.stderr for fit in fits])
    assert abs(inside - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 2000)
    errors = [fit.intercept - 2 for fit in fits]
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(2000)


def test_extrapolation_removes_most_of_fids_bias():
    """Two equal Gaussians: FID_N falls like 1/N and the intercept is near its true value, 0."""
    rng = np.random.default_rng(2)
    intercepts, largest = [], []
    for repeat in range(5):
        features = FeaturePair(*rng.standard_normal((2, 900, 16)))
        sizes = subsets.extrapolation_sizes(900)
        draws = subsets.draw_subsets(jax.random.key(repeat), sizes, 900, 900)
        values = [fid.subset_distances(features, draws_of_size).mean() for draws_of_size in draws]
        intercepts.append(extrapolate.extrapolate(sizes, values).intercept)
        largest.append(values[-1])
    assert np.mean(largest) > 0.1
    assert abs(np.mean(intercepts)) < 0.15 * np.mean(largest)


def test_constant_values_have_no_r_squared():
    fit = extrapolate.extrapolate(SIZES, np.ones(10))
    assert (fit.intercept, fit.stderr, fit.slope) == (1.0, 0.0, 0.0)
    assert np.isnan(fit.r_squared)


def test_malformed_points_are_refused():
    points = {
        "two points": ((1000, 2000), (1.0, 2.0)),
        "different lengths": ((1000, 2000, 3000), (1.0, 2.0)),
        "a single size": ((1000, 1000, 1000), (1.0, 2.0, 3.0)),
        "size 0": ((0, 1000, 2000), (1.0, 2.0, 3.0)),
        "nan": ((1000, 2000, 3000), (1.0, np.nan, 3.0)),
        "rank": (((1000, 2000, 3000),), ((1.0, 2.0, 3.0),)),
    }
    for name, (sizes, values) in points.items():
        with pytest.raises(ValueError, match="sizes"):
            pytest.fail(f"{name}: {extrapolate.extrapolate(sizes, values)}")


def test_intercept_weights_give_the_intercept():
    values = np.random.default_rng(3).normal(size=10)
    intercept = extrapolate.intercept_weights(SIZES) @ values
    assert intercept == pytest.approx(extrapolate.extrapolate(SIZES, values).intercept, rel=1e-12)


def test_fid_curves_average_draws_around_the_exact_first_draw():
    rng = np.random.default_rng(8)
    features = FeaturePair(rng.normal(size=(60, 100)), rng.normal(size=(60, 100)) * 1.2)
    design = extrapolate.make_design(jax.random.key(0), (20, 40, 60), 60, 60)
    assert [len(draw.real) for draw in design.draws] == [20] * 4 + [40] * 4 + [60]
    expected_averages = [[0.25] * 4 + [0] * 5, [0] * 4 + [0.25] * 4 + [0], [0] * 8 + [1]]
    np.testing.assert_array_equal(design.averages, expected_averages)
    curves = extrapolate.fid_curves(features, design).values
    assert curves.shape == (9, 63)
    for index in (0, 4, 8):
        draw = design.draws[index]
        exact = fid.frechet_distance(features.real[draw.real], features.generated[draw.generated])
        assert curves[index, 0] == pytest.approx(exact, rel=1e-6)


def test_unequal_sets_have_a_last_draw_of_all_images():
    design = extrapolate.make_design(jax.random.key(0), (20, 40), 50, 40)
    assert len(design.draws) == 9
    assert sorted(design.draws[-1].real) == list(range(50))
    assert design.averages[-1].tolist() == [0] * 8 + [1]
