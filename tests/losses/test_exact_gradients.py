"""The losses with their own Langevin chains on a linear-Gaussian model, where log p(x) is known.

Every figure is the mean of independent repetitions, and is held to 4 of its own standard errors
(5 where many are compared at once). The chains are long and their steps small enough for their bias
to be below one standard error, which a test checks with their exact laws.
"""

from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.thermo.integral import thermodynamic_integral
from thermo_ebm.types import Batch

PARAMS, X = lg.parameters(), lg.observation()
LOG_EVIDENCE = lg.log_evidence(PARAMS, X)
NUM, REPETITIONS = 200, 20
SHORT = SamplerSettings(
    prior=ChainSettings(0.3, 3), posterior=ChainSettings(0.1, 3), chains_per_image=1
)
LONG = SamplerSettings(
    prior=ChainSettings(0.01, 350), posterior=ChainSettings(0.005, 700), chains_per_image=1
)
EXACT = LossSettings(
    3,
    power=0.5,
    quadrature="trapezium",
    correction="pooled_gaussian",
    generator_gradient="posterior",
)


def batch_of_one_image():
    images = jnp.broadcast_to(jnp.float32(X), (NUM, lg.DATA_DIM))
    return Batch(images, jnp.arange(NUM), jnp.ones(NUM))


@partial(jax.jit, static_argnums=(1, 2))
def repeated(key, sampler, settings):
    """(loss, aux, gradient) of independent repetitions."""
    params, batch, model = jax.tree.map(jnp.float32, PARAMS), batch_of_one_image(), lg.make_model()

    def once(key):
        def loss(params):
            if settings is None:
                return vanilla_loss(model, params, batch, key, sampler)
            return thermodynamic_loss(model, params, batch, key, sampler, settings)

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return value, aux, grads

    return jax.vmap(once)(jax.random.split(key, REPETITIONS))


@pytest.fixture(scope="module")
def long_run():
    return jax.tree.map(np.float64, repeated(jax.random.key(0), LONG, EXACT))


def standard_errors_off(values, expected):
    """Largest distance of the mean over repetitions from what is expected, in standard errors."""
    stderr = values.std(0, ddof=1) / np.sqrt(len(values))
    return np.max(np.abs(values.mean(0) - expected) / stderr)


def estimate_at(sampler, settings):
    """The integral over the exact laws of finite chains, and those laws."""
    temperatures = (np.arange(settings.num_temperatures + 1) / settings.num_temperatures) ** (
        settings.power
    )
    laws = [
        lg.chain_law(*lg.natural(PARAMS, X, t), *(sampler.posterior if i else sampler.prior)[:2])
        for i, t in enumerate(temperatures)
    ]
    terms = lg.path_of(PARAMS, X, laws)
    with jax.enable_x64(True):
        return float(thermodynamic_integral(temperatures, *terms)), laws


def score():
    """d log p(x) / d(alpha, beta) by central differences of the closed form, as one vector."""
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(PARAMS)])

    def value(vector):
        leaves, start = [], 0
        for leaf in jax.tree.leaves(PARAMS):
            leaves.append(vector[start : start + leaf.size].reshape(leaf.shape))
            start += leaf.size
        return lg.log_evidence(jax.tree.unflatten(jax.tree.structure(PARAMS), leaves), X)

    return np.array([(value(flat + h) - value(flat - h)) / 2e-5 for h in 1e-5 * np.eye(flat.size)])


def as_rows(grads):
    return np.stack(
        [ravel_pytree(jax.tree.map(lambda g, i=i: g[i], grads))[0] for i in range(REPETITIONS)]
    )


def test_integral_over_short_chains_is_that_of_their_laws():
    # Far from converged: the loss is held to the chains' own laws, which are known exactly.
    settings = EXACT._replace(power=1.0)
    loss, _, _ = jax.tree.map(np.float64, repeated(jax.random.key(1), SHORT, settings))
    expected, _ = estimate_at(SHORT, settings)
    assert abs(expected - LOG_EVIDENCE) > 0.1
    assert standard_errors_off(loss, -expected) < 4


def test_integral_over_long_chains_is_log_evidence(long_run):
    loss, aux, _ = long_run
    stderr = loss.std(ddof=1) / np.sqrt(REPETITIONS)
    assert stderr < 0.05
    assert standard_errors_off(loss, -LOG_EVIDENCE) < 4
    # The chains' bias is below that error.
    assert abs(estimate_at(LONG, EXACT)[0] - LOG_EVIDENCE) < stderr

    # The same samples in the printed formula, and without a correction, are far from it.
    printed = [thermodynamic_integral(*row, kl_form="sum") for row in zip(*aux[:4], strict=True)]
    plain = [thermodynamic_integral(*row) for row in zip(*aux[:2], strict=True)]
    assert standard_errors_off(np.array(printed), LOG_EVIDENCE) > 10
    assert standard_errors_off(np.array(plain), LOG_EVIDENCE) > 10


def test_contrastive_and_posterior_gradients_are_the_exact_score(long_run):
    gradients, expected = as_rows(long_run[2]), score()
    assert standard_errors_off(gradients, -expected) < 5
    # Sharp enough to tell the score from nothing.
    stderr = gradients.std(0, ddof=1) / np.sqrt(REPETITIONS)
    assert np.median(np.abs(expected) / stderr) > 10


def test_vanilla_gradient_is_the_exact_score():
    _, _, grads = repeated(jax.random.key(2), LONG, None)
    assert standard_errors_off(as_rows(jax.tree.map(np.float64, grads)), -score()) < 5


def second_moment(law):
    return law.cov + np.outer(law.mean, law.mean)


def test_score_is_the_expectations_of_eq_6_and_7():
    # The closed form's own derivative against posterior minus prior, in moments.
    prior, posterior = (lg.power_posterior(PARAMS, X, t) for t in (0.0, 1.0))
    alpha = {
        "linear": posterior.mean - prior.mean,
        "quadratic": (second_moment(prior) - second_moment(posterior)) / 2,
    }
    residual = X - PARAMS["generator"]["bias"]
    weights, variance = PARAMS["generator"]["weights"], lg.LIKELIHOOD_SIGMA**2
    product = np.outer(residual, posterior.mean) - weights @ second_moment(posterior)
    beta = {
        "bias": (residual - weights @ posterior.mean) / variance,
        "weights": product / variance,
    }
    expected = np.concatenate(
        [np.ravel(leaf) for leaf in jax.tree.leaves({"prior": alpha, "generator": beta})]
    )
    np.testing.assert_allclose(score(), expected, rtol=1e-6, atol=1e-7)
