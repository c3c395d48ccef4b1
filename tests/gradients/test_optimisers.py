"""Optimisers of two gradients: optax's own where both are equal, and steps that noise leaves."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from thermo_ebm.errors import UserError
from thermo_ebm.gradients import optimisers
from thermo_ebm.gradients.amplification import WARM_UP, amplify
from thermo_ebm.gradients.optimisers import NoisyGradient, OptimiserSettings

SETTINGS = OptimiserSettings(b1=0.5, b2=0.99, weight_decay=0.01)
PARAMS = {"prior": jnp.linspace(1.0, 2.0, 40), "generator": jnp.linspace(-3.0, 1.0, 60)}
RATE = 1e-3
SCHEDULE = optax.constant_schedule(RATE)
OF_OPTAX = {
    "adam": lambda rate: optax.adam(rate, b1=0.5, b2=0.99),
    "adamw": lambda rate: optax.adamw(rate, b1=0.5, b2=0.99, weight_decay=0.01),
    "lion": lambda rate: optax.lion(rate, b1=0.5, b2=0.99, weight_decay=0.01),
    "sgd": lambda rate: optax.sgd(rate, momentum=0.5),
    "rmsprop": lambda rate: optax.rmsprop(
        rate, decay=0.99, momentum=0.5, eps_in_sqrt=False, bias_correction=True
    ),
}


def of_groups(name):
    made = optimisers.make_optimiser(optimisers.find_direction(name, SETTINGS), SCHEDULE)
    return {group: made for group in PARAMS}


def gradients(key):
    keys = jax.random.split(key, len(PARAMS))
    return {
        group: jax.random.normal(of_group, PARAMS[group].shape)
        for group, of_group in zip(PARAMS, keys, strict=True)
    }


def after_steps(update, state):
    """The parameters after some steps, each a compiled program of its own."""
    params, step = PARAMS, jax.jit(update)
    for key in jax.random.split(jax.random.key(0), 20):
        params, state = step(gradients(key), state, params)
    return params


@pytest.mark.parametrize("name", OF_OPTAX)
def test_with_one_gradient_for_both_moments_an_optimiser_is_optaxs(name):
    ours, theirs = of_groups(name), OF_OPTAX[name](SCHEDULE)

    def of_optax(gradient, state, params):
        for group in params:
            of_group = gradient[group], state[group], params[group]
            updates, changed = theirs.update(*of_group)
            state = state | {group: changed}
            params = params | {group: optax.apply_updates(params[group], updates)}
        return params, state

    def of_two_gradients(gradient, state, params):
        moments = (NoisyGradient(gradient, gradient),) * 2
        return optimisers.update(ours, moments, state, params)[:2]

    expected = after_steps(of_optax, {group: theirs.init(PARAMS[group]) for group in PARAMS})
    actual = after_steps(of_two_gradients, optimisers.init_optimisers(ours, PARAMS))
    for group in PARAMS:
        assert np.abs(actual[group] - PARAMS[group]).max() > RATE
        if name in ("adam", "sgd"):
            np.testing.assert_array_equal(actual[group], expected[group])
        else:  # the learning rate is multiplied in another order
            np.testing.assert_allclose(actual[group], expected[group], rtol=2e-6)


NUM_STEPS = 1000


@cache
def moved(name, amplification, second_moment, deviation):
    """How far a mean gradient of 1 with noise of a standard deviation moves the parameters.

    Both groups have the same gradients, and amplified noise of opposite signs, which their mean
    does not contain where the steps are linear.

    Returns:
      The distances of the two groups, [2, num], and the squared mean displacement and its noise
      that each step reports, [NUM_STEPS] each.
    """
    made = of_groups(name)
    params = {group: jnp.ones(200) for group in PARAMS}

    @jax.jit
    def run(keys):
        def step(carry, draw):
            number, key = draw
            c = jnp.where(number < WARM_UP, 1.0, amplification)
            # The halves' difference has the covariance of g, and is independent of it.
            noise, d = deviation * jax.random.normal(key, (2, 200))
            plain = NoisyGradient(
                {"prior": 1 + noise, "generator": 1 + noise}, {"prior": d, "generator": -d}
            )
            amplified = NoisyGradient(
                amplify(*plain, c, key), jax.tree.map(lambda leaf: jnp.sqrt(c) * leaf, plain.noise)
            )
            moments = optimisers.choose_gradients(second_moment, plain, amplified)
            new, state, displacements = optimisers.update(made, moments, *carry)
            total = jax.tree.map(lambda *leaves: sum(leaves), *displacements.values())
            return [state, new], (total.mean, total.noise)

        first = [optimisers.init_optimisers(made, params), params]
        return jax.lax.scan(step, first, (jnp.arange(NUM_STEPS), keys))

    (_, last), (mean, noise) = run(jax.random.split(jax.random.key(3), NUM_STEPS))
    distances = np.stack([params[group] - last[group] for group in params])
    return distances, np.asarray(mean), np.asarray(noise)


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop"])
def test_noise_does_not_change_how_far_a_constant_gradient_moves(name):
    quiet, loud = (moved(name, c, "plain", 5.0)[0] for c in (1.0, 16.0))
    assert loud.std() > 3 * quiet.std()
    assert abs(loud.mean() / quiet.mean() - 1) < 0.02


def test_noise_in_the_second_moment_shortens_the_steps():
    quiet = moved("adam", 1.0, "plain", 5.0)[0]
    for second_moment in ("amplified", "alone"):
        loud = moved("adam", 16.0, second_moment, 5.0)[0]
        assert 0.22 < loud.mean() / quiet.mean() < 0.3  # 0.26


def test_the_second_moment_alone_lengthens_no_step():
    """However small one amplified gradient is: the first step is at most the learning rate."""
    optimiser = of_groups("adam")
    noise = {group: jax.random.normal(jax.random.key(1), (500,)) for group in PARAMS}
    gradient = jax.tree.map(lambda d: -jnp.sqrt(15.0) * d + 1e-4, noise)  # cancels the added noise
    plain = NoisyGradient(gradient, noise)
    amplified = NoisyGradient(
        jax.tree.map(lambda g, d: g + jnp.sqrt(15.0) * d, gradient, noise),
        jax.tree.map(lambda d: 4 * d, noise),
    )
    params = jax.tree.map(jnp.zeros_like, noise)
    state = optimisers.init_optimisers(optimiser, params)
    longest = {}
    for second_moment in ("alone", "amplified"):
        moments = optimisers.choose_gradients(second_moment, plain, amplified)
        moved_params = optimisers.update(optimiser, moments, state, params)[0]
        longest[second_moment] = max(np.abs(leaf).max() for leaf in moved_params.values())
    assert longest["alone"] <= RATE
    # Where the first moment is amplified too, it is as small as the root of the second.
    assert longest["amplified"] < 1.001 * RATE


@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("second_moment", ["plain", "alone"])
def test_step_size_and_noise_are_those_of_repeated_steps(name, second_moment):
    distances, mean, noise = moved(name, 4.0, second_moment, 1.0)
    late = slice(NUM_STEPS // 4, None)
    size = distances.size * (distances.mean() / NUM_STEPS) ** 2  # parameters move equally far
    # Steps share their momentum, which makes the error of their mean less than twice as large.
    error = 2 * mean[late].std() / np.sqrt(len(mean[late]))
    assert error < 0.1 * size
    assert abs(mean[late].mean() - size) < 4 * error
    if name == "sgd":  # of a momentum with b = 1/2: 1/(1 - b^2) = 4/3 of one gradient's noise
        expected = (1 if second_moment == "alone" else 4) * 400 * RATE**2 * 4 / 3
        np.testing.assert_allclose(noise[late].mean(), expected, rtol=0.02)


def test_an_optimiser_of_ones_own_and_names_that_are_none():
    own = optimisers.find_direction("thermo_ebm.gradients.optimisers:sgd", SETTINGS)
    assert own.momentum == 0.5
    assert not optimisers.find_direction("lion", SETTINGS).takes_second
    for name in ("adamm", "chain", "lbfgs", "no_such_module:function"):
        with pytest.raises(UserError, match=f"optimizer.name={name}: "):
            optimisers.find_direction(name, SETTINGS)
