"""FID against closed forms and scipy's matrix square root, also where covariances are singular."""

import jax
import numpy as np
import pytest
import scipy.linalg

from thermo_ebm.metrics import fid, subsets
from thermo_ebm.metrics.arrays import FeaturePair, feature_pair
from thermo_ebm.metrics.standard_errors import WEIGHTS, ImageGroups, assign_groups
from thermo_ebm.metrics.subsets import Draw


def with_moments(rng, num, mean, covariance):
    """Points whose sample mean and covariance (ddof = 1) are exactly these."""
    points = rng.standard_normal((num, len(mean)))
    points -= points.mean(axis=0)
    whitener = np.linalg.cholesky(np.linalg.inv(np.cov(points.T)))
    return points @ whitener @ np.linalg.cholesky(covariance).T + mean


def random_covariance(rng, size):
    factor = rng.standard_normal((size, size))
    return factor @ factor.T / size + 0.1 * np.eye(size)


def sqrtm_distance(x, y):
    """The definition with scipy's general square root; complex parts dropped as everybody does."""
    first, second = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(first @ second)
    gap = x.mean(axis=0) - y.mean(axis=0)
    return gap @ gap + np.trace(first) + np.trace(second) - 2 * np.trace(root).real


def moments_distance(x, y):
    return fid.moments_distance(x.mean(axis=0), np.cov(x.T), y.mean(axis=0), np.cov(y.T))


FORMS = pytest.mark.parametrize("distance", [fid.frechet_distance, moments_distance])


@FORMS
def test_commuting_gaussians_have_the_closed_form(distance):
    """Diagonal covariances: |mu - nu|^2 + sum (s - t)^2."""
    rng = np.random.default_rng(0)
    s, t = rng.uniform(0.1, 3, 12), rng.uniform(0.1, 3, 12)
    mu, nu = rng.standard_normal((2, 12))
    x = with_moments(rng, 60, mu, np.diag(s**2))
    y = with_moments(rng, 45, nu, np.diag(t**2))
    expected = np.sum((mu - nu) ** 2) + np.sum((s - t) ** 2)
    assert distance(x, y) == pytest.approx(expected, rel=1e-10)


@FORMS
def test_two_dimensional_gaussians_have_the_closed_form(distance):
    """In two dimensions tr (A B)^(1/2) = (tr(A B) + 2 det(A B)^(1/2))^(1/2)."""
    rng = np.random.default_rng(1)
    first, second = random_covariance(rng, 2), random_covariance(rng, 2)
    x, y = with_moments(rng, 9, np.ones(2), first), with_moments(rng, 8, -np.ones(2), second)
    product = first @ second
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert distance(x, y) == pytest.approx(8 + np.trace(first + second) - 2 * root, rel=1e-10)


@FORMS
def test_fid_agrees_with_scipys_square_root(distance):
    """With fewer images than features, as many, and more."""
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((64, 64)) * np.exp(-np.arange(64) / 10)
    for num in (20, 64, 300):
        x = np.abs(rng.standard_normal((num, 64)) @ mixing.T)
        y = np.abs(rng.standard_normal((num + 5, 64)) @ mixing.T + 0.2)
        assert distance(x, y) == pytest.approx(sqrtm_distance(x, y), rel=1e-6), num


