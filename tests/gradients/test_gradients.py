"""Gradient statistics against numpy; gradient noise against a synthetic one's closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick

from thermo_ebm.gradients.noise import gradient_noise
from thermo_ebm.gradients.statistics import gradient_statistics
from thermo_ebm.types import Params

BATCH_SD, CHAIN_SD, CROSS_SD, MEAN = 0.5, 1.5, 0.7, 0.2
SIZE = 30 * 40 + 800


def random_gradient(seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return Params(
        {"w": rng.normal(size=(3, 4)) + offset, "b": {"c": rng.normal(size=5) * 3}},
        [rng.normal(size=(2, 2, 2)) - 1 + offset],
    )


def test_statistics_are_numpys():
    grads = random_gradient()
    alpha = np.concatenate([grads.alpha["w"].ravel(), grads.alpha["b"]["c"]])
    beta = grads.beta[0].ravel()
    both = np.concatenate([alpha, beta])
    statistics = jax.jit(gradient_statistics)(jax.tree.map(jnp.float32, grads))
    expected = (both.mean(), both.var(), alpha.var(), beta.var())
    np.testing.assert_allclose(statistics, expected, rtol=1e-5)


def test_variance_survives_a_large_mean_in_float32():
    grads = jax.tree.map(jnp.float32, random_gradient(offset=1e4))
    entries = np.concatenate([np.float64(leaf).ravel() for leaf in jax.tree.leaves(grads.alpha)])
    statistics = gradient_statistics(grads)
    np.testing.assert_allclose(statistics.var_prior, entries.var(), rtol=1e-3)
    constant = jax.tree.map(lambda leaf: jnp.full_like(leaf, 3.0), grads)
    np.testing.assert_allclose(gradient_statistics(constant).var, 0.0, atol=1e-10)


def synthetic(batch_key, chain_key):
    """mean + batch noise + chain noise + their product, in two leaves of different shapes."""

    def leaf(shape, i):
        batch, chain = (
            jax.random.normal(jax.random.fold_in(key, i), shape) for key in (batch_key, chain_key)
        )
        return MEAN + BATCH_SD * batch + CHAIN_SD * chain + CROSS_SD * batch * chain

    return Params({"w": leaf((30, 40), 0)}, [leaf((800,), 1)])


def noise_and_standard_errors(num_draws):
    """Exact total, batch and chain noise of `synthetic`, and the error of estimating each."""
    b, c, x, n = BATCH_SD, CHAIN_SD, CROSS_SD, num_draws
    total = b**2 + c**2 + x**2
    # Fourth moment of an entry bB + cC + xBC: given B it is normal with mean bB, sd c + xB.
    fourth = 3 * b**4 + 6 * b**2 * (c**2 + 3 * x**2) + 3 * (c**4 + 6 * c**2 * x**2 + 3 * x**4)
    errors = [(fourth - total**2 * (n - 3) / (n - 1)) / n]
    for redrawn in (b, c):
        # With the other source kept, an entry's variance is (redrawn + xK)^2, K normal.
        square = redrawn**2 + x**2
        fourth = redrawn**4 + 6 * redrawn**2 * x**2 + 3 * x**4
        errors.append(fourth * (1 + 2 / (n - 1)) - square**2)
    return np.array([total, b**2 + x**2, c**2 + x**2]), np.sqrt(np.array(errors) / SIZE)


@pytest.mark.parametrize("num_draws", [2, 16])
def test_noise_of_a_synthetic_gradient(num_draws):
    noise = quick.jit(partial(gradient_noise, synthetic), static_argnums=1)(
        jax.random.key(num_draws), num_draws
    )
    expected, stderr = noise_and_standard_errors(num_draws)
    assert np.all(np.abs(np.array(noise[:3]) - expected) < 4 * stderr)
    assert np.all(stderr < 0.1 * expected)
    # Not the squared norm of the mean over draws, which holds a share of the noise itself.
    share = expected[0] / num_draws
    error = np.sqrt((2 * share**2 + 4 * MEAN**2 * share) / SIZE) + stderr[0] / num_draws
    assert error < 0.5 * share  # so that without the share taken off this fails
    assert abs(noise.total / noise.relative - MEAN**2) < 4 * error


def test_noise_where_only_one_source_exists():
    def only_batch(batch_key, chain_key):
        return synthetic(batch_key, jax.random.key(0))

    def only_chains(batch_key, chain_key):
        return synthetic(jax.random.key(0), chain_key)

    @quick.jit
    def both(key):
        return [gradient_noise(gradient, key, 4) for gradient in (only_batch, only_chains)]

    noise = both(jax.random.key(1))
    assert noise[0].mcmc < 1e-10 < 0.1 < noise[0].batch
    assert noise[1].batch < 1e-10 < 0.1 < noise[1].mcmc


def test_noise_is_the_variance_of_the_draws():
    # The draws themselves, taken out as they are made, and numpy's variance of them.
    seen = []

    def gradient(batch_key, chain_key):
        value = jax.random.uniform(batch_key, (3,)) + 10 * jax.random.uniform(chain_key, (3,))
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), value, ordered=True)
        return Params(value[:1], value[1:])

    noise = quick.jit(lambda key: gradient_noise(gradient, key, 5))(jax.random.key(0))
    jax.block_until_ready(noise)
    jax.effects_barrier()
    draws = np.stack(seen).reshape(3, 5, 3)
    variances = draws.var(1, ddof=1)
    np.testing.assert_allclose(noise[:3], variances.mean(1), rtol=1e-5)
    total = variances[0].sum()
    relative = total / ((draws[0].mean(0) ** 2).sum() - total / 5)
    np.testing.assert_allclose(noise.relative, relative, rtol=1e-5)
    assert len(np.unique(draws.reshape(15, 3), axis=0)) == 15  # no draw twice


def test_refuses_a_single_draw():
    with pytest.raises(ValueError, match="grad_noise_draws must be at least 2"):
        gradient_noise(synthetic, jax.random.key(0), 1)
