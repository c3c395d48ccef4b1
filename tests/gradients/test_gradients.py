"""Gradient statistics against numpy; gradient noise against a synthetic one's closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermo_ebm.gradients.noise import (
    LEAST_BLOCKS,
    NoiseSums,
    gradient_noise,
    is_resolved,
    noise_of,
    zero_sums,
)
from thermo_ebm.gradients.statistics import gradient_statistics

BATCH_SD, CHAIN_SD, CROSS_SD, MEAN = 0.5, 1.5, 0.7, 0.2
KEY = jax.random.key(5)


def random_gradient(seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return {
        "prior": {"w": rng.normal(size=(3, 4)) + offset, "b": {"c": rng.normal(size=5) * 3}},
        "generator": [rng.normal(size=(2, 2, 2)) - 1 + offset],
    }


def test_statistics_are_numpys():
    grads = random_gradient()
    alpha = np.concatenate([grads["prior"]["w"].ravel(), grads["prior"]["b"]["c"]])
    beta = grads["generator"][0].ravel()
    both = np.concatenate([alpha, beta])
    statistics = jax.jit(gradient_statistics)(jax.tree.map(jnp.float32, grads))
    expected = (both.mean(), both.var(), alpha.var(), beta.var(), np.nan)  # without an encoder
    np.testing.assert_allclose(statistics, expected, rtol=1e-5)
    phi = np.float32([1.0, 2.0, 6.0])
    statistics = gradient_statistics({"prior": phi[:1], "generator": phi[1:], "encoder": phi})
    np.testing.assert_allclose(statistics.var_encoder, phi.var(), rtol=1e-6)


def test_variance_survives_a_large_mean_in_float32():
    grads = jax.tree.map(jnp.float32, random_gradient(offset=1e4))
    entries = np.concatenate([np.float64(leaf).ravel() for leaf in jax.tree.leaves(grads["prior"])])
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

    return {"prior": {"w": leaf((30, 40), 0)}, "generator": [leaf((800,), 1)]}


PARTS = np.array([BATCH_SD**2, CHAIN_SD**2, CROSS_SD**2])  # of batch, chains and their interaction


@partial(jax.jit, static_argnums=(1, 2))
def noises(key, max_draws, num):
    """`num` independent measurements, one after another."""
    keys = jax.random.split(key, num)
    return jax.lax.map(lambda key: gradient_noise(synthetic, key, max_draws), keys)


def test_parts_of_a_synthetic_gradients_noise_add_up_and_are_the_known_ones():
    num = 40
    noise = jax.tree.map(np.float64, noises(jax.random.key(0), 32, num))
    parts = np.stack([noise.batch, noise.chains, noise.interaction])
    np.testing.assert_allclose(parts.sum(0), noise.total, rtol=1e-4)
    estimates = np.concatenate([noise.total[None], parts])
    stderr = estimates.std(1, ddof=1) / np.sqrt(num)
    expected = np.append(PARTS.sum(), PARTS)
    assert np.all(np.abs(estimates.mean(1) - expected) < 4 * stderr)
    assert np.all(stderr < 0.05 * expected)
    # The reported standard errors are the spread over measurements; that of 40 is known to a ninth.
    reported = np.sqrt((noise.stderr**2).mean(0))
    np.testing.assert_allclose(reported, estimates.std(1, ddof=1), rtol=0.5)
    # Not the squared norm of a mean over draws, which holds a share of the noise itself.
    assert PARTS.sum() / 4 > 5 * MEAN**2
    norm = noise.total / noise.relative
    finite = np.isfinite(noise.relative)
    norm = np.where(finite, norm, 0.0)  # "not resolved" is where the estimate was not above zero
    assert abs(norm.mean() - MEAN**2) < 4 * norm.std(ddof=1) / np.sqrt(num) + 0.02


def test_draws_end_when_the_totals_error_is_below_a_tenth():
    # The error of a block is about 0.03 of the total here: eight blocks, the fewest, are enough.
    assert np.all(noises(jax.random.key(1), 256, 2).draws == 4 * LEAST_BLOCKS)
    few = gradient_noise(
        lambda b, c: jax.tree.map(lambda x: x.ravel()[:5], synthetic(b, c)), KEY, 80
    )
    assert 4 * LEAST_BLOCKS < few.draws <= 80


@pytest.mark.parametrize("entries", [20, 400])
def test_standard_errors_cover_where_the_rule_ends(entries):
    """Blocks of a gradient whose noise has as many independent, equal directions as entries."""
    num = 2000
    rng = np.random.default_rng(entries)
    of_block = jnp.float32(rng.chisquare(entries, size=(num, 64)) / entries)  # the truth is 1

    def measure(values):
        def add(sums):
            value = values[sums.blocks]
            return NoiseSums(sums.blocks + 1, sums.values + value, sums.squares + value**2)

        sums = jax.lax.while_loop(lambda sums: ~is_resolved(sums, 256), add, zero_sums())
        return noise_of(sums, 1)

    noise = jax.jit(jax.vmap(measure))(of_block)
    covered = np.abs(noise.total - 1) < 1.96 * noise.stderr[:, 0]
    # 0.90 to 0.91, with a standard error of 0.007 over 2,000 measurements.
    assert 0.88 < covered.mean() < 0.95
    assert np.all(noise.draws >= 4 * LEAST_BLOCKS)


def test_noise_where_only_one_source_exists():
    def only_batch(batch_key, chain_key):
        return synthetic(batch_key, jax.random.key(0))

    def only_chains(batch_key, chain_key):
        return synthetic(jax.random.key(0), chain_key)

    @jax.jit
    def both(key):
        return [gradient_noise(gradient, key, 8) for gradient in (only_batch, only_chains)]

    noise = both(jax.random.key(1))
    assert max(abs(noise[0].chains), abs(noise[0].interaction)) < 1e-10 < 0.1 < noise[0].batch
    assert max(abs(noise[1].batch), abs(noise[1].interaction)) < 1e-10 < 0.1 < noise[1].chains


def test_no_draw_is_used_twice():
    values = []

    def gradient(batch_key, chain_key):
        value = jnp.stack([jax.random.uniform(batch_key), jax.random.uniform(chain_key)])
        jax.debug.callback(lambda v: values.append(np.asarray(v)), value, ordered=True)
        return {"prior": value[:1], "generator": value[1:]}

    noise = jax.jit(lambda key: gradient_noise(gradient, key, 8))(jax.random.key(0))
    jax.block_until_ready(noise)
    jax.effects_barrier()
    draws = np.stack(values)
    assert len(draws) == noise.draws == 8
    # A block crosses two batches with two sets of chains; the next has others.
    for start in (0, 4):
        block = draws[start : start + 4]
        assert len(np.unique(block, axis=0)) == 4
        assert all(len(np.unique(column)) == 2 for column in block.T)
    assert all(len(np.unique(column)) == 4 for column in draws.T)


def test_refuses_fewer_draws_than_two_blocks():
    with pytest.raises(ValueError, match="max_draws must be at least 8, not 7"):
        gradient_noise(synthetic, jax.random.key(0), 7)
