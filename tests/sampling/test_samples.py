"""Samples, reconstructions and interpolations: batches of any size, exact ends, right images."""

from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as linear
import numpy as np
import pytest

from thermo_ebm.sampling import samples
from thermo_ebm.sampling.chains import ChainSettings, prior_chains

LATENT_DIM, PIXELS = 3, 40


def make(likelihood_sigma):
    """A linear generator on `PIXELS` pixels in the place of linear_gaussian's on seven."""
    model = linear.make_model()._replace(likelihood_sigma=likelihood_sigma)
    alpha = jax.tree.map(jnp.float32, linear.parameters()["prior"])
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(PIXELS, LATENT_DIM)) / np.sqrt(LATENT_DIM)
    beta = {"weights": jnp.float32(weights), "bias": jnp.zeros(PIXELS)}
    return model, {"prior": alpha, "generator": beta}


@pytest.mark.parametrize(
    "settings", [ChainSettings(0.1, 5), ChainSettings(0.1, 5, "hmc", adapt=True)]
)
def test_samples_do_not_depend_on_the_batches_they_are_drawn_in(settings):
    model, params = make(0.3)
    key = jax.random.key(0)
    draw = jax.jit(
        partial(samples.sample_images, model, params, key, settings=settings),
        static_argnames="num",
    )
    complete = draw(num=7)
    parts = [draw(num=3, first=first) for first in (0, 3, 6)]
    np.testing.assert_allclose(np.concatenate(parts)[:7], complete, rtol=1e-5, atol=1e-6)
    assert not np.allclose(complete[0], complete[1])


def test_chains_that_persist_in_training_run_until_they_have_arrived():
    model, params = make(0.3)
    short, long = ChainSettings(0.1, 5, persistent=True), ChainSettings(0.1, 200)
    drawn = [samples.sample_latents(model, params, jax.random.key(0), 4, s) for s in (short, long)]
    np.testing.assert_array_equal(*drawn)


def test_reconstructions_are_of_their_own_image():
    """Each is nearer to its image than to any other, and about as near as the noise allows.

    The posterior's covariance L^-1 leaves an error of W L^-1 W', plus what K steps leave.
    """
    model, params = make(0.1)
    z = 2 * jax.random.normal(jax.random.key(1), (12, LATENT_DIM))
    x = model.generator(params["generator"], z)
    settings = ChainSettings(1e-4, 200)
    reconstruct = jax.jit(partial(samples.reconstruct, model, settings=settings))
    reconstructions = reconstruct(params, x, jax.random.key(2))
    distances = np.linalg.norm(np.asarray(reconstructions)[:, None] - np.asarray(x), axis=-1)
    assert reconstructions.shape == x.shape
    np.testing.assert_array_equal(distances.argmin(axis=1), np.arange(12))
    assert np.median(np.diag(distances)) < 0.2 * np.median(distances)


def test_an_adapted_step_size_has_the_kernels_best_acceptance():
    model, params = make(0.3)
    keys = jax.random.split(jax.random.key(3), 2000)
    for kernel, best in (("hmc", 0.75), ("mala", 0.574)):
        settings = ChainSettings(0.01, 40, kernel, adapt=True)
        chains = jax.jit(partial(prior_chains, model, settings=settings))(params["prior"], keys)
        # The pilot chains begin at p0 as these do; their last step sizes scatter.
        assert abs(float(chains.acceptance.mean()) - best) < 0.06, kernel


def test_reconstructions_with_adapted_steps_are_the_posteriors():
    model, params = make(0.1)
    z = 2 * jax.random.normal(jax.random.key(1), (12, LATENT_DIM))
    x = model.generator(params["generator"], z)
    settings = ChainSettings(0.5, 1, "hmc", adapt=True)
    reconstruct = jax.jit(partial(samples.reconstruct, model, settings=settings))
    reconstructions = reconstruct(params, x, jax.random.key(2))
    # The posterior's deviations are about sigma_l = 0.1 along 3 directions of the 40 pixels.
    distances = np.linalg.norm(np.asarray(reconstructions - x), axis=-1)
    assert distances.max() < 0.1 * np.sqrt(3) * 3


def interpolate(ends, num_steps):
    """The latents themselves, through a generator that changes nothing."""
    model = linear.make_model()._replace(generator=lambda beta, z: z)
    return np.asarray(
        samples.interpolate(model, {"prior": {}, "generator": {}}, jnp.asarray(ends), num_steps)
    )


@pytest.mark.parametrize("num_steps", [2, 3, 8])
@pytest.mark.parametrize("compiled", [True, False])
def test_ends_are_the_latents_bit_for_bit(num_steps, compiled):
    ends = np.random.default_rng(0).normal(size=(50, 2, LATENT_DIM)).astype(np.float32)
    run = jax.jit(interpolate_jax, static_argnums=1) if compiled else interpolate_jax
    path = np.asarray(run(ends, num_steps))
    assert path.shape == (50, num_steps, LATENT_DIM)
    np.testing.assert_array_equal(path[:, 0], ends[:, 0])
    np.testing.assert_array_equal(path[:, -1], ends[:, 1])


def interpolate_jax(ends, num_steps):
    model = linear.make_model()._replace(generator=lambda beta, z: z)
    return samples.interpolate(model, {"prior": {}, "generator": {}}, ends, num_steps)


def test_between_unit_latents_every_point_is_on_the_circle_at_equal_angles():
    ends = np.random.default_rng(1).normal(size=(20, 2, LATENT_DIM))
    ends = np.float32(ends / np.linalg.norm(ends, axis=-1, keepdims=True))
    path = interpolate(ends, 5)
    np.testing.assert_allclose(np.linalg.norm(path, axis=-1), 1, atol=1e-5)
    steps = np.sum(path[:, 1:] * path[:, :-1], axis=-1)
    np.testing.assert_allclose(steps, steps[:, :1] * np.ones(4), atol=1e-5)


@pytest.mark.parametrize("last", [[1, 0, 0], [-1, 0, 0], [2, 0, 0], [0, 0, 0]])
def test_latents_that_span_no_circle_give_numbers_all_the_same(last):
    path = interpolate(np.float32([[[1, 0, 0], last]]), 4)
    assert np.isfinite(path).all()
    np.testing.assert_array_equal(path[0, -1], np.float32(last))


def test_interpolation_refuses_bad_arguments():
    with pytest.raises(ValueError, match="num_steps is 1"):
        interpolate(np.ones((1, 2, LATENT_DIM), np.float32), 1)
    with pytest.raises(AssertionError):
        interpolate(np.ones((1, 3, LATENT_DIM), np.float32), 4)
