"""Gaussians fitted to samples: divergences, shrinkage, masks, and fewer samples than dimensions."""

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
from sklearn.covariance import oas

from thermo_ebm.thermo.integral import neighbour_kl
from thermo_ebm.thermo.moments import VARIANCE_FLOOR, shrunk_moments

pytestmark = pytest.mark.usefixtures("x64")

moments_of = jax.jit(shrunk_moments)
divergences_of = jax.jit(neighbour_kl)


def samples(num, dim, seed=0, sets=1):
    """[sets, num, dim] from Gaussians with unequal variances and a mean."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim)) * np.linspace(0.2, 2.0, dim)
    return rng.normal(size=(sets, num, dim)) @ root + rng.normal(size=dim)


@pytest.mark.parametrize(("num", "dim"), [(5, 20), (75, 30), (400, 3)])
def test_shrinkage_is_scikit_learns(num, dim):
    z = samples(num, dim, sets=2)
    moments = moments_of(z, jnp.ones(num))
    for i in range(2):
        expected, intensity = oas(z[i])
        assert 0 < intensity <= 1
        np.testing.assert_allclose(moments.mean[i], z[i].mean(0), rtol=1e-10, atol=1e-12)
        expected = expected + VARIANCE_FLOOR * np.eye(dim)
        np.testing.assert_allclose(moments.cov[i], expected, rtol=1e-9, atol=1e-11)


def test_divergence_of_two_sample_sets_is_the_closed_form():
    p = lg.power_posterior(lg.parameters(), lg.observation(), 0.0)
    q = lg.power_posterior(lg.parameters(), lg.observation(), 0.5)
    rng = np.random.default_rng(0)
    draws = [
        [rng.multivariate_normal(law.mean, law.cov, size=4000) for law in (p, q)] for _ in range(10)
    ]
    values = np.array([divergences_of(moments_of(np.stack(d), jnp.ones(4000))) for d in draws])[
        ..., 0
    ]
    # Ten independent sets: within 4 standard errors, and the errors are small enough to matter.
    stderr = values.std(0, ddof=1) / np.sqrt(10)
    expected = np.array([lg.kl(p, q), lg.kl(q, p)])
    assert np.all(stderr < 0.02 * expected)
    assert abs(expected[0] - expected[1]) > 10 * stderr.max()
    assert np.all(np.abs(values.mean(0) - expected) < 4 * stderr)


@pytest.mark.parametrize("num", [1, 2, 10])
@pytest.mark.parametrize("enable_x64", [True, False])
def test_moments_of_fewer_samples_than_dimensions(num, enable_x64):
    with jax.enable_x64(enable_x64):
        z = jnp.asarray(samples(num, 40, sets=4))
        moments = moments_of(z, jnp.ones(num))
        assert moments.cov.dtype == (np.float64 if enable_x64 else np.float32)
        assert np.linalg.eigvalsh(np.asarray(moments.cov, np.float64)).min() > 0
        for divergence in divergences_of(moments):
            assert np.all(np.isfinite(divergence))
            assert np.all(divergence >= 0)


def test_moments_of_equal_samples():
    moments = moments_of(np.ones((2, 6, 3)), jnp.ones(6))
    np.testing.assert_allclose(moments.cov[0], VARIANCE_FLOOR * np.eye(3), rtol=1e-9)
    np.testing.assert_allclose(divergences_of(moments), 0.0, atol=1e-9)


def test_mask_leaves_padding_out_of_the_moments():
    z = samples(9, 4, sets=3)
    padded = np.concatenate([z[:, :4], np.full((3, 2, 4), 1e3), z[:, 4:], np.zeros((3, 1, 4))], 1)
    mask = np.array([1.0] * 4 + [0.0] * 2 + [1.0] * 5 + [0.0])
    expected = moments_of(z, jnp.ones(9))
    masked = moments_of(padded, mask)
    np.testing.assert_allclose(masked.mean, expected.mean, rtol=1e-10)
    np.testing.assert_allclose(masked.cov, expected.cov, rtol=1e-10, atol=1e-12)


def test_moments_refuse_other_shapes():
    with pytest.raises(AssertionError):
        shrunk_moments(jnp.zeros((5, 3)), jnp.ones(5))
    with pytest.raises(AssertionError):
        shrunk_moments(jnp.zeros((2, 5, 3)), jnp.ones(4))
