"""Amplification: the noise it sets, the mean it keeps, and the target it holds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermo_ebm.gradients import amplification
from thermo_ebm.gradients.amplification import AmplificationSettings
from thermo_ebm.gradients.halves import HalvedSums, combine

DIM, DRAWS = 5, 20_000
MEAN = np.linspace(-1, 2, DIM)
MIX = np.random.default_rng(0).normal(size=(DIM, DIM))  # of a half's gradient


def params(vector):
    return {"prior": {"w": vector[..., :2]}, "generator": [vector[..., 2:]]}


def vector(tree):
    return jnp.concatenate([tree["prior"]["w"], tree["generator"][0]], axis=-1)


@partial(jax.jit, static_argnums=1)
def amplified(keys, factor):
    """Gradients before and after amplification, from halves with independent correlated noise."""

    def draw(key):
        of_halves, sign = jax.random.split(key)
        noise = jax.random.normal(of_halves, (2, DIM)) @ jnp.float32(MIX).T
        sums = HalvedSums(params(4 * (jnp.float32(MEAN) + noise)), jnp.full(2, 4.0))
        grads, difference = combine(sums, None)
        changed = amplification.amplify(grads, difference, jnp.float32(factor), sign)
        return vector(grads), vector(changed), vector(difference)

    return jax.vmap(draw)(keys)


@pytest.mark.parametrize("amplification", [2.0, 16.0])
def test_the_mean_stays_and_the_covariance_is_multiplied(amplification):
    keys = jax.random.split(jax.random.key(0), DRAWS)
    plain, changed, _ = (np.float64(leaf) for leaf in amplified(keys, amplification))
    error = changed.std(0) / np.sqrt(DRAWS)
    assert np.all(np.abs(changed.mean(0) - MEAN) < 4 * error)
    covariance = MIX @ MIX.T / 2  # of the mean of two halves

    def check(values, expected):
        """A variance of draws, within 4 standard errors of what it must be."""
        squares = (values - values.mean(0)) ** 2
        total = squares.reshape(DRAWS, -1).sum(1)
        assert abs(total.mean() - expected) < 4 * total.std() / np.sqrt(DRAWS)
        assert total.std() / np.sqrt(DRAWS) < 0.03 * expected

    check(plain, np.trace(covariance))
    check(changed, amplification * np.trace(covariance))
    for direction in np.random.default_rng(1).normal(size=(2, DIM)):
        check(changed @ direction, amplification * direction @ covariance @ direction)


def test_no_amplification_leaves_every_bit():
    keys = jax.random.split(jax.random.key(1), 100)
    plain, changed, difference = amplified(keys, 1.0)
    np.testing.assert_array_equal(changed, plain)
    assert np.abs(difference).min() > 0
    # Nor does a difference that is no number, of a batch of one image, get in.
    nothing = params(jnp.full(DIM, jnp.nan))
    unchanged = amplification.amplify(params(plain[0]), nothing, jnp.float32(1.0), keys[0])
    np.testing.assert_array_equal(vector(unchanged), plain[0])


def test_a_fixed_amplification_is_what_was_asked_for():
    info = amplification.choose_amplification(
        AmplificationSettings(amplification=7.5), amplification.init_state()
    )
    assert (float(info.amplification), float(info.saturated)) == (7.5, 0.0)
    assert not amplification.changes_noise(AmplificationSettings(accumulate=4))
    assert amplification.changes_noise(AmplificationSettings(amplification=1.5))
    assert amplification.changes_noise(AmplificationSettings(target=1e-3))


# The controller, over a gradient whose noise is known at every step.


@partial(jax.jit, static_argnums=(0,))
def controlled(settings, noise, state, key):
    """c and saturation at every step, for |d|^2 / n of mean noise[k] over 400 entries."""

    def step(state, draw):
        level, key = draw
        info = amplification.choose_amplification(settings, state)
        difference = jnp.sqrt(level) * jax.random.normal(key, (400,))
        return amplification.observe(state, params(difference)), info

    return jax.lax.scan(step, state, (noise, jax.random.split(key, len(noise))))


@pytest.mark.parametrize("before", [0.1, 100.0])
def test_a_target_is_reached_from_both_sides_and_held(before):
    """The noise changes to 2 after it was much less or much more; the target is 10."""
    settings = AmplificationSettings(target=10.0)
    noise = jnp.append(jnp.full(100, before), jnp.full(400, 2.0))
    _, info = controlled(settings, noise, amplification.init_state(), jax.random.key(0))
    reached = np.asarray(info.amplification) * np.asarray(noise)
    assert not 0.5 < reached[101] / 10.0 < 2.0  # it has to be found anew
    ratio = reached[-200:] / 10.0
    assert np.all(np.abs(ratio - 1) < 0.1)
    assert np.abs(ratio - 1).max() > 1e-4  # from what is measured, not from what is known
    assert not np.any(info.saturated[-200:])


def test_a_moving_noise_is_followed():
    settings = AmplificationSettings(target=1.0)
    noise = jnp.geomspace(0.5, 0.2, 400)
    _, info = controlled(settings, noise, amplification.init_state(), jax.random.key(1))
    reached = np.asarray(info.amplification * noise)[50:]
    assert np.abs(reached.mean() - 1) < 0.1


@pytest.mark.parametrize(
    ("target", "expected", "saturated"), [(1.0, 1.0, 1), (3.0, 3.0, 0), (1000.0, 64.0, 1)]
)
def test_a_target_out_of_reach_is_reported(target, expected, saturated):
    _, info = controlled(
        AmplificationSettings(target=target),
        jnp.full(50, 1.0 if target > 1 else 2.0),
        amplification.init_state(),
        jax.random.key(2),
    )
    np.testing.assert_allclose(info.amplification[1:], expected, rtol=0.2 * (expected == 3.0))
    np.testing.assert_array_equal(info.saturated[1:], saturated)
    # Nothing is known before the first step.
    assert (float(info.amplification[0]), float(info.saturated[0])) == (1.0, 0.0)


def test_the_running_mean_by_hand():
    state = amplification.init_state()
    for value in (1.0, 3.0):
        state = amplification.observe(state, params(jnp.full(DIM, np.sqrt(value))))
    mean = float(state.noise / state.weight)
    assert mean == pytest.approx((0.95 * 1 + 3) / 1.95, rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_ignored(bad):
    state = amplification.observe(amplification.init_state(), params(jnp.ones(DIM)))
    after = amplification.observe(state, params(jnp.full(DIM, bad)))
    assert after == state
