"""Winograd's filters: the minimal filter by itself, both tile sizes, and how they are compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermo_ebm.models.conv_transpose import stamped, winograd
from thermo_ebm.models.conv_transpose.cpu import minimal_filter

SIZES = [(4, 4), (2, 8), (8, 8), (4, 12)]  # the first two in tiles of 2 x 2, the others of 4 x 4


def arrays(size, dtype, channels=3):
    rng = np.random.default_rng(sum(size))
    x, weights = rng.normal(size=(2, *size, channels)), rng.normal(size=(4, 4, channels, 5))
    return jnp.asarray(x, dtype), jnp.asarray(weights, dtype)


def test_a_minimal_filter_gives_all_neighbours_of_a_two_tap_filter():
    for points in [(0.0, 1.0), (0.0, 1.0, -1.0, 2.0), (0.5, -3.0, 1.0)]:
        m, rng = len(points), np.random.default_rng(0)
        d, g = rng.normal(size=m + 1), rng.normal(size=2)
        sums = minimal_filter(points)
        y = sums.outputs @ ((sums.kernel @ g) * (sums.inputs @ d))
        np.testing.assert_allclose(y, d[:-1] * g[0] + d[1:] * g[1], rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_the_direct_form(size):
    x, weights = arrays(size, jnp.float64)

    @jax.jit
    def both(x, weights):
        def with_gradients(form):
            out, pullback = jax.vjp(lambda x, weights: form(x, weights, 2), x, weights)
            return out, *pullback(jnp.sin(out))

        return with_gradients(winograd), with_gradients(stamped)

    for fast, direct in zip(*both(x, weights), strict=True):
        np.testing.assert_allclose(fast, direct, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("size", "times"), [((4, 4), 3), ((8, 8), 10)])
def test_rounding_is_a_few_times_that_of_the_direct_form(size, times):
    x, weights = arrays(size, jnp.float32, channels=128)
    with jax.enable_x64(True):
        exact = np.asarray(stamped(x.astype(jnp.float64), weights.astype(jnp.float64), 2))

    def error(form):
        return np.sqrt(np.mean((np.asarray(form(x, weights, 2)) - exact) ** 2))

    assert error(stamped) < error(winograd) < times * error(stamped)


def test_numbers_of_16_bits_take_the_smaller_tile():
    x, weights = arrays((8, 8), jnp.bfloat16, channels=128)
    exact = stamped(x.astype(jnp.float32), weights.astype(jnp.float32), 2)
    error = jnp.abs(winograd(x, weights, 2).astype(jnp.float32) - exact).max()
    assert error < 0.04 * jnp.abs(exact).max()  # a few of bfloat16's steps of 2^-8


@pytest.mark.slow
def test_every_stage_is_compiled_as_a_function_of_its_own_also_in_the_derivative():
    x, weights = arrays((8, 8), jnp.float32)

    def score(x, weights):
        return jax.grad(lambda x: jnp.sum(winograd(x, weights, 2) ** 2))(x)

    compiled = jax.jit(score).lower(x, weights).compile().as_text()
    assert compiled.count(" call(") >= 8  # four stages, each forward and backward
