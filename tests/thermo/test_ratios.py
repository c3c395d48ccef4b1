"""Ratios of normalising constants against pymbar, by hand, and where chains are far off."""

import jax
import jax.numpy as jnp
import numpy as np
import plane_model as plane
import pytest

from thermo_ebm.thermo import ratios
from thermo_ebm.thermo.schedule import power_schedule

pytestmark = pytest.mark.usefixtures("x64")

NUM_IMAGES, CHAINS = 3, 16
bar, neighbours = jax.jit(ratios.bar), jax.jit(ratios.neighbour_ratios)
mbar, weights = jax.jit(ratios.mbar), jax.jit(ratios.posterior_weights)


def samples(power, seed=0, num_temperatures=8):
    """Temperatures, and log-likelihoods [NUM_IMAGES, T, CHAINS] of exact samples."""
    params = plane.parameters()
    grid = plane.make_grid(params, plane.simulated_images(params, NUM_IMAGES)[1])
    temperatures = np.asarray(power_schedule(num_temperatures, power))
    places = plane.sample(grid, temperatures, CHAINS, seed)
    values = grid.log_likelihood[np.arange(NUM_IMAGES), places]
    return temperatures, np.moveaxis(values, 2, 0)


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
@pytest.mark.filterwarnings("ignore")  # the other library's own
def test_bar_against_pymbar(power):
    other = pytest.importorskip("pymbar").other_estimators
    temperatures, values = samples(power)
    estimate = np.asarray(neighbours(temperatures, values))
    assert estimate.shape == (NUM_IMAGES, 8)
    for n in range(NUM_IMAGES):
        for i, step in enumerate(np.diff(temperatures)):
            # Reduced works: the energy is minus t l, so that w = -dt l forward and dt l backward.
            work = -step * values[n, i], step * values[n, i + 1]
            expected = -other.bar(*work, relative_tolerance=1e-13, maximum_iterations=2000)[
                "Delta_f"
            ]
            assert estimate[n, i] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
@pytest.mark.filterwarnings("ignore")  # the other library's own
def test_mbar_against_pymbar(power):
    pymbar = pytest.importorskip("pymbar")
    temperatures, values = samples(power)
    estimate = np.asarray(mbar(temperatures, values))
    for n in range(NUM_IMAGES):
        energies = -temperatures[:, None] * values[n].reshape(-1)
        reference = pymbar.MBAR(
            energies, np.full(len(temperatures), CHAINS), relative_tolerance=1e-13
        )
        np.testing.assert_allclose(estimate[n], -reference.f_k, rtol=0, atol=1e-6)


def test_mbar_solves_its_equation_and_few_steps_are_enough():
    temperatures, values = samples(1.0)
    estimate = np.asarray(mbar(temperatures, values))
    logits = temperatures * values.reshape(NUM_IMAGES, -1, 1)
    mixture = np.log((CHAINS * np.exp(logits - estimate[:, None])).sum(-1, keepdims=True))
    again = np.log(np.exp(logits - mixture).sum(1))
    np.testing.assert_allclose(again - again[:, :1], estimate, atol=1e-9)
    few = jax.jit(ratios.mbar, static_argnums=2)(temperatures, values, 4)
    np.testing.assert_allclose(few, estimate, atol=1e-6)


def test_a_constant_added_to_l_is_added_to_the_logarithm():
    temperatures, values = samples(2.0)
    for constant in (3.0, -1e4):
        np.testing.assert_allclose(
            mbar(temperatures, values + constant),
            mbar(temperatures, values) + constant * temperatures,
            rtol=1e-9,
            atol=1e-7,
        )
        np.testing.assert_allclose(
            neighbours(temperatures, values + constant),
            neighbours(temperatures, values) + constant * np.diff(temperatures),
            rtol=1e-9,
            atol=1e-7,
        )
        np.testing.assert_allclose(
            weights(temperatures, values + constant), weights(temperatures, values), rtol=1e-6
        )


def test_order_of_chains_changes_no_ratio():
    temperatures, values = samples(2.0)
    rng = np.random.default_rng(3)
    shuffled = rng.permuted(values, axis=2)
    assert not np.array_equal(shuffled, values)
    for estimator in (mbar, neighbours):
        np.testing.assert_allclose(
            estimator(temperatures, shuffled), estimator(temperatures, values), atol=1e-9
        )


