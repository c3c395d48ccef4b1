"""The prior of given latents: its density where it is known, and settings that are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import thermo_ebm as te

SIGMA = 1.2
GRID = np.linspace(-6, 6, 2001)


def mixture_log_density(z):
    """Of each of two dimensions: two narrow modes, and a shifted Gaussian."""
    first = special.logsumexp(stats.norm([-0.8, 0.9], 0.25).logpdf(z[:, :1]), axis=1) - np.log(2)
    return np.stack([first, stats.norm(0.5, 0.4).logpdf(z[:, 1])], axis=1)


def draws(num, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.choice([-0.8, 0.9], num) + 0.25 * rng.normal(size=num)
    return np.stack([first, 0.5 + 0.4 * rng.normal(size=num)], axis=1)


def best_gain():
    """The divergence of the latents' law from p0: no prior can gain more on average."""
    log_p = mixture_log_density(np.stack([GRID, GRID], axis=1))
    log_ratio = log_p - stats.norm(0, SIGMA).logpdf(GRID)[:, None]
    return float(np.sum(np.exp(log_p) * log_ratio) * (GRID[1] - GRID[0]))


def assert_fits(settings, num):
    fitted = te.fit_prior(draws(num), jax.random.key(0), settings)
    assert fitted.verdict.reliable
    assert fitted.gain_stderr < 0.1
    # Within the error, and at most 0.06 nats for the shape and the chance of the latents.
    assert -0.06 - 4 * fitted.gain_stderr < fitted.gain - best_gain() < 4 * fitted.gain_stderr
    # The density itself, on points of the latents' law that no fit has seen.
    z = draws(20000, seed=1)
    log_p0 = stats.norm(0, SIGMA).logpdf(z).sum(axis=1)
    tilt = np.asarray(fitted.model.tilt(fitted.alpha, jnp.float32(z)), np.float64)
    log_p = tilt - float(fitted.log_z.log_z) + log_p0
    divergence = (mixture_log_density(z).sum(axis=1) - log_p).mean()
    assert -0.02 < divergence < 0.08
    return fitted


def test_independent_dimensions_by_exact_likelihood():
    settings = te.PriorFitSettings(
        "factorized", 16, sigma=SIGMA, num_updates=400, learning_rate=0.03
    )
    fitted = assert_fits(settings, 4000)
    assert float(fitted.log_z.stderr) == 0.0
    old = te.make_model(
        channels=1,
        latent_dim=2,
        generator_features=4,
        generator_widths=(2, 1),
        generator_strides=(1, 2, 1),
    )
    new = fitted.attach(old)
    z = jnp.float32(draws(5))
    np.testing.assert_array_equal(
        te.log_prior(new, fitted.alpha, z), te.log_prior(fitted.model, fitted.alpha, z)
    )
    assert (new.generator, new.prior_sigma) == (old.generator, SIGMA)


@pytest.mark.slow
def test_a_network_by_persistent_chains():
    updates = []
    settings = te.PriorFitSettings("mlp", 32, sigma=SIGMA, num_updates=1000, learning_rate=0.01)
    fitted = assert_fits(settings, 4000)
    again = te.fit_prior(draws(4000), jax.random.key(0), settings, updates.append)
    assert sum(updates) == 1000
    assert again.gain == fitted.gain


@pytest.mark.parametrize(
    ("latents", "changes", "message"),
    [
        (draws(19), {}, r"latents have shape \(19, 2\), must be at least 20"),
        (np.full((30, 2), np.nan), {}, "finite rows"),
        (draws(30), {"prior": "gaussian"}, "prior is 'gaussian', must be one of mlp, factorized"),
        (draws(30), {"num_updates": 0}, "num_updates is 0, must be positive"),
        (draws(30), {"l2": -1.0}, "l2 is -1.0, must not be negative"),
    ],
)
def test_wrong_arguments_are_one_line(latents, changes, message):
    with pytest.raises(ValueError, match=message):
        te.fit_prior(latents, jax.random.key(0), te.PriorFitSettings(**changes))
