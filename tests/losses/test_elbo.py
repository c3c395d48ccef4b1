"""The bounds of an encoder on a linear-Gaussian model, whose ELBO and log p(x) are known.

Every figure is the mean of independent repetitions, and is held to 4 of its own standard errors
(5 where many are compared at once).
"""

import functools

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from thermo_ebm.likelihood import LikelihoodSettings, log_marginal_likelihood
from thermo_ebm.losses import EncoderSettings, encoder_objective
from thermo_ebm.losses.elbo import BOUNDS, ESTIMATORS
from thermo_ebm.models.encoder import Encoding
from thermo_ebm.sampling.chains import ChainSettings, Latents, SamplerSettings
from thermo_ebm.types import Batch

D = lg.LATENT_DIM
X = lg.observation()
NUM, REPETITIONS = 128, 24
NO_CHAINS = SamplerSettings(ChainSettings(0.01, 0), ChainSettings(0.01, 0))


def tilt(alpha, z):
    return z @ alpha["linear"] - (alpha["diagonal"] * z**2).sum(axis=-1) / 2


def precision(alpha):
    return 1 / lg.PRIOR_SIGMA**2 + alpha["diagonal"]


def exact_prior(alpha, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (D,)))(keys)
    return alpha["linear"] / precision(alpha) + noise / jnp.sqrt(precision(alpha))


def log_normalizer(alpha):
    of_dimension = alpha["linear"] ** 2 / precision(alpha) - jnp.log(precision(alpha))
    return jnp.sum(of_dimension + jnp.log(2 * jnp.pi)) / 2


def linear_encoder(phi, x):
    log_sigma = jnp.broadcast_to(phi["log_sigma"], (len(x), D))
    return Encoding(x @ phi["weights"].T + phi["bias"], log_sigma)


def make_model(is_known=True):
    """With exact draws of the prior; its constant known, or not."""

    def make_prior(tilt, latent_dim, sigma):
        base = lg.make_model()._replace(tilt=tilt).prior
        known = log_normalizer if is_known else None
        return base._replace(exact_sample=exact_prior, log_normalizer=known)

    return lg.make_model()._replace(tilt=tilt, make_prior=make_prior, encoder=linear_encoder)


def parameters():
    """Posteriors with independent dimensions, and an encoder that is far from them."""
    rng, beta = np.random.default_rng(3), lg.parameters()["generator"]
    columns = np.linalg.qr(beta["weights"])[0] * [0.9, 0.6, 1.1]
    return {
        "prior": {"linear": rng.normal(size=D), "diagonal": np.array([0.2, 0.5, 0.1])},
        "generator": beta | {"weights": columns},
        "encoder": {
            "weights": rng.normal(size=(D, lg.DATA_DIM)) / 6,
            "bias": rng.normal(size=D) / 4,
            "log_sigma": -0.7 + rng.normal(size=D) / 5,
        },
    }


PARAMS, MODEL = parameters(), make_model()


def as_linear_gaussian(params):
    alpha = params["prior"]
    tilts = {"linear": alpha["linear"], "quadratic": np.diag(alpha["diagonal"])}
    return {"prior": tilts, "generator": params["generator"]}


LOG_EVIDENCE = lg.log_evidence(as_linear_gaussian(PARAMS), X)


def encoding_of(params, x=X):
    phi = params["encoder"]
    return lg.Gaussian(phi["weights"] @ x + phi["bias"], np.diag(np.exp(2 * phi["log_sigma"])))


def kl_of(params):
    return lg.kl(encoding_of(params), lg.power_posterior(as_linear_gaussian(params), X, 0.0))


def elbo(params):
    """E_q[log p(x | z)] - KL(q, p_alpha), by the closed forms of Gaussians."""
    expected = lg.expected_log_likelihood(as_linear_gaussian(params), X, encoding_of(params))
    return expected - kl_of(params)


def with_posterior(params):
    """The parameters with an encoder that is the posterior of every image."""
    law = lg.power_posterior(as_linear_gaussian(params), X, 1.0)
    beta = params["generator"]
    gain = law.cov @ beta["weights"].T / lg.LIKELIHOOD_SIGMA**2
    encoder = {
        "weights": gain,
        "bias": law.cov @ params["prior"]["linear"] - gain @ beta["bias"],
        "log_sigma": np.log(np.diag(law.cov)) / 2,
    }
    return params | {"encoder": encoder}


def numerical_gradient(fn, params):
    """By central differences, in the order of `ravel_pytree`."""
    leaves, structure = jax.tree.flatten(params)
    flat = np.concatenate([np.ravel(leaf) for leaf in leaves])
    ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]

    def at(vector):
        parts = zip(np.split(vector, ends), leaves, strict=True)
        return fn(jax.tree.unflatten(structure, [p.reshape(np.shape(of)) for p, of in parts]))

    step = 1e-4
    return np.array(
        [(at(flat + row) - at(flat - row)) / (2 * step) for row in step * np.eye(flat.size)]
    )