def test_ratios_of_images_are_independent():
    temperatures, values = samples(2.0)
    changed = values.copy()
    changed[1] -= 7 * values[1]
    for estimator in (mbar, neighbours, weights):
        before, after = estimator(temperatures, values), estimator(temperatures, changed)
        np.testing.assert_allclose(after[0::2], before[0::2], atol=1e-9)
        assert np.abs(after[1] - before[1]).max() > 1e-3


def test_bar_by_hand():
    # One sample each way: the root of 1/(1 + e^(c-a)) = 1/(1 + e^(r-c)) is half way.
    assert float(bar(jnp.array([1.0]), jnp.array([4.0]))) == pytest.approx(2.5, abs=1e-9)
    # Equal samples both ways: nothing but their own value, however far from 0.
    assert float(bar(jnp.full(3, 1e5), jnp.full(3, 1e5))) == pytest.approx(1e5, rel=1e-12)


@pytest.mark.parametrize("far", [-1e6, 1e6, -np.inf])
def test_one_chain_that_is_far_off_moves_the_ratio_little(far):
    temperatures, values = samples(1.0, num_temperatures=4)
    spoilt = values.copy()
    spoilt[0, 4, 0] = far  # at t = 1
    plain = np.asarray(neighbours(temperatures, values))[0, -1]
    assert abs(np.asarray(neighbours(temperatures, spoilt))[0, -1] - plain) < 1.0
    for estimator in (mbar, weights):
        assert np.isfinite(estimator(temperatures, spoilt)).all()
    # In float32 too.
    single = np.float32(temperatures), np.float32(np.maximum(spoilt, -1e30))
    assert np.isfinite(weights(*single)).all()


def test_stepping_stones_are_importance_sampling():
    temperatures, values = samples(3.0)
    estimate = ratios.stepping_stones(temperatures, values)
    steps = np.diff(temperatures)[:, None]
    expected = np.log(np.exp(steps * values[:, :-1]).mean(-1))
    np.testing.assert_allclose(estimate, expected, rtol=1e-9)


# Weights.


@pytest.mark.parametrize("power", [0.3, 1.0, 4.0])
def test_weights_make_every_chain_a_sample_of_the_posterior(power):
    """Self-normalised importance weights against the mixture of all temperatures, by hand."""
    temperatures, values = samples(power)
    hot, of_hot = temperatures[1:], values[:, 1:]
    estimate, c = np.asarray(weights(hot, of_hot)), np.asarray(mbar(hot, of_hot))
    mixture = (CHAINS * np.exp(hot * of_hot[..., None] - c[:, None, None])).sum(-1)
    by_hand = np.exp(of_hot) / mixture
    by_hand /= by_hand.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(estimate, by_hand, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(estimate.sum((1, 2)), 1.0, rtol=1e-9)
    sizes = ratios.effective_sample_size(jnp.asarray(estimate))
    np.testing.assert_allclose(sizes, 1 / (by_hand**2).sum((1, 2)), rtol=1e-5)


def test_effective_size_falls_with_the_power_from_all_chains_to_those_at_one():
    sizes = []
    for power in (0.01, 0.1, 1.0, 6.0, 30.0):
        temperatures, values = samples(power)
        estimate = weights(temperatures[1:], values[:, 1:])
        sizes.append(float(ratios.effective_sample_size(estimate).mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0.95 * 8 * CHAINS
    assert sizes[-1] < 2 * CHAINS


def test_weights_of_one_temperature_are_equal():
    values = samples(1.0)[1][:, -1:]
    np.testing.assert_allclose(weights(np.ones(1), values), 1 / CHAINS, rtol=1e-12)


def test_ratios_have_no_gradient():
    temperatures, values = samples(1.0, num_temperatures=2)
    for estimator in (ratios.mbar, ratios.neighbour_ratios, ratios.posterior_weights):

        def total(v, estimator=estimator):
            return estimator(jnp.asarray(temperatures), v).sum()

        assert np.all(np.asarray(jax.jit(jax.grad(total))(jnp.asarray(values))) == 0)
