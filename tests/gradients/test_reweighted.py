"""The reweighted gradient against the exact one, on a model with a grid and different images.

Chains are exact samples, so that whatever is off is the weights' own doing. Biases are relative to
the exact gradient's norm; what the draws' noise adds to them is taken off.
"""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import plane_model as plane
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special

from thermo_ebm.losses import LossSettings, make_objective
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import ChainSettings, Latents, SamplerSettings
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule

NUM_IMAGES, DRAWS = 6, 600
SETTINGS = LossSettings(
    10, prior_gradient="contrastive", generator_gradient="reweighted", correction="none"
)


@cache
def model_and_grid():
    """Images that the model did not quite make, so that its gradient is not small."""
    params = plane.parameters()
    images = 1.1 * plane.simulated_images(params, NUM_IMAGES)[1] + 0.15
    return params, images, plane.make_grid(params, images)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@cache
def exact():
    """-d/d(alpha, beta) of the mean log p(x): expectations over the grid, as one vector."""
    params, images, grid = model_and_grid()
    law, prior = plane.probabilities(grid, 1.0), np.exp(grid.log_prior)
    hidden_alpha, hidden_beta = plane.features(params, grid.z)
    # f = tanh(z A) a, and df / dA_ij = z_i (1 - tanh^2)_j a_j.
    contrast = (law.mean(0) - prior)[:, None]
    slope_alpha = (1 - hidden_alpha**2) * params["prior"]["out"]
    alpha = {
        "hidden": grid.z.T @ (contrast * slope_alpha),
        "out": hidden_alpha.T @ contrast[:, 0],
    }
    mean = hidden_beta @ params["generator"]["out"]
    # dl / d mean = (x - mean) / sigma^2, over the images and the latents of each.
    pull = (law.T @ images - law.sum(0)[:, None] * mean) / NUM_IMAGES / plane.LIKELIHOOD_SIGMA**2
    inner = (pull @ params["generator"]["out"].T) * (1 - hidden_beta**2)
    beta = {"hidden": grid.z.T @ inner, "bias": inner.sum(0), "out": hidden_beta.T @ pull}
    return -flat({"prior": alpha, "generator": beta})


@partial(jax.jit, static_argnums=1)
def gradients(latents, settings, temperatures, slopes):
    """Of every draw [num, T, M, NUM_IMAGES, 2], one after another: [num, size]."""
    params, images, _ = model_and_grid()
    sampler = SamplerSettings(ChainSettings(0.1, 1), ChainSettings(0.1, 1), chains_per_image=1)
    schedule = make_schedule("power", settings.num_temperatures, 1.0)
    schedule = schedule._replace(temperatures=temperatures, slopes=slopes)

    def gradient(z):
        def mean(params):
            objective = make_objective(plane.make_model(), sampler, settings)
            states = Latents(z, z[:1])
            values, _ = objective.surrogate(Ladder(schedule), params, jnp.float32(images), states)
            return values.mean()

        return ravel_pytree(jax.grad(mean)(plane.float32(params)))[0]

    return jax.lax.map(gradient, latents, batch_size=50)


@cache
def draws(settings, power, chains):
    """Gradients from independent exact samples, [DRAWS, size]."""
    _, _, grid = model_and_grid()
    schedule = make_schedule("power", settings.num_temperatures, power)
    places = plane.sample(grid, np.asarray(schedule.temperatures), chains * DRAWS)
    z = np.float32(grid.z[places]).reshape(len(places), DRAWS, chains, NUM_IMAGES, 2)
    values = gradients(np.moveaxis(z, 1, 0), settings, *schedule)
    return np.asarray(values, np.float64)


def bias_and_noise(grads):
    """|E g - exact|^2 / |exact|^2 without the noise's share, its error, and tr Cov / |exact|^2."""
    scale = (exact() ** 2).sum()
    noise = grads.var(0, ddof=1).sum() / scale
    square = ((grads.mean(0) - exact()) ** 2).sum() / scale - noise / len(grads)
    covariance = np.linalg.eigvalsh(np.cov(grads.T)) / scale / len(grads)
    return square, np.sqrt(2 * (covariance**2).sum()), noise


def test_the_exact_gradient_is_the_derivative_of_the_evidence():
    params, images, _ = model_and_grid()
    leaves, structure = jax.tree.flatten(params)

    def evidence(vector):
        parts = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
        shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        grid = plane.make_grid(jax.tree.unflatten(structure, shaped), images)
        return plane.log_ratio(grid, 1.0).mean()

    at = flat(params)
    for i in range(0, len(at), 9):
        shift = 1e-5 * np.eye(len(at))[i]
        difference = (evidence(at + shift) - evidence(at - shift)) / 2e-5
        assert -exact()[i] == pytest.approx(difference, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0, 6.0])
