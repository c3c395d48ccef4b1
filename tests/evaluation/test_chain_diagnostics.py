"""Effective sample size and R-hat: of autoregressive chains with known values, and as ArviZ has."""

import itertools

import numpy as np
import pytest
from scipy import signal

from thermo_ebm.evaluation.chains import diagnostics


def autoregressive(rho, num_chains=8, num_draws=2000, seed=0):
    """x_k = rho x_(k-1) + sqrt(1 - rho^2) noise, from its own law: tau = (1 + rho) / (1 - rho)."""
    noise = np.random.default_rng(seed).normal(size=(num_chains, num_draws))
    noise[:, 1:] *= np.sqrt(1 - rho**2)
    return signal.lfilter([1.0], [1.0, -rho], noise, axis=1)


def test_sample_size_of_autoregressive_chains():
    for rank_normalise in [False, True]:
        for rho in (-0.4, 0.0, 0.5, 0.9):
            draws = np.stack([autoregressive(rho, seed=seed) for seed in range(20)], axis=-1)
            sizes = diagnostics.effective_sample_size(draws, rank_normalise)
            exact = draws[..., 0].size * (1 - rho) / (1 + rho)
            # The mean over 20 sets of chains: within 4 of its standard errors and the 3 % of the
            # bias that a truncated sequence has. tau of the next value of rho is further away.
            tolerance = 4 * sizes.std(ddof=1) / np.sqrt(len(sizes)) + 0.03 * exact
            assert abs(sizes.mean() - exact) < tolerance < 0.2 * exact, rho


def test_the_mean_is_as_uncertain_as_the_sample_size_says():
    rho, num = 0.8, 400
    draws = np.stack([autoregressive(rho, 2, 500, seed) for seed in range(num)], axis=-1)
    sizes = diagnostics.effective_sample_size(draws, rank_normalise=False)
    scaled = draws.mean(axis=(0, 1)) * np.sqrt(np.median(sizes))
    # A variance of 1, within 4 standard errors of sqrt(2 / num) and the estimate's 5 %.
    assert abs(scaled.var(ddof=1) - 1) < 4 * np.sqrt(2 / num) + 0.05


def test_r_hat_detects_shifted_scaled_and_drifting_chains():
    draws = autoregressive(0.3)
    assert diagnostics.split_r_hat(draws) < 1.005
    shifted = draws + np.array([0.0] * 7 + [1.0])[:, None]
    scaled = draws * np.array([1.0] * 6 + [3.0] * 2)[:, None]
    drifting = draws + np.linspace(-1, 1, draws.shape[1])
    for chains in (shifted, scaled, drifting):
        assert diagnostics.split_r_hat(chains) > 1.04


def test_r_hat_by_hand():
    """Two chains of four draws: halves [1, 2], [5, 6], [3, 4], [7, 8], whose ranks are themselves.

    Their normal scores z_r = Phi^-1((r - 3/8) / 8.25), and B and W by hand.
    """
    from scipy.stats import norm

    z = norm.ppf((np.arange(1, 9) - 3 / 8) / 8.25).reshape(4, 2)
    within = np.mean((z[:, 1] - z[:, 0]) ** 2 / 2)
    total = within / 2 + np.var(z.mean(axis=1), ddof=1)
    draws = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    # The order of the halves does not matter.
    assert diagnostics.split_r_hat(draws) == pytest.approx(np.sqrt(total / within))


def test_further_axes_are_separate_quantities():
    draws = np.random.default_rng(1).normal(size=(3, 50, 2, 4)).cumsum(axis=1)
    for function in (diagnostics.effective_sample_size, diagnostics.split_r_hat):
        values = function(draws)
        assert values.shape == (2, 4)
        np.testing.assert_allclose(values[1, 2], function(draws[:, :, 1, 2]))


def test_rank_normalised_sizes_ignore_monotone_functions():
    size, draws = diagnostics.effective_sample_size, autoregressive(0.6)
    np.testing.assert_allclose(size(np.exp(draws)), size(draws))
    assert abs(size(np.exp(2 * draws), False) / size(draws, False) - 1) > 0.05


def test_undefined_diagnostics_are_nan():
    constant, good = np.ones((2, 8)), autoregressive(0.0, 2, 8)
    for value in (np.nan, np.inf):
        broken = good.copy()
        broken[0, 3] = value
        for function in (diagnostics.effective_sample_size, diagnostics.split_r_hat):
            assert np.isnan(function(constant))
            assert np.isnan(function(broken))
            assert np.isfinite(function(np.stack([good, broken], -1))[0])


def test_too_few_draws_are_refused():
    for function in (diagnostics.effective_sample_size, diagnostics.split_r_hat):
        with pytest.raises(ValueError, match="at least 4"):
            function(np.zeros((2, 3)))


def test_both_diagnostics_equal_those_of_arviz():
    arviz = pytest.importorskip("arviz")
    size = diagnostics.effective_sample_size
    for rho, num_draws in itertools.product((-0.3, 0.0, 0.7, 0.95), (40, 101, 1000)):
        draws = autoregressive(rho, 4, num_draws, seed=3) ** 3 + np.array([0, 0, 0, 0.3])[:, None]
        even = draws[:, : num_draws - num_draws % 2]  # ArviZ splits for "mean" too
        assert size(draws) == pytest.approx(arviz.ess(draws, method="bulk"), rel=1e-9)
        assert size(even, False) == pytest.approx(arviz.ess(even, method="mean"), rel=1e-9)
        assert diagnostics.split_r_hat(draws) == pytest.approx(arviz.rhat(draws, method="rank"))
