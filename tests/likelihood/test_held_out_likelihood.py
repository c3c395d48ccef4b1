"""The held-out log-likelihood on models whose log p(x) is known, and its bounds from both sides."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest

from thermo_ebm import likelihood
from thermo_ebm.likelihood import LikelihoodSettings, bidirectional, estimators
from thermo_ebm.thermo.schedule import power_schedule
from thermo_ebm.types import make_batch

MODEL = lg.make_model()
PARAMS = jax.tree.map(jnp.float32, lg.parameters())
SETTINGS = LikelihoodSettings(
    num_temperatures=10,
    chains_per_image=8,
    steps_per_temperature=6,
    prior_steps=100,
    simulation_steps=200,
)
KEY = jax.random.key(1)


def estimate(model, params, images, settings=SETTINGS):
    run = jax.jit(partial(likelihood.estimate, model, settings=settings))
    temperatures = power_schedule(settings.num_temperatures, 3.0)
    return jax.tree.map(np.asarray, run(params, make_batch(jnp.float32(images)), temperatures, KEY))


@functools.cache
def gaussian():
    images = np.stack([lg.observation(seed) for seed in range(150)])
    truth = np.array([lg.log_evidence(lg.parameters(), x) for x in images])
    return images, truth, estimate(MODEL, PARAMS, images)


def test_estimates_are_near_the_truth_with_errors_that_cover():
    _, truth, result = gaussian()
    error = result.log_marginal_likelihood - truth
    assert abs(error.mean()) < 0.1
    inside = (np.abs(error) < 2 * result.stderr).mean()
    assert 0.90 <= inside <= 0.995
    # The bound is below by more than rounding: an estimate that is no bound would be caught.
    below = result.annealed - truth
    assert below.mean() < 2 * below.std() / np.sqrt(len(truth))


def test_scores_are_the_posteriors_means():
    images, _, result = gaussian()
    laws = [lg.power_posterior(lg.parameters(), x, 1.0) for x in images]
    square = np.array([law.mean @ law.mean + np.trace(law.cov) for law in laws])
    constant = lg.DATA_DIM / 2 * np.log(2 * np.pi * lg.LIKELIHOOD_SIGMA**2)
    exact = {
        "norm": square / (2 * lg.PRIOR_SIGMA**2),
        "reconstruction": [
            -lg.expected_log_likelihood(lg.parameters(), x, law) - constant
            for x, law in zip(images, laws, strict=True)
        ],
        "tilt": [_expected_tilt(law) for law in laws],
    }
    for name, values in exact.items():
        error = getattr(result.scores, name) - np.asarray(values)
        # Four standard errors, and what chains that have not quite arrived add: images here are far
        # from the prior.
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error)) + 0.15, name


def _expected_tilt(law):
    alpha = lg.parameters()["prior"]
    second = np.outer(law.mean, law.mean) + law.cov
    return np.sum(alpha["quadratic"] * second) / 2 - alpha["linear"] @ law.mean


@functools.cache
def bounds(num_temperatures, steps, num=200):
    settings = SETTINGS._replace(
        num_temperatures=num_temperatures, steps_per_temperature=steps, chains_per_image=2
    )
    positions = jnp.arange(num)
    draw = jax.jit(partial(bidirectional.simulate, MODEL, settings=settings))
    images, latents = draw(PARAMS, positions, KEY)
    run = jax.jit(partial(bidirectional.bidirectional, MODEL, settings=settings))
    temperatures = power_schedule(num_temperatures, 2.0)
    batch = make_batch(images)
    result = run(PARAMS, batch, latents, temperatures, jax.random.key(2))
    truth = np.array([lg.log_evidence(lg.parameters(), x) for x in np.asarray(images, float)])
    return np.asarray(images), np.asarray(latents), jax.tree.map(np.asarray, result), truth


def test_bounds_lie_on_either_side_of_the_truth():
    _, _, result, truth = bounds(4, 2)
    for sign, bound in ((-1, result.lower), (1, result.upper)):
        error = sign * (bound - truth)
        # So few temperatures and chains leave a gap of many standard errors.
        assert error.mean() > 3 * error.std() / np.sqrt(len(error))


def test_the_gap_closes_with_more_temperatures():
    (_, _, few, _), (_, _, more, _) = bounds(4, 2), bounds(12, 6)
    assert (more.upper - more.lower).mean() < 0.5 * (few.upper - few.lower).mean()


def test_simulated_images_have_the_models_moments():
    images, latents, _, _ = bounds(4, 2)
    law = lg.power_posterior(lg.parameters(), images[0], 0.0)
    weights, bias = lg.parameters()["generator"]["weights"], lg.parameters()["generator"]["bias"]
    cov = weights @ law.cov @ weights.T + lg.LIKELIHOOD_SIGMA**2 * np.eye(lg.DATA_DIM)
    for values, mean, spread in (
        (latents, law.mean, law.cov),
        (images, weights @ law.mean + bias, cov),
    ):
        deviations = np.sqrt(np.diag(spread))
        assert (np.abs(values.mean(axis=0) - mean) < 4.5 * deviations / np.sqrt(200)).all()
        # A variance of 200 draws has a relative standard error of 0.1.
        np.testing.assert_allclose(values.var(axis=0), np.diag(spread), rtol=0.45)


def test_upper_bound_uses_the_latent_of_the_image():
    # From another image's latent the reverse chains give no upper bound at all.
    images, latents, result, truth = bounds(4, 2)
    settings = SETTINGS._replace(
        num_temperatures=4, steps_per_temperature=2, chains_per_image=2, simulation_steps=200
    )
    run = jax.jit(partial(bidirectional.bidirectional, MODEL, settings=settings))
    batch = make_batch(images)
    shuffled = run(PARAMS, batch, latents[::-1], power_schedule(4, 2.0), jax.random.key(2))
    np.testing.assert_array_equal(shuffled.lower, result.lower)
    assert (np.asarray(shuffled.upper) - truth).mean() < -1.0


def test_annealing_weights_by_hand():
    temperatures = jnp.array([0.0, 0.25, 1.0])
    likelihood = jnp.array([[[-8.0]], [[-4.0]], [[-2.0]]])
    # Up: 0.25 (-8) + 0.75 (-4); down, from the last state: -0.75 (-2) - 0.25 (-4).
    assert estimators.forward_log_weights(temperatures, likelihood) == pytest.approx(-5.0)
    assert estimators.forward_log_weights(temperatures[::-1], likelihood[::-1]) == pytest.approx(
        2.5
    )
