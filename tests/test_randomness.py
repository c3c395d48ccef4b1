"""The tree of keys: its numbers are those of earlier runs, and no two of its leaves are alike."""

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm import randomness
from thermo_ebm.randomness import StepKeys, all_chain_keys, chain_keys

KEY = jax.random.key(7)


def test_numbers_are_those_of_earlier_runs():
    """A resumed run draws what it would have drawn: these numbers may never change."""
    uses = (
        "INIT ORDER CHAINS VALIDATION GRADIENT_NOISE PICTURES EVALUATION AMPLIFICATION LIKELIHOOD"
    )
    assert [getattr(randomness, name) for name in uses.split()] == list(range(9))
    tables = "VALIDATION_IMAGES SIMULATION"
    assert [getattr(randomness, name) for name in tables.split()] == list(range(2))
    assert randomness.CHAIN == 2**31 - 2**16
    steps = randomness.STEP_NOISE, randomness.STEP_ACCEPT, randomness.STEP_EXCHANGE
    assert steps == (0, 2**30, 2**30 + 2**29)


def test_no_two_chain_keys_are_alike():
    keys = all_chain_keys(KEY, jnp.arange(6), jnp.arange(40), 5)
    assert keys.shape == (6, 5, 40)
    data = np.asarray(jax.random.key_data(keys)).reshape(6 * 5 * 40, -1)
    assert len(np.unique(data, axis=0)) == len(data)
    # The first chain's are those of a single chain per image.
    for index in range(6):
        single = jax.random.key_data(chain_keys(KEY, index, jnp.arange(40)))
        np.testing.assert_array_equal(jax.random.key_data(keys[index, 0]), single)


def test_draws_of_a_chain_differ_by_step_and_use():
    keys = chain_keys(KEY, 0, jnp.arange(3))
    steps = [StepKeys(keys, jnp.asarray(k)) for k in (1, 2)]
    noise = np.concatenate([np.ravel(step.noise(4)) for step in steps])
    uniform = np.exp(np.concatenate([step.log_uniform() for step in steps]))
    draws = np.concatenate([noise, uniform])
    assert len(np.unique(draws)) == len(draws)
    assert np.all((uniform > 0) & (uniform < 1))
