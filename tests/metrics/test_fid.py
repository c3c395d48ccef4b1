"""FID against closed forms and scipy's matrix square root, also where covariances are singular."""

import numpy as np
import pytest
import scipy.linalg

from thermo_ebm.metrics import fid


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
@pytest.mark.parametrize("num", [20, 64, 300], ids=["N<D", "N=D", "N>D"])
def test_agrees_with_scipys_square_root(distance, num):
    rng = np.random.default_rng(2)
    mixing = rng.standard_normal((64, 64)) * np.exp(-np.arange(64) / 10)
    x = np.abs(rng.standard_normal((num, 64)) @ mixing.T)
    y = np.abs(rng.standard_normal((num + 5, 64)) @ mixing.T + 0.2)
    assert distance(x, y) == pytest.approx(sqrtm_distance(x, y), rel=1e-6)


@FORMS
@pytest.mark.filterwarnings("ignore::scipy.linalg.LinAlgWarning")  # of scipy's own root
def test_nearly_singular_covariances(distance):
    """Dead channels, copied channels and standard deviations over ten decades."""
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 200, 40)) * np.logspace(0, -10, 40)
    x[:, 5], y[:, 5] = 0.0, 0.0  # dead on both sides
    x[:, 6] = 0.0  # dead on one
    x[:, 7], y[:, 7] = x[:, 0], y[:, 0]
    y *= 1.3
    assert distance(x, y) == pytest.approx(sqrtm_distance(x, y), rel=1e-6)


@FORMS
def test_constant_features_are_points(distance):
    x, y = np.full((5, 3), 1.0), np.full((4, 3), 3.0)
    assert distance(x, y) == pytest.approx(12.0)


@FORMS
@pytest.mark.parametrize("num", [30, 400])
def test_a_set_is_at_no_distance_from_itself(distance, num):
    rng = np.random.default_rng(4)
    x = 10 * np.abs(rng.standard_normal((num, 100)))
    assert abs(distance(x, x)) < 1e-3
    assert abs(distance(x, rng.permutation(x))) < 1e-3


@pytest.mark.parametrize("shape", [(300, 50), (40, 50)])
def test_float32_features_are_computed_in_float64(shape):
    rng = np.random.default_rng(5)
    x = (100 + rng.standard_normal(shape)).astype(np.float32)
    y = (100 + rng.standard_normal(shape)).astype(np.float32)
    exact = fid.frechet_distance(x.astype(np.float64), y.astype(np.float64))
    assert fid.frechet_distance(x, y) == exact
    assert isinstance(exact, float)


def test_symmetric_and_of_the_right_scale():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((50, 8)), rng.standard_normal((70, 8)) + 1
    assert fid.frechet_distance(x, y) == pytest.approx(fid.frechet_distance(y, x), rel=1e-12)
    assert fid.frechet_distance(3 * x, 3 * y) == pytest.approx(9 * fid.frechet_distance(x, y))


@pytest.mark.parametrize(
    ("real", "generated"),
    [
        (np.zeros(5), np.zeros((5, 2))),
        (np.zeros((5, 2)), np.zeros((5, 3))),
        (np.zeros((1, 2)), np.zeros((5, 2))),
        (np.zeros((5, 0)), np.zeros((5, 0))),
        (np.full((5, 2), np.nan), np.zeros((5, 2))),
        (np.zeros((5, 2)), np.zeros((5, 2), int)),
    ],
    ids=["rank", "widths", "one image", "no features", "nan", "integers"],
)
def test_wrong_features_are_refused(real, generated):
    with pytest.raises(ValueError, match="features"):
        fid.frechet_distance(real, generated)


def test_moments_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="moments"):
        fid.moments_distance(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