def test_bias_of_the_reweighted_gradient_is_at_most_three_percent(power):
    square, error, _ = bias_and_noise(draws(SETTINGS, power, 4))
    assert square < 0.03**2 + 2 * error
    assert error < 0.03**2  # the draws can tell


def test_bias_of_the_reweighted_gradient_falls_with_the_number_of_chains():
    few, error, _ = bias_and_noise(draws(SETTINGS, 6.0, 1))
    many, other_error, _ = bias_and_noise(draws(SETTINGS, 6.0, 4))
    assert few > many + 3 * (error + other_error)


def test_noise_rises_with_the_power_and_the_mean_stays():
    noises = [bias_and_noise(draws(SETTINGS, power, 4))[2] for power in (0.3, 1.0, 3.0, 6.0)]
    assert noises == sorted(noises)
    assert noises[-1] > 1.5 * noises[0]
    # At the same cost a gradient of the chains at t = 1 alone is noisier than any.
    posterior = SETTINGS._replace(generator_gradient="posterior")
    assert bias_and_noise(draws(posterior, 6.0, 4))[2] > noises[-1]


def test_reweighted_gradient_of_one_temperature_is_the_posterior_gradient():
    settings = SETTINGS._replace(num_temperatures=1)
    reweighted = draws(settings, 1.0, 4)
    posterior = draws(settings._replace(generator_gradient="posterior"), 1.0, 4)
    np.testing.assert_allclose(reweighted, posterior, rtol=1e-4, atol=1e-5)


# Chains stuck in a wrong mode: x = (z^2, z / 2) with noise, seen at z = 2.

NOISE, SEEN = 0.35, np.array([4.0, 1.0])


def two_modes():
    return LatentEBM(
        tilt=lambda alpha, z: alpha * z[:, 0],
        generator=lambda beta, z: jnp.concatenate([beta[0] * z**2, beta[1] * z / 2], axis=1),
        init=lambda key: {"prior": jnp.float32(0.0), "generator": jnp.ones(2)},
        latent_dim=1,
        prior_sigma=1.0,
        likelihood_sigma=NOISE,
    )


def test_chains_in_a_wrong_mode_have_little_weight():
    temperatures = np.asarray(make_schedule("power", 10, 2.0).temperatures, np.float64)
    z = np.linspace(-5, 5, 4001)
    means = np.stack([z**2, z / 2], axis=1)
    values = -((SEEN - means) ** 2).sum(1) / (2 * NOISE**2)
    exact_law = special.softmax(values - z**2 / 2)
    expected = np.array([exact_law @ z, *(exact_law @ ((SEEN - means) * means) / NOISE**2)])
    # Every chain stays on the side where it began: a half of them on the wrong one.
    rng, num, chains = np.random.default_rng(0), 200, 4
    latents = np.empty((11, num, chains))
    for i, t in enumerate(temperatures):
        sides = rng.random((num, chains)) < 0.5
        for right in (False, True):
            law = special.softmax(np.where((z > 0) == right, t * values - z**2 / 2, -np.inf))
            latents[i][sides == right] = rng.choice(z, (sides == right).sum(), p=law)
    drawn = jnp.float32(latents.transpose(1, 0, 2)[..., None, None])
    sampler = SamplerSettings(ChainSettings(0.1, 1), ChainSettings(0.1, 1), chains_per_image=1)
    schedule = make_schedule("power", 10, 2.0)

    @jax.jit
    def of_both(z):
        def gradient(z, choice):
            settings = SETTINGS._replace(generator_gradient=choice)

            def loss(params):
                objective = make_objective(two_modes(), sampler, settings)
                latents = Latents(z, z[:1])
                images = jnp.float32(SEEN[None])
                return objective.surrogate(Ladder(schedule), params, images, latents)[0][0]

            grads = jax.grad(loss)(two_modes().init(None))
            return jnp.append(grads["prior"], grads["generator"])

        return {
            choice: jax.vmap(partial(gradient, choice=choice))(z)
            for choice in ("posterior", "reweighted")
        }

    biases = {}
    for choice, grads in of_both(drawn).items():
        # alpha's E_0[f] is that of the prior's chains, on whose sides nothing is wrong.
        mean = -np.asarray(grads, np.float64).mean(0)
        biases[choice] = np.linalg.norm(mean - expected) / np.linalg.norm(expected)
    assert biases["posterior"] > 0.5
    assert biases["reweighted"] < 0.4 * biases["posterior"]
