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
    info, _ = amplification.choose_amplification(
        AmplificationSettings(amplification=7.5), amplification.init_state(), None
    )
    assert (float(info.amplification), float(info.saturated)) == (7.5, 0.0)
    assert not amplification.changes_noise(AmplificationSettings(accumulate=4))
    assert amplification.changes_noise(AmplificationSettings(amplification=1.5))
    assert amplification.changes_noise(AmplificationSettings(target=1e-3))


def test_amplification_begins_when_the_second_moment_is_known():
    info = amplification.AmplificationInfo(jnp.float32(9.0), jnp.zeros(()))
    for second_moment, early in (("plain", 1.0), ("amplified", 9.0)):
        settings = AmplificationSettings(amplification=9.0, second_moment=second_moment)
        for step, expected in ((amplification.WARM_UP - 1, early), (amplification.WARM_UP, 9.0)):
            after = amplification.after_warm_up(settings, info, jnp.int32(step))
            assert float(after.amplification) == expected


# A target, over gradients whose noise is known at every step.


@partial(jax.jit, static_argnums=0)
def controlled(settings, levels, key):
    """Runs steps whose gradients have independent entries of variance levels[k].

    Returns:
      c, saturation and the squared error per entry of the amplified gradient, whose mean is known
      and which the control never sees.
    """

    def step(state, draw):
        level, key = draw
        of_halves, sign = jax.random.split(key)
        noise = jnp.sqrt(2 * level) * jax.random.normal(of_halves, (2, 20))
        grads, difference = combine(HalvedSums({"w": noise}, jnp.ones(2)), None)
        info, state = amplification.choose_amplification(settings, state, difference)
        changed = amplification.amplify(grads, difference, info.amplification, sign)
        return state, (info.amplification, info.saturated, jnp.mean(changed["w"] ** 2))

    keys = jax.random.split(key, len(levels))
    return jax.lax.scan(step, amplification.init_state(), (levels, keys))[1]


@pytest.mark.parametrize(
    ("target", "first", "last"),
    [(10.0, 2.0, 2.0), (10.0, 0.5, 8.0), (10.0, 8.0, 0.5), (10.0, 7.0, 7.0)],
)
def test_a_target_is_held_while_the_noise_moves(target, first, last):
    """Within 2 %, by squared errors that are independent of what the control measures."""
    levels = jnp.geomspace(first, last, 20_000)
    c, _, squares = controlled(AmplificationSettings(target=target), levels, jax.random.key(0))
    error = squares.std() / np.sqrt(len(squares))
    assert 3 * error < 0.02 * target
    assert abs(float(squares.mean()) / target - 1) < 0.02
    np.testing.assert_allclose(c.mean(), (target / levels).mean(), rtol=0.2)


@pytest.mark.parametrize(
    ("target", "level", "expected", "saturated"), [(1.0, 2.0, 1.0, 1), (1000.0, 1.0, 64.0, 1)]
)
def test_a_target_out_of_reach_is_reported(target, level, expected, saturated):
    settings = AmplificationSettings(target=target)
    c, reported, _ = controlled(settings, jnp.full(50, level), jax.random.key(2))
    np.testing.assert_array_equal(c[10:], expected)
    np.testing.assert_array_equal(reported[10:], saturated)


def test_a_target_is_reached_again_after_noise_that_was_above_it():
    levels = jnp.append(jnp.full(200, 50.0), jnp.full(100, 2.0))
    c, _, _ = controlled(AmplificationSettings(target=10.0), levels, jax.random.key(3))
    np.testing.assert_array_equal(c[50:200], 1.0)
    assert np.abs(c[205:].mean() / 5 - 1) < 0.2