@FORMS
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")  # of scipy's own root
def test_nearly_singular_covariances_agree_with_scipy(distance):
    """Dead channels, copied channels and standard deviations over ten decades."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 200, 40)) * np.logspace(0, -10, 40)
    x[:, 5], y[:, 5] = 0.0, 0.0  # dead on both sides
    x[:, 6] = 0.0  # dead on the real side
    x[:, 7], y[:, 7] = x[:, 0], y[:, 0]
    y *= 1.3
    assert distance(x, y) == pytest.approx(sqrtm_distance(x, y), rel=1e-6)


@FORMS
def test_constant_features_have_the_distance_of_points(distance):
    x, y = np.full((5, 3), 1.0), np.full((4, 3), 3.0)
    assert distance(x, y) == pytest.approx(12.0)


@FORMS
def test_a_set_is_at_no_distance_from_itself(distance):
    rng = np.random.default_rng(4)
    for num in (30, 400):
        x = 10 * np.abs(rng.standard_normal((num, 100)))
        assert abs(distance(x, x)) < 1e-3
        assert abs(distance(x, rng.permutation(x))) < 1e-3


def test_float32_features_are_computed_in_float64():
    rng = np.random.default_rng(5)
    for num in (300, 40):
        x, y = (100 + rng.standard_normal((2, num, 50))).astype(np.float32)
        exact = fid.frechet_distance(x.astype(np.float64), y.astype(np.float64))
        assert fid.frechet_distance(x, y) == exact
        assert isinstance(exact, float)


def test_distance_is_symmetric_and_quadratic_in_the_scale():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((50, 8)), rng.standard_normal((70, 8)) + 1
    assert fid.frechet_distance(x, y) == pytest.approx(fid.frechet_distance(y, x), rel=1e-12)
    assert fid.frechet_distance(3 * x, 3 * y) == pytest.approx(9 * fid.frechet_distance(x, y))


def test_fid_refuses_malformed_features():
    pairs = {
        "rank": (np.zeros(5), np.zeros((5, 2))),
        "widths": (np.zeros((5, 2)), np.zeros((5, 3))),
        "single image": (np.zeros((1, 2)), np.zeros((5, 2))),
        "no features": (np.zeros((5, 0)), np.zeros((5, 0))),
        "nan": (np.full((5, 2), np.nan), np.zeros((5, 2))),
        "integers": (np.zeros((5, 2)), np.zeros((5, 2), int)),
    }
    for name, pair in pairs.items():
        with pytest.raises(ValueError, match="features"):
            pytest.fail(f"{name}: {fid.frechet_distance(*pair)}")


def test_moments_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="moments"):
        fid.moments_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))


def skewed_features(num, width, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((width, width)) / np.sqrt(width)
    return np.abs(rng.standard_normal((num, width)) @ mixing + shift)


def draws_of_sizes(seed, *sizes):
    draws = subsets.draw_subsets(jax.random.key(seed), sizes, 150, 170, draws_per_size=1)
    return [draw for (draw,) in draws]


@pytest.mark.parametrize("degenerate", [False, True], ids=["plain", "dead and copied channels"])
def test_subset_distances_equal_the_distance_of_each_subset(degenerate):
    """Sizes below and above the number of features, and below and above half of the images."""
    features = FeaturePair(skewed_features(150, 40, 0), skewed_features(170, 40, 1, shift=0.3))
    if degenerate:
        for side in features:
            side[:, 3] = 0.0
            side[:, 4] = side[:, 5]
    draws = draws_of_sizes(3, 20, 40, 41, 60, 90, 150)
    expected = [
        fid.frechet_distance(features.real[draw.real], features.generated[draw.generated])
        for draw in draws
    ]
    np.testing.assert_allclose(fid.subset_distances(features, draws), expected, rtol=1e-6)
    same_images = [draw._replace(generated=draw.real) for draw in draws]
    same_features = feature_pair(features.real, features.real)
    assert np.abs(fid.subset_distances(same_features, same_images)).max() < 1e-3


def test_weighted_distances_start_with_the_distance_of_the_draw():
    rng = np.random.default_rng(2)
    features = FeaturePair(rng.normal(size=(80, 7)), rng.normal(size=(90, 7)) + 0.3)
    draw = Draw(rng.permutation(80)[:60], rng.permutation(90)[:50])
    real_key, generated_key = jax.random.split(jax.random.key(0))
    groups = ImageGroups(assign_groups(real_key, 80), assign_groups(generated_key, 90))
    curve = fid.weighted_distances(fid.leading_directions(features), groups, draw)
    expected = fid.frechet_distance(features.real[draw.real], features.generated[draw.generated])
    assert curve.shape == (63,)
    assert curve[0] == pytest.approx(expected, rel=1e-9)


def test_weighted_moments_are_moments_of_repeated_images():
    """Weights of 1.5 and 0.5 are those of images repeated three times and once."""
    rng = np.random.default_rng(2)
    features, groups = rng.normal(size=(80, 7)), assign_groups(jax.random.key(0), 80)
    means, covariances = fid.weighted_moments(features, groups)
    for index in (0, 5, 40):
        weights = WEIGHTS[index][groups]
        expected = np.cov(features, rowvar=False, aweights=weights)
        np.testing.assert_allclose(means[index], np.average(features, axis=0, weights=weights))
        np.testing.assert_allclose(covariances[index], expected)


def test_leading_directions_hold_most_of_the_spread():
    rng = np.random.default_rng(3)
    spectrum = np.exp(-np.arange(200) / 20)
    rotation = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    features = FeaturePair(*(rng.normal(size=(300, 200)) * spectrum @ rotation for _ in range(2)))
    directions = fid.leading_directions(features)
    assert directions.real.shape == directions.generated.shape == (300, 96)
    ratio = directions.real.var(axis=0).sum() / features.real.var(axis=0).sum()
    assert 0.99 * np.sum(spectrum[:96] ** 2) / np.sum(spectrum**2) < ratio <= 1


@pytest.mark.parametrize(("num_real", "num_generated"), [(40, 60), (40, 8), (8, 9)])
def test_influences_are_the_derivatives_by_weights(num_real, num_generated):
    """Also for fewer images than features. An image's weight grows by that of a copy of it."""
    rng = np.random.default_rng(4)
    pair = FeaturePair(
        rng.normal(size=(num_real, 10)), 0.3 + 1.2 * rng.normal(size=(num_generated, 10))
    )
    influences = fid.influences(pair)
    step = 1e-4

    def distance(weights, side):
        moments = []
        for number, features in enumerate(pair):
            w = weights if number == side else np.ones(len(features))
            mean = w @ features / w.sum()
            second = (w[:, None] * features).T @ features / w.sum()
            # As a share of the sum, so that weights of a common size give the same covariance.
            covariance = (second - np.outer(mean, mean)) * len(w) / (len(w) - 1)
            moments += [mean, covariance]
        gap = moments[0] - moments[2]
        roots = np.sqrt(np.linalg.eigvals(moments[1] @ moments[3]).astype(complex)).real
        return gap @ gap + np.trace(moments[1] + moments[3]) - 2 * roots.sum()

    for side, features in enumerate(pair):
        numeric = []
        for image in range(len(features)):
            at = step * np.eye(len(features))[image]
            numeric.append((distance(1 + at, side) - distance(1 - at, side)) / (2 * step))
        expected = len(features) * np.array(numeric)
        np.testing.assert_allclose(influences[side], expected, atol=2e-3 * np.abs(expected).max())
        assert abs(influences[side].sum()) < 1e-9 * np.abs(expected).sum()
