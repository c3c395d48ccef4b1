"""Likelihoods of images as values: densities, draws, Fisher information, against enumerations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from thermo_ebm.models.likelihoods import bernoulli, discretized_logistic, gaussian

# Outputs of one data value each: in the middle, between two levels, at the end, beyond it.
OUTPUTS = jnp.array([0.0, 0.3 / 127.5, -0.71, 0.99, -1.0, 1.3])[:, None]
DISCRETE = {
    "bernoulli": bernoulli(),
    "narrow": discretized_logistic(0.002),
    "wide": discretized_logistic(0.1),
    "few_levels": discretized_logistic(0.2, levels=5),
}


def table(likelihood):
    """Levels [L] and their log-probabilities [outputs, L]."""
    levels = np.linspace(-1, 1, likelihood.levels).astype(np.float32)
    x = jnp.broadcast_to(levels[:, None, None], (len(levels), *OUTPUTS.shape))
    return levels, np.asarray(jax.vmap(likelihood.log_density, in_axes=(0, None))(x, OUTPUTS)).T


@pytest.mark.parametrize("name", DISCRETE)
def test_probabilities_of_all_levels_add_up_to_one(name):
    _, log_p = table(DISCRETE[name])
    np.testing.assert_allclose(np.exp(log_p.astype(float)).sum(axis=1), 1.0, atol=2e-5)


@pytest.mark.parametrize("name", ["narrow", "wide", "few_levels"])
def test_levels_have_the_mass_of_the_logistic_distribution(name):
    likelihood = DISCRETE[name]
    scale = {"narrow": 0.002, "wide": 0.1, "few_levels": 0.2}[name]
    levels, log_p = table(likelihood)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]]).astype(float)
    law = stats.logistic(np.asarray(OUTPUTS, float), scale)
    np.testing.assert_allclose(np.exp(log_p), np.diff(law.cdf(edges), axis=1), atol=2e-4)


@pytest.mark.parametrize("name", DISCRETE)
def test_information_is_the_expected_square_of_the_score(name):
    likelihood = DISCRETE[name]
    levels, log_p = table(likelihood)

    def scores(x):
        constant = jnp.full_like(OUTPUTS, x)
        return jax.grad(lambda g: likelihood.log_density(constant, g).sum())(OUTPUTS)[:, 0]

    squares = np.asarray(jax.vmap(scores)(jnp.asarray(levels))).T ** 2
    expected = np.sum(np.exp(log_p) * squares, axis=1)
    np.testing.assert_allclose(likelihood.information(OUTPUTS)[:, 0], expected, rtol=2e-3)


@pytest.mark.parametrize("name", [*DISCRETE, "gaussian"])
def test_draws_have_the_mean_and_the_variance(name):
    likelihood = DISCRETE.get(name, gaussian(0.4))
    num = 4000
    inner = OUTPUTS[:3]  # the logistic's mean and variance are those without the ends
    if name == "few_levels":  # whose ends are near
        inner = OUTPUTS[:1]
    outputs = jnp.repeat(inner, num, axis=0)
    x = likelihood.sample(jax.random.split(jax.random.key(0), len(outputs)), outputs)
    x = np.asarray(x, float).reshape(len(inner), num)
    mean, variance = likelihood.mean(inner)[:, 0], np.asarray(likelihood.variance(inner)[:, 0])
    if likelihood.levels:
        places = (x + 1) / 2 * (likelihood.levels - 1)
        np.testing.assert_allclose(places, np.round(places), atol=1e-3)
    # Of levels wider than the distribution, the mean is off by up to half of one.
    slack = 1 / (likelihood.levels - 1) if name in ("narrow", "few_levels") else 0.0
    error = 4 * np.sqrt(variance / num) + slack
    assert (np.abs(x.mean(axis=1) - mean) < error).all()
    if name != "narrow":
        np.testing.assert_allclose(x.var(axis=1), variance, rtol=0.2)
    assert (variance >= likelihood.least_variance * (1 - 1e-6)).all()


def test_a_gaussian_density_times_the_width_of_a_level_is_its_probability():
    """As documented, and dequantisation bounds its log from below, here for sigma of 3 levels."""
    width = 2 / 255
    sigma = 3 * width
    law, x = stats.norm(0.0, sigma), np.linspace(-1, 1, 256)
    x = x[np.abs(x) < 5 * sigma]
    probability = law.cdf(x + width / 2) - law.cdf(x - width / 2)
    log_p, at_level = np.log(probability), law.logpdf(x) + np.log(width)
    documented = (1 - (x / sigma) ** 2) * (width / sigma) ** 2 / 24
    np.testing.assert_allclose(at_level - log_p, documented, atol=0.003)
    assert np.abs(documented).max() > 0.05
    assert abs(np.sum(probability * (at_level - log_p))) < 1e-4
    inside = width * ((np.arange(1000) + 0.5) / 1000 - 0.5)
    dequantised = law.logpdf(x[:, None] + inside).mean(axis=1) + np.log(width)
    assert (dequantised < log_p).all()
    assert np.sum(probability * (log_p - dequantised)) < 0.01