@functools.cache
def program(settings, is_known):
    images = jnp.broadcast_to(jnp.float32(X), (NUM, lg.DATA_DIM))
    surrogate = encoder_objective(make_model(is_known), NO_CHAINS, settings).surrogate

    def once(params, states):
        def loss(params):
            values, terms = surrogate(None, params, images, states)
            return values.mean(), terms

        grads, terms = jax.grad(loss, has_aux=True)(params)
        by_group = {name: ravel_pytree(leaf)[0] for name, leaf in grads.items()}
        return by_group, jax.tree.map(jnp.mean, terms)

    return jax.jit(lambda params, states: jax.lax.map(lambda of: once(params, of), states))


def draws(settings, params=PARAMS, seed=0, is_known=True):
    """-L, the gradient by group and the terms of independent repetitions of one image."""
    rng, num = np.random.default_rng(seed), settings.num_importance_samples
    prior = lg.power_posterior(as_linear_gaussian(params), X, 0.0)
    noise = rng.normal(size=(REPETITIONS, 1, num, NUM, D))
    latents = rng.multivariate_normal(*prior, size=(REPETITIONS, 1, 1, NUM))
    numbers = jax.tree.map(jnp.float32, (params, Latents(noise, latents)))
    grads, terms = jax.tree.map(np.float64, program(settings, is_known)(*numbers))
    return terms.value, grads, terms


def joined(grads):
    return np.concatenate([grads[name] for name in sorted(grads)], axis=1)


def standard_errors_off(values, expected):
    """Largest distance of the mean over repetitions from what is expected, in standard errors."""
    stderr = values.std(0, ddof=1) / np.sqrt(len(values))
    return np.max(np.abs(values.mean(0) - expected) / np.maximum(stderr, 1e-5))


@pytest.mark.parametrize("gradient", ESTIMATORS)
def test_elbo_and_its_gradient_are_those_of_the_closed_form(gradient):
    values, grads, terms = draws(EncoderSettings("elbo", 3, gradient))
    assert LOG_EVIDENCE - elbo(PARAMS) > 1
    assert standard_errors_off(values, -elbo(PARAMS)) < 4
    assert standard_errors_off(terms.kl, kl_of(PARAMS)) < 4
    expected = -numerical_gradient(elbo, PARAMS)
    assert standard_errors_off(joined(grads), expected) < 5
    assert standard_errors_off(joined(grads), 1.1 * expected) > 10  # the test has power


@pytest.mark.slow
def test_score_function_of_a_single_sample_has_no_baseline_and_no_bias():
    settings = EncoderSettings("elbo", 1, "score_function")
    values, grads, _ = draws(settings, seed=1)
    assert standard_errors_off(values, -elbo(PARAMS)) < 4
    assert standard_errors_off(joined(grads), -numerical_gradient(elbo, PARAMS)) < 5


def test_a_constant_that_is_not_known_comes_from_draws_of_the_prior():
    values, grads, _ = draws(EncoderSettings("elbo", 3), seed=2, is_known=False)
    prior = lg.power_posterior(as_linear_gaussian(PARAMS), X, 0.0)
    reference = lg.Gaussian(np.zeros(D), lg.PRIOR_SIGMA**2 * np.eye(D))
    lower = lg.kl(prior, reference)
    assert lower > 0.1
    assert standard_errors_off(values, lower - elbo(PARAMS)) < 4
    assert standard_errors_off(joined(grads), -numerical_gradient(elbo, PARAMS)) < 5


def test_gradients_of_the_importance_weighted_bound_agree():
    by_name = {
        name: draws(EncoderSettings("importance_weighted", 3, name), seed=3) for name in ESTIMATORS
    }
    values, total, _ = by_name["reparameterized"]
    for name, (others, grads, _) in by_name.items():
        np.testing.assert_allclose(others, values, rtol=1e-5)
        assert standard_errors_off(joined(grads) - joined(total), 0.0) < 5, name
    # The groups that every estimator treats alike.
    for group in ("prior", "generator"):
        np.testing.assert_allclose(by_name["score_function"][1][group], total[group], atol=2e-5)
        doubly = by_name["doubly_reparameterized"][1][group]
        np.testing.assert_allclose(doubly, total[group], atol=2e-5)
    # The bound's gradient is another than the ELBO's.
    expected = -numerical_gradient(elbo, PARAMS)
    assert standard_errors_off(joined(total), expected) > 10

    noise = {name: grads["encoder"].var(axis=0).sum() for name, (_, grads, _) in by_name.items()}
    assert noise["doubly_reparameterized"] < noise["score_function"]


