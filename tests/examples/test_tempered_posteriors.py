"""The example of tempered posteriors: against a closed form, drawn, and as a script."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples import tempered_posteriors as example
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import Schedule

PRIOR_SIGMA, LIKELIHOOD_SIGMA = 1.2, 0.9
TEMPERATURES = np.array([0.0, 0.2, 1.0])
SHAPE = (2, 3, 1)
WEIGHTS = np.random.default_rng(0).normal(size=(2, 6)) / 2  # [latent_dim, pixels]
SHIFT = np.array([0.4, -0.9])  # of the prior, by a tilt that is linear
IMAGE = np.random.default_rng(1).normal(size=SHAPE)
SETTINGS = SamplerSettings(
    ChainSettings(0.05, 60), ChainSettings(0.05, 60), exchange_every=2, chains_per_image=1
)
MODEL = LatentEBM(
    tilt=lambda alpha, z: z @ alpha,
    generator=lambda beta, z: (z @ beta).reshape(-1, *SHAPE),
    init=lambda key: None,
    latent_dim=2,
    prior_sigma=PRIOR_SIGMA,
    likelihood_sigma=LIKELIHOOD_SIGMA,
)


def power_posterior(temperature):
    """Mean and covariance in closed form."""
    precision = np.eye(2) / PRIOR_SIGMA**2 + temperature * WEIGHTS @ WEIGHTS.T / LIKELIHOOD_SIGMA**2
    cov = np.linalg.inv(precision)
    return cov @ (SHIFT + temperature * WEIGHTS @ IMAGE.ravel() / LIKELIHOOD_SIGMA**2), cov


@pytest.fixture(scope="module")
def posteriors():
    params = {"prior": jnp.float32(SHIFT), "generator": jnp.float32(WEIGHTS)}
    key = jax.random.key(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "NUM_CHAINS", 2000)
        return example.tempered_posteriors(
            MODEL,
            params,
            jnp.float32(IMAGE),
            Ladder(Schedule(jnp.asarray(TEMPERATURES))),
            key,
            SETTINGS,
        )


def test_densities_have_the_moments_of_the_closed_form(posteriors):
    axis = posteriors.axis
    z = np.stack(np.meshgrid(axis, axis), axis=-1)
    for temperature, density in zip(TEMPERATURES, posteriors.density, strict=True):
        weights = density * (axis[1] - axis[0]) ** 2
        mean = np.einsum("ij,ijk->k", weights, z)
        cov = np.einsum("ij,ijk,ijl->kl", weights, z - mean, z - mean)
        exact_mean, exact_cov = power_posterior(temperature)
        assert weights.sum() == pytest.approx(1, abs=1e-9)
        # The square ends four sigma_0 from the origin, the shifted prior's tail a little outside.
        np.testing.assert_allclose(mean, exact_mean, atol=0.02)
        np.testing.assert_allclose(cov, exact_cov, atol=0.04)


@pytest.mark.parametrize("ends", ["latents", "exchanged"])
def test_chains_end_where_their_density_is(posteriors, ends):
    for temperature, z in zip(TEMPERATURES, getattr(posteriors, ends), strict=True):
        mean, cov = power_posterior(temperature)
        # Four standard errors; 60 steps of 0.05 leave e^-2 of the starting mean's distance at
        # most, and a variance too large by a step's share.
        error = np.sqrt(np.diag(cov) / len(z))
        left = (1 - 0.05 / PRIOR_SIGMA**2) ** 60 * np.abs(mean)
        assert (np.abs(z.mean(axis=0) - mean) < 4 * error + left).all()
        assert np.linalg.det(np.cov(z.T)) == pytest.approx(np.linalg.det(cov), rel=0.3)


def test_exchange_moves_states_between_the_temperatures_of_posteriors(posteriors):
    np.testing.assert_allclose(posteriors.exchanged[0], posteriors.latents[0], atol=1e-5)
    moved = np.abs(posteriors.exchanged[1:] - posteriors.latents[1:]).max(axis=-1) > 1e-3
    assert moved.mean() > 0.2


def test_decoded_images_are_those_of_the_exchanged_latents(posteriors):
    expected = (posteriors.exchanged @ WEIGHTS).reshape(3, -1, *SHAPE)
    np.testing.assert_allclose(posteriors.decoded, expected, rtol=1e-4, atol=1e-4)


def test_levels_of_a_standard_normal():
    """The region that holds the mass m is a disc, at whose edge the density is (1 - m) / 2 pi."""
    axis = np.linspace(-5, 5, 401)
    density = example.normalised(-(axis**2 + axis[:, None] ** 2) / 2, axis)
    levels = example.highest_density_levels(density, (0.9, 0.5, 0.1))
    np.testing.assert_allclose(levels, np.array([0.1, 0.5, 0.9]) / (2 * np.pi), rtol=0.01)


def test_the_picture_has_two_densities_per_temperature(posteriors):
    figure = example.draw(posteriors)
    figure.canvas.draw()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["image x", "t = 0: prior", "t = 0.2", "t = 1: posterior"]
    for panel, ends in ((2, posteriors.latents), (6, posteriors.exchanged)):
        np.testing.assert_array_equal(figure.axes[panel].lines[0].get_xydata(), ends[1])
    assert all(axis.images for axis in figure.axes[9:])


def test_a_density_narrower_than_the_grid_is_drawn(posteriors):
    spike = np.zeros_like(posteriors.density)
    spike[:, 90, 90] = 1.0
    example.draw(posteriors._replace(density=spike)).canvas.draw()
