"""The difference of a batch's halves is the noise of its gradient, whatever the batch."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smooth_network as tiny

from thermo_ebm.gradients import halves
from thermo_ebm.losses import LossSettings, make_objective, vanilla_objective
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.types import Batch

DIM, DRAWS = 6, 4000
MIX = np.random.default_rng(0).normal(size=(DIM, DIM))  # images' covariance is MIX MIX'
CHAIN_SD = 0.8


def linear(params, images, latents):
    """A loss whose gradient is the mean of x + (mean of the image's latents)."""
    vectors = images + latents[0].mean(0)
    return vectors[:, :2] @ params["prior"] + vectors[:, 2:] @ params["generator"], images.T


@partial(jax.jit, static_argnums=(0, 1))
def drawn(num, first, mask, key):
    """(g, d) of one batch of independent images with two chains each."""
    of_images, of_chains = jax.random.split(key)
    images = 1.5 + jax.random.normal(of_images, (num, DIM)) @ jnp.float32(MIX).T
    latents = CHAIN_SD * jax.random.normal(of_chains, (1, 2, num, DIM))
    # What only fills the batch up is wild.
    images = jnp.where(mask[:, None] > 0, images, 1e3)
    batch = Batch(images, first + jnp.arange(num), mask)
    params = {"prior": jnp.zeros(2), "generator": jnp.zeros(DIM - 2)}
    sums, parts = halves.halved_sums(linear, params, batch, latents)
    mean, difference = halves.combine(sums, None)
    return tuple(jnp.append(t["prior"], t["generator"]) for t in (mean, difference)), parts


CASES = {
    "even": (6, 0, np.ones(6)),
    "odd": (5, 0, np.ones(5)),
    "odd, from an odd place": (5, 3, np.ones(5)),
    "masked": (7, 0, np.array([1, 1, 1, 1, 1, 0, 0])),
    "unequal halves": (6, 0, np.array([1, 0, 1, 0, 1, 1])),
    "two": (2, 0, np.ones(2)),
}


@pytest.mark.parametrize("case", CASES)
def test_square_of_the_halves_difference_is_the_variance_of_the_gradient(case):
    num, first, mask = CASES[case]
    keys = jax.random.split(jax.random.key(1), DRAWS)
    draw = partial(drawn, num, first, jnp.float32(mask))
    (mean, difference), _ = jax.tree.map(np.float64, jax.vmap(draw)(keys))
    squares = (difference**2).sum(1)
    stderr = squares.std(ddof=1) / np.sqrt(DRAWS)
    # Known: the covariance of one image's gradient over the number of images.
    exact = ((MIX**2).sum() + DIM * CHAIN_SD**2 / 2) / mask.sum()
    assert abs(squares.mean() - exact) < 3 * stderr
    assert stderr < 0.05 * exact
    # Brute force: the variance of the gradient over the draws, whose error is about as large.
    of_draws = ((mean - mean.mean(0)) ** 2).sum(1) * DRAWS / (DRAWS - 1)
    error = np.hypot(stderr, of_draws.std(ddof=1) / np.sqrt(DRAWS))
    assert abs(squares.mean() - of_draws.mean()) < 3 * error
    # No mean, and no correlation with the gradient where both halves are as large.
    assert np.all(np.abs(difference.mean(0)) < 4 * difference.std(0) / np.sqrt(DRAWS))
    if mask[0::2].sum() == mask[1::2].sum():
        product = (mean - mean.mean(0)) * difference
        assert np.all(np.abs(product.mean(0)) < 4 * product.std(0) / np.sqrt(DRAWS))


def test_the_signal_is_the_squared_mean_without_its_noise():
    keys = jax.random.split(jax.random.key(2), DRAWS)
    draw = partial(drawn, 6, 0, jnp.ones(6))
    (mean, difference), _ = jax.tree.map(np.float64, jax.vmap(draw)(keys))
    signal = (mean**2).sum(1) - (difference**2).sum(1)
    assert abs(signal.mean() - DIM * 1.5**2) < 4 * signal.std() / np.sqrt(DRAWS)


def test_halves_keep_the_order_of_the_images():
    for num in (5, 6):
        for first in (0, 1):
            batch = tiny.make_batch(num)
            images = batch.images.reshape(num, -1)
            shifted = Batch(images, batch.position + first, batch.mask)
            params = {"prior": jnp.zeros(2), "generator": jnp.zeros(2)}
            _, parts = halves.halved_sums(linear, params, shifted, jnp.zeros((1, 1, num, 4)))
            np.testing.assert_array_equal(parts, images.T)


def test_single_image_has_no_difference_of_halves():
    (mean, difference), _ = drawn(1, 0, jnp.ones(1), jax.random.key(0))
    assert np.isfinite(mean).all()
    assert not np.isfinite(difference).any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["vanilla", "thermodynamic"])
@pytest.mark.parametrize("together", [True, False])
def test_mean_of_the_halves_is_the_gradient_of_the_loss(name, together):
    """In halves, together or one after the other, and of the whole; values and parts too."""
    sampler = tiny.SAMPLER._replace(chains_per_image=2)
    settings = LossSettings(3, correction="ratio")
    if name == "vanilla":
        objective = vanilla_objective(tiny.make_model(), sampler)
    else:
        objective = make_objective(tiny.make_model(), sampler, settings)
    batch, params, key = tiny.make_batch(5, padding=2), tiny.parameters(), jax.random.key(0)
    ladder = Ladder(make_schedule("power", 1 if name == "vanilla" else 3, 1.0))
    surrogate = partial(objective.surrogate, ladder)

    @jax.jit
    def both(params):
        complete = jax.value_and_grad(objective.loss, has_aux=True)(params, batch, key, ladder)
        chains = objective.draw(params, batch, key, ladder)
        sums, terms = halves.halved_sums(surrogate, params, batch, chains.states, together)
        value = objective.summary(terms, chains, batch.mask, ladder.schedule)
        return complete, (value, halves.combine(sums, None)[0])

    chex.assert_trees_all_close(*both(params), rtol=1e-9, atol=1e-12)