@pytest.mark.slow
def test_one_sample_of_both_bounds_is_the_same():
    one, other = (draws(EncoderSettings(bound, 1), seed=4) for bound in BOUNDS)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    np.testing.assert_allclose(joined(one[1]), joined(other[1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bound", BOUNDS)
def test_bound_of_the_posterior_is_log_evidence_without_noise(bound):
    params = with_posterior(PARAMS)
    for name in ESTIMATORS:
        values, grads, terms = draws(EncoderSettings(bound, 3, name), params, seed=5)
        np.testing.assert_allclose(values, -LOG_EVIDENCE, rtol=1e-5)
        noise = np.abs(grads["encoder"]).max()
        assert noise > 0.01 if name == "reparameterized" else noise < 1e-3, name
        size = terms.effective_sample_size
        assert np.isnan(size).all() if bound == "elbo" else np.allclose(size, 3, rtol=1e-3)


def test_optimum_of_the_elbo_is_the_posterior():
    """Adam from an encoder that is far away; prior and generator fixed."""
    rng = np.random.default_rng(4)
    images = jnp.float32(1.5 * rng.normal(size=(32, lg.DATA_DIM)))
    batch = Batch(images, jnp.arange(32), jnp.ones(32))
    objective = encoder_objective(
        MODEL, NO_CHAINS, EncoderSettings("elbo", 4, "doubly_reparameterized")
    )
    fixed = jax.tree.map(jnp.float32, PARAMS)
    optimiser = optax.adam(optax.exponential_decay(0.03, 400, 0.1))

    @jax.jit
    def optimised(phi):
        def step(carry, key):
            phi, state = carry
            grads = jax.grad(
                lambda phi: objective.loss(fixed | {"encoder": phi}, batch, key, None)[0]
            )(phi)
            updates, state = optimiser.update(grads, state)
            return (optax.apply_updates(phi, updates), state), None

        keys = jax.random.split(jax.random.key(6), 1200)
        return jax.lax.scan(step, (phi, optimiser.init(phi)), keys)[0][0]

    begin, expected = PARAMS["encoder"], with_posterior(PARAMS)["encoder"]
    assert max(np.abs(begin[name] - expected[name]).max() for name in begin) > 0.2
    for name, leaf in optimised(fixed["encoder"]).items():
        np.testing.assert_allclose(leaf, expected[name], atol=2e-3, err_msg=name)


def test_bounds_rise_with_the_samples_and_stay_below_log_evidence():
    means, errors = [], []
    for num in (1, 3, 64):
        values, _, _ = draws(EncoderSettings("importance_weighted", num), seed=7)
        means.append(-values.mean())
        errors.append(values.std(ddof=1) / np.sqrt(REPETITIONS))
    print(f"log p(x) {LOG_EVIDENCE:.4f}; bounds", np.round(means, 4), "+-", np.round(errors, 4))
    gaps, of_gaps = np.diff(means), np.hypot(errors[1:], errors[:-1])
    assert (gaps > 4 * of_gaps).all()
    assert LOG_EVIDENCE - means[-1] > 4 * errors[-1]
    assert LOG_EVIDENCE - means[-1] < (LOG_EVIDENCE - means[0]) / 3


@pytest.mark.slow
def test_annealed_smc_lies_above_both_bounds_and_at_log_evidence():
    params = jax.tree.map(jnp.float32, PARAMS)
    result = log_marginal_likelihood(
        MODEL, params, jnp.float32(X)[None], jax.random.key(8), LikelihoodSettings(error=0.02)
    )
    estimate, stderr = float(result.log_marginal_likelihood[0]), float(result.stderr[0])
    print(f"log p(x) {LOG_EVIDENCE:.4f}, SMC {estimate:.4f} +- {stderr:.4f}")
    assert abs(estimate - LOG_EVIDENCE) < 4 * stderr + 1e-3
    for settings in (EncoderSettings("elbo", 1), EncoderSettings("importance_weighted", 8)):
        values, _, _ = draws(settings, seed=9)
        error = np.hypot(stderr, values.std(ddof=1) / np.sqrt(REPETITIONS))
        assert estimate + values.mean() > 4 * error


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (lg.make_model(), EncoderSettings(), "needs a model with an encoder"),
        (MODEL, EncoderSettings("none"), "bound must be one of elbo, importance_weighted"),
        (MODEL, EncoderSettings(gradient="none"), "gradient must be one of reparameterized"),
        (MODEL, EncoderSettings(num_importance_samples=0), "num_importance_samples must be at"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=message):
        encoder_objective(model, NO_CHAINS, settings)
