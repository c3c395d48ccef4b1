"""Exchange between temperatures: what is tried when, who decides, and what stays invariant."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import plane_model as plane
import pytest

from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling import exchange
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, tempered_chains
from thermo_ebm.sampling.kernels import Point
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import make_batch

TEMPERATURES = np.float32([0.1, 0.3, 0.6, 0.8, 1.0])


def points(log_likelihood):
    """Points of chains [T, num] whose latent is their place: (temperature, group)."""
    num_temperatures, num = log_likelihood.shape
    z = np.stack(np.meshgrid(np.arange(num_temperatures), np.arange(num), indexing="ij"), -1)
    flat = jnp.float32(z.reshape(-1, 2))
    values = jnp.float32(log_likelihood.reshape(-1))
    return Point(flat, values, 10 * flat, 2 * values, 100 * flat)


def chain_keys(num, seed=0):
    return jax.random.split(jax.random.key(seed), num)


@pytest.mark.parametrize("interval", [1, 2, 5])
def test_phases_alternate_at_every_exchange(interval):
    # l falls with the temperature: whatever is tried is accepted.
    point = points(np.float32([[5, 5], [4, 4], [3, 3], [2, 2], [1, 1]]))
    swap = exchange.make_exchange(TEMPERATURES, chain_keys(10), interval)
    _, swaps = jax.jit(jax.vmap(swap, in_axes=(None, 0)))(point, jnp.arange(30))
    phases = []
    for done, (source, due) in enumerate(zip(swaps.source, swaps.due, strict=True)):
        assert due == (done > 0 and done % interval == 0)
        for row in np.asarray(source).T:
            if not due:
                np.testing.assert_array_equal(row, np.arange(5))
            elif np.array_equal(row, [1, 0, 3, 2, 4]):
                phases.append(0)
            else:
                np.testing.assert_array_equal(row, [0, 2, 1, 4, 3])
                phases.append(1)
    phases = np.array(phases).reshape(-1, 2)  # of both groups
    assert len(phases) == 29 // interval
    np.testing.assert_array_equal(phases[:, 0], phases[:, 1])
    assert np.all(np.diff(phases[:, 0]) != 0)


def test_decisions_are_of_each_image_and_each_chain():
    # In groups 0 and 2 every exchange is sure, in groups 1 and 3 it is out of the question.
    falls, rises = np.linspace(1000, -1000, 5), np.linspace(-1000, 1000, 5)
    point = points(np.stack([falls, rises, falls, rises], axis=1))
    swap = exchange.make_exchange(TEMPERATURES, chain_keys(20), 1)
    moved, swaps = jax.jit(swap)(point, 1)
    np.testing.assert_array_equal(swaps.source[:, 1::2].T, [np.arange(5)] * 2)
    np.testing.assert_array_equal(swaps.source[:, 0::2].T, [[0, 2, 1, 4, 3]] * 2)
    # The whole point moves, within its own group.
    z = np.asarray(moved.z).reshape(5, 4, 2)
    np.testing.assert_array_equal(z[..., 0], swaps.source)
    np.testing.assert_array_equal(z[..., 1], np.broadcast_to(np.arange(4), (5, 4)))
    np.testing.assert_array_equal(moved.grad_log_ratio, 10 * moved.z)
    np.testing.assert_array_equal(moved.grad_log_reference, 100 * moved.z)
    np.testing.assert_array_equal(moved.log_reference, 2 * moved.log_ratio)
    np.testing.assert_allclose(swaps.probability[:, 0], 1.0)
    assert np.all(np.asarray(swaps.probability[:, 1]) < 1e-10)


def test_equal_groups_draw_their_own_numbers():
    point = points(np.broadcast_to(np.linspace(-2, 2, 5)[:, None], (5, 400)))
    swap = exchange.make_exchange(TEMPERATURES, chain_keys(2000), 1)
    _, swaps = jax.jit(swap)(point, 1)
    swapped = np.asarray(swaps.source)[1] == 2
    probability = float(swaps.probability[1, 0])
    assert probability == pytest.approx(np.exp(-0.3), rel=1e-5)  # dt = 0.3, dl = 1
    stderr = np.sqrt(probability * (1 - probability) / 400)
    assert abs(swapped.mean() - probability) < 4 * stderr
    _, later = jax.jit(swap)(point, 3)
    assert np.any(later.source != swaps.source)


def test_the_product_of_tempered_posteriors_is_invariant():
    """Exact samples exchanged many times, without any move between: still exact samples."""
    num = 20_000
    params = plane.parameters()
    images = plane.simulated_images(params, 2)[1]
    grid = plane.make_grid(params, images)
    places = plane.sample(grid, TEMPERATURES, num)  # [T, num, image]
    values = grid.log_likelihood[np.arange(2), places].reshape(5, -1)
    z = grid.z[places].reshape(-1, 2)
    flat = jnp.float32(values.reshape(-1))
    point = Point(jnp.float32(z), flat, jnp.float32(z), flat, jnp.float32(z))

    @jax.jit
    def exchanged(point):
        swap = exchange.make_exchange(jnp.asarray(TEMPERATURES), chain_keys(len(z)), 2)
        first, swaps = swap(point, 2)
        return swap(first, 4)[0], swaps

    moved, swaps = exchanged(point)
    assert 0.2 < np.mean(np.asarray(swaps.source) != np.arange(5)[:, None]) < 0.8
    after, before = np.asarray(moved.z).reshape(5, num, 2, 2), z.reshape(5, num, 2, 2)
    assert np.mean(after != np.float32(before)) > 0.2
    values_after = np.asarray(moved.log_ratio, np.float64).reshape(5, num, 2)
    for i, t in enumerate(TEMPERATURES):
        for n, law in enumerate(plane.probabilities(grid, t)):
            exact = np.column_stack([grid.log_likelihood[n], grid.z, grid.z**2])
            moments = np.column_stack([values_after[i, :, n], after[i, :, n], after[i, :, n] ** 2])
            mean = law @ exact
            stderr = np.sqrt(law @ (exact - mean) ** 2 / num)
            assert np.all(np.abs(moments.mean(0) - mean) < 4 * stderr)
    # The probability of a swap is the known one.
    probability = np.asarray(swaps.probability, np.float64).reshape(4, num, 2)
    for i in range(4):
        exact = plane.swap_probability(grid, float(TEMPERATURES[i]), float(TEMPERATURES[i + 1]))
        stderr = probability[i].std(0) / np.sqrt(num)
        assert np.all(np.abs(probability[i].mean(0) - exact) < 4 * stderr)


def test_round_trips_by_hand():
    swap, rest = [1, 0], [0, 1]
    # Two temperatures. Swaps 1 and 2 take the first state up and back; so does every further pair
    # for each of the two states in turn.
    source = np.array([swap, rest, swap, swap, swap])[:, :, None]
    trips = exchange.round_trips(jnp.int32(np.repeat(source, 2, axis=2)))
    # State a: up at 1, back at 3 (one trip), up at 4, back at 5 (two). State b: down at 1, up at 3,
    # back at 4 (one), up again at 5.
    np.testing.assert_array_equal(trips, [3, 3])
    assert not exchange.round_trips(jnp.int32([[[0], [1]]])).any()


# Two far modes of known weights: x = z^2 with noise, and a prior that leans to the right.

TILT, NOISE, PIXEL = 0.4, 0.35, 1.5**2


def two_modes():
    return LatentEBM(
        tilt=lambda alpha, z: alpha * z[:, 0],
        generator=lambda beta, z: beta * z**2,
        init=lambda key: {"prior": jnp.float32(TILT), "generator": jnp.float32(1.0)},
        latent_dim=1,
        prior_sigma=1.0,
        likelihood_sigma=NOISE,
    )


def weight_of_the_right_mode():
    z = np.linspace(-5, 5, 20_001)
    density = np.exp(TILT * z - z**2 / 2 - (PIXEL - z**2) ** 2 / (2 * NOISE**2))
    return density[z > 0].sum() / density.sum()


@pytest.mark.parametrize("kernel", ["ula", pytest.param("mala", marks=pytest.mark.slow)])
def test_far_modes_get_their_weights_by_exchange(kernel):
    num = 400
    temperatures = jnp.float32((np.arange(9) / 8) ** 2)
    images = jnp.full((num, 1), PIXEL)
    posterior = ChainSettings(0.01, 1200, kernel)

    @partial(jax.jit, static_argnums=0)
    def right(interval):
        sampler = SamplerSettings(
            ChainSettings(0.1, 5), posterior, exchange_every=interval, chains_per_image=1
        )
        model = two_modes()
        chains = tempered_chains(
            model,
            model.init(None),
            make_batch(images),
            Ladder(Schedule(temperatures)),
            jax.random.key(0),
            sampler,
        )
        return (chains.latents[-1] > 0).mean(), chains.swap_probability.mean(), chains.round_trips

    weight = weight_of_the_right_mode()
    assert 0.7 < weight < 0.95
    alone, none, _ = right(0)
    together, probability, trips = right(2)
    assert none == 0
    assert 0.2 < probability < 0.95
    assert np.mean(trips) > 0.5
    assert abs(alone - weight) > 0.15
    assert abs(together - weight) < 0.05
