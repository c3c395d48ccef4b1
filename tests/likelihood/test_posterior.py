"""Draws from posteriors given a part of an image, where the posterior is known exactly."""

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import plane_model as plane
import pytest
from scipy import special, stats

from thermo_ebm.likelihood import Estimator, LikelihoodSettings, prepare
from thermo_ebm.models import latent_ebm
from thermo_ebm.models.likelihoods import (
    bernoulli,
    discretized_logistic,
    gaussian,
    learned_gaussian,
    observed_only,
)
from thermo_ebm.models.prior import standard_gaussian

SETTINGS = LikelihoodSettings(
    num_temperatures=3,
    chains_per_image=8,
    num_islands=4,
    pilot_chains=8,
    batch_size=2,
    num_pairs=1024,
    num_probes=512,
    prior_chains=256,
    prior_temperatures=20,
)
NUM = 512


def drawn(model, params, x, observed, settings=SETTINGS):
    preparation = prepare(model, params, x.shape[1:], settings, jnp.asarray(observed))
    estimator = Estimator(preparation, settings, jax.random.key(1))
    estimates, _, latents = estimator.draws(x, NUM, jax.random.key(2))
    return preparation, estimates, latents.astype(np.float64)


def assert_mean(values, expected, sd=4.5):
    """The mean of draws [num, ...], against a number for each."""
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(axis=0) - expected) < sd * error)


def test_the_proposal_given_some_data_values_of_a_linear_gaussian_model():
    """It is the posterior, whose gain and covariance are known; the prior here has no tilt."""
    params, observed = lg.parameters(), np.array([1, 0, 1, 1, 0, 0, 0], bool)
    model = lg.make_model()._replace(make_prior=standard_gaussian)
    settings = SETTINGS._replace(num_pairs=8192)
    reference = prepare(
        model, jax.tree.map(jnp.float32, params), (lg.DATA_DIM,), settings, jnp.asarray(observed)
    ).reference
    weights = params["generator"]["weights"][observed]
    precision = np.eye(lg.LATENT_DIM) / lg.PRIOR_SIGMA**2
    precision += weights.T @ weights / lg.LIKELIHOOD_SIGMA**2
    covariance = np.linalg.inv(precision)
    gain = covariance @ weights.T / lg.LIKELIHOOD_SIGMA**2
    assert not np.any(reference.gain[:, ~observed])
    # Both of 4,096 pairs: relative errors of 1 / 64.
    np.testing.assert_allclose(reference.gain[:, observed], gain, atol=5 * gain.max() / 64)
    error = 5 / 64 * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) * 2)
    assert np.all(np.abs(np.linalg.inv(reference.precision) - covariance) < error)


@pytest.mark.slow
def test_draws_given_some_data_values_of_a_linear_gaussian_model():
    """Their law is the exact conditional, and log p is that of the observed values alone."""
    params, observed = lg.parameters(), np.array([1, 0, 1, 1, 0, 0, 0], bool)
    x = np.float32(np.stack([lg.observation(seed) for seed in (1, 2)]))
    preparation, estimates, latents = drawn(
        lg.make_model(), jax.tree.map(jnp.float32, params), x, observed
    )
    assert not np.any(preparation.reference.gain[:, ~observed])
    weights, bias = params["generator"]["weights"][observed], params["generator"]["bias"][observed]
    prior = lg.power_posterior(params, np.zeros(lg.DATA_DIM), 0.0)
    cov = weights @ prior.cov @ weights.T + lg.LIKELIHOOD_SIGMA**2 * np.eye(observed.sum())
    gain = prior.cov @ weights.T @ np.linalg.inv(cov)
    for number, image in enumerate(x.astype(np.float64)):
        mean = prior.mean + gain @ (image[observed] - weights @ prior.mean - bias)
        law = lg.Gaussian(mean, prior.cov - gain @ weights @ prior.cov)
        errors = latents[number] - law.mean
        assert_mean(latents[number], law.mean)
        assert_mean(np.einsum("ni,nj->nij", errors, errors), law.cov)
        # The posterior of the complete image is another one.
        complete = lg.power_posterior(params, image, 1.0)
        far = (complete.mean - law.mean) / np.sqrt(np.diag(law.cov) / NUM)
        assert np.abs(far).max() > 10
        exact = stats.multivariate_normal.logpdf(image[observed], weights @ prior.mean + bias, cov)
        error = np.hypot(estimates.stderr[number], preparation.prior.stderr)
        assert abs(estimates.log_marginal_likelihood[number] - exact) < 4 * error + 1e-3


@pytest.mark.slow
def test_draws_given_some_data_values_on_a_grid():
    """A nonlinear model; hidden values have no influence, to the bit."""
    model, params = plane.make_model(), plane.parameters()
    observed = np.arange(plane.DATA_DIM) < 4
    x = np.random.default_rng(0).normal(size=(2, plane.DATA_DIM)).astype(np.float32)
    *_, latents = drawn(model, plane.float32(params), x, observed)
    axis = np.linspace(-plane.EDGE, plane.EDGE, plane.POINTS)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    hidden_tilt, hidden = plane.features(params, z)
    log_prior = hidden_tilt @ params["prior"]["out"] - (z**2).sum(1) / 2 / plane.PRIOR_SIGMA**2
    for number, image in enumerate(x):
        errors = (image - hidden @ params["generator"]["out"])[:, observed]
        log_posterior = log_prior - (errors**2).sum(1) / 2 / plane.LIKELIHOOD_SIGMA**2
        share = special.softmax(log_posterior)
        assert_mean(latents[number], share @ z)
        assert_mean(latents[number] ** 2, share @ z**2)
    changed = np.where(observed, x, 7.0).astype(np.float32)
    *_, again = drawn(model, plane.float32(params), changed, observed)
    np.testing.assert_array_equal(again, latents)


@pytest.mark.parametrize(
    ("likelihood", "extra"),
    [
        (gaussian(0.3), 0),
        (learned_gaussian(), 1),
        (bernoulli(), 0),
        (discretized_logistic(0.1), 0),
    ],
)
def test_an_observed_part_and_the_rest_add_up(likelihood, extra):
    rng = np.random.default_rng(0)
    x = jnp.float32(rng.choice([-1.0, 1.0], (3, 4, 4, 2)))
    outputs = jnp.float32(rng.normal(size=(3, 4, 4, 2 + extra)))
    observed = jnp.asarray(rng.random((4, 4, 2)) < 0.5)
    halves = [observed_only(likelihood, part) for part in (observed, ~observed)]
    parts = sum(half.log_density(x, outputs) for half in halves)
    np.testing.assert_allclose(parts, likelihood.log_density(x, outputs), rtol=1e-5)
    moved = jnp.where(observed, x, -x)
    np.testing.assert_array_equal(
        halves[0].log_density(moved, outputs), halves[0].log_density(x, outputs)
    )
    for values in (halves[0].mean(outputs), halves[0].information(outputs)[..., :2]):
        assert not np.any(np.asarray(values)[:, ~np.asarray(observed)])


def test_a_likelihood_without_densities_of_data_values_refuses_a_mask():
    likelihood = gaussian(0.3)._replace(log_densities=None)
    model = lg.make_model()._replace(make_likelihood=lambda sigma: likelihood)
    with pytest.raises(ValueError, match="a mask needs a likelihood with `log_densities`"):
        latent_ebm.observed_only(model, jnp.ones(lg.DATA_DIM, bool))
