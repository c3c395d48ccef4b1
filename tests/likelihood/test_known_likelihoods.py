"""The held-out log-likelihood where it is known: its bias, its standard errors, its lower bound."""

from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import plane_model as plane
import pytest

from thermo_ebm.likelihood import LikelihoodSettings, estimate, log_marginal_likelihood
from thermo_ebm.likelihood.bidirectional import bidirectional
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.types import make_batch

NUM_IMAGES = 240
SETTINGS = LikelihoodSettings(
    num_temperatures=12, chains_per_image=8, steps_per_temperature=6, prior_steps=60, pilots=1
)


def linear():
    """Images that the linear-Gaussian model made itself, and log p(x) of each."""
    params, rng = lg.parameters(), np.random.default_rng(0)
    z = rng.multivariate_normal(*lg.power_posterior(params, np.zeros(lg.DATA_DIM), 0.0), NUM_IMAGES)
    noise = lg.LIKELIHOOD_SIGMA * rng.normal(size=(NUM_IMAGES, lg.DATA_DIM))
    images = lg.generator(params["generator"], z) + noise
    return lg.make_model(), params, images, [lg.log_evidence(params, x) for x in images]


def nonlinear():
    params = plane.parameters()
    images = plane.simulated_images(params, NUM_IMAGES)[1]
    truth = plane.log_ratio(plane.make_grid(params, images), 1.0)
    return plane.make_model(), params, images, truth


def float32(params):
    return jax.tree.map(jnp.float32, params)


def along(model, params, images, power, settings, seed=1):
    """The estimate along a power schedule that is not adapted."""
    schedule = make_schedule("power", settings.num_temperatures, power)
    run = jax.jit(partial(estimate, model, settings=settings))
    batch = make_batch(jnp.float32(images))
    result = run(float32(params), batch, schedule.temperatures, jax.random.key(seed))
    return jax.tree.map(np.float64, result)


def check(result, truth):
    errors = result.log_marginal_likelihood - truth
    assert abs(errors.mean()) < 0.1
    assert errors.std() > 1e-3
    # At two standard errors 95 % would be covered; of 240 images the share is known to 1.4 %.
    covered = np.mean(np.abs(errors) < 2 * result.stderr)
    assert 0.90 <= covered <= 0.99
    # The errors are of the size that is reported.
    assert 0.7 < np.sqrt(np.mean(errors**2) / np.mean(result.stderr**2)) < 1.3
    # The lower bound is one: below the truth on average, by no more than its own spread says.
    below = result.annealed - truth
    assert below.mean() < 3 * below.std() / np.sqrt(len(below))


def test_estimate_is_exact_on_the_linear_model():
    model, params, images, truth = linear()
    check(along(model, params, images, 3.0, SETTINGS), np.array(truth))


@pytest.mark.slow  # minutes where nothing is optimised when it is compiled
def test_estimate_is_exact_on_the_nonlinear_model_with_an_adapted_schedule():
    model, params, images, truth = nonlinear()
    key = jax.random.key(0)
    result = log_marginal_likelihood(model, float32(params), jnp.float32(images), key)
    result = jax.tree.map(np.float64, result)
    check(result, truth)
    # Adapted to equal barriers, as far as one short pilot can.
    assert result.rejection.max() < 2.5 * result.rejection.mean()
    assert np.all((result.acceptance > 0.3) & (result.acceptance < 0.9))


def test_short_chains_bound_the_truth_from_both_sides():
    """So few temperatures and steps that annealing lags behind both ways, on simulated images."""
    params, num = plane.parameters(), 100
    z, images = plane.simulated_images(params, num)
    truth = plane.log_ratio(plane.make_grid(params, images), 1.0)
    hasty = SETTINGS._replace(num_temperatures=4, chains_per_image=2, steps_per_temperature=2)
    schedule = make_schedule("power", hasty.num_temperatures, 2.0)
    run = jax.jit(partial(bidirectional, plane.make_model(), settings=hasty))
    arrays = make_batch(jnp.float32(images)), jnp.float32(z), schedule.temperatures
    result = run(float32(params), *arrays, jax.random.key(0))
    lower, upper = np.float64(result.lower) - truth, np.float64(result.upper) - truth
    # On average below and above, by much more than chance.
    assert lower.mean() < -5 * lower.std() / np.sqrt(num)
    assert upper.mean() > 5 * upper.std() / np.sqrt(num)


def test_estimate_depends_on_positions_and_not_on_padding():
    """An image's figures are its own: in another batch, and beside images that only fill up."""
    model, params, images, _ = nonlinear()
    settings = SETTINGS._replace(num_temperatures=4, chains_per_image=3, prior_steps=10)
    temperatures = make_schedule("power", 4, 2.0).temperatures
    run = jax.jit(partial(estimate, model, settings=settings))

    def figures(images, mask):
        batch = make_batch(jnp.float32(images))._replace(mask=jnp.float32(mask))
        return run(float32(params), batch, temperatures, jax.random.key(0))

    first, wild = images[:4], images[:4].copy()
    wild[2:] = 30.0
    beside_images, beside_wild = figures(first, [1, 1, 0, 0]), figures(wild, [1, 1, 0, 0])
    np.testing.assert_allclose(
        beside_images.log_marginal_likelihood[:2],
        beside_wild.log_marginal_likelihood[:2],
        rtol=1e-5,
    )
    np.testing.assert_allclose(beside_images.rejection, beside_wild.rejection, rtol=1e-4)


def test_settings_without_a_standard_error_are_refused():
    for change in [{"chains_per_image": 1}, {"num_temperatures": 1}]:
        model, params, images, _ = linear()
        with pytest.raises(ValueError, match="at least 2 chains_per_image and 2 num_temperatures"):
            along(model, params, images[:2], 1.0, SETTINGS._replace(**change))


def test_log_marginal_likelihood_compiles_once_for_equal_shapes():
    """Every compilation traces the generator; further calls with other values trace nothing."""
    traced = []

    def generator(beta, z):
        traced.append(z.shape)
        return plane.generator(beta, z)

    model, params = plane.make_model()._replace(generator=generator), plane.parameters()
    images = jnp.float32(plane.simulated_images(params, 3)[1])
    settings = LikelihoodSettings(
        num_temperatures=2, chains_per_image=2, steps_per_temperature=1, prior_steps=1, pilots=1
    )

    def estimate(scale, seed):
        key = jax.random.key(seed)
        return log_marginal_likelihood(model, float32(params), scale * images, key, settings)

    first = estimate(1.0, 0)
    calls = len(traced)
    assert calls > 0
    second = estimate(0.5, 1)
    assert len(traced) == calls
    assert not np.array_equal(first.log_marginal_likelihood, second.log_marginal_likelihood)
    log_marginal_likelihood(model, float32(params), images[:2], jax.random.key(0), settings)
    assert len(traced) > calls
