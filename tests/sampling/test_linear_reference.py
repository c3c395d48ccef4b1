"""The linear reference: the posterior itself on a linear-Gaussian model; its ladder on a grid."""

from functools import partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import plane_model as plane
import pytest
from jax.flatten_util import ravel_pytree
from scipy import special, stats

from thermo_ebm.losses import LossSettings, make_objective
from thermo_ebm.sampling import linear_reference
from thermo_ebm.sampling.chains import (
    ChainSettings,
    Latents,
    SamplerSettings,
    posterior_target,
    run_chain,
)
from thermo_ebm.sampling.linear_reference import Pairs
from thermo_ebm.sampling.path import Ladder, Path, inverse_factors
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.types import Batch

PARAMS, X = lg.parameters(), lg.observation()
IMAGES = np.clip(np.stack([X, -X / 2, X / 3]), -1, 1)


def exact_moments():
    """The moments of infinitely many pairs of the linear-Gaussian model."""
    prior, posterior = (lg.power_posterior(PARAMS, X, t) for t in (0.0, 1.0))
    weights, bias = PARAMS["generator"]["weights"], PARAMS["generator"]["bias"]
    mean_image = weights @ prior.mean + bias
    moments = linear_reference.PairMoments(
        updates=10,
        mean_z=prior.mean,
        mean_image=mean_image,
        latent_products=prior.cov + np.outer(prior.mean, prior.mean),
        image_products=weights @ prior.cov + np.outer(mean_image, prior.mean),
        image_square=np.trace(weights @ prior.cov @ weights.T) + mean_image @ mean_image,
        error_products=posterior.cov,
    )
    return jax.tree.map(jnp.asarray, moments)


@jax.jit
def exact_reference():
    return linear_reference.fit(exact_moments(), lg.PRIOR_SIGMA, lg.LIKELIHOOD_SIGMA**2)


@pytest.mark.usefixtures("x64")
def test_it_is_the_posterior_of_a_linear_gaussian_model():
    reference = exact_reference()
    centers = linear_reference.mean(reference, jnp.asarray(IMAGES))
    z = np.random.default_rng(0).normal(size=(3, lg.LATENT_DIM))
    for x, center, latent in zip(IMAGES, centers, z, strict=True):
        law = lg.power_posterior(PARAMS, x, 1.0)
        np.testing.assert_allclose(center, law.mean, rtol=1e-9)
        np.testing.assert_allclose(reference.root @ reference.root.T, law.cov, rtol=1e-9)
        np.testing.assert_allclose(reference.precision @ law.cov, np.eye(3), atol=1e-9)
        value = linear_reference.log_density(reference, center[None], jnp.asarray(latent)[None])
        np.testing.assert_allclose(value[0], stats.multivariate_normal.logpdf(latent, *law))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("num_temperatures", [1, 3])
def test_the_integral_is_log_p_without_a_move(num_temperatures):
    still = ChainSettings(0.1, 0, "hmc")
    sampler = SamplerSettings(still, still, chains_per_image=2, start="reference")
    settings = LossSettings(num_temperatures, reference="linear", correction="none")
    batch = Batch(jnp.asarray(IMAGES), jnp.arange(3), jnp.ones(3))
    objective = make_objective(lg.make_model(), sampler, settings)
    ladder = objective.first_ladder(batch)._replace(path=Path(exact_reference()))
    loss, terms = jax.jit(objective.loss)(PARAMS, batch, jax.random.key(0), ladder)
    # log p(x) = log Z_x - log Z_alpha, with the tilt's normaliser in closed form.
    prior = lg.power_posterior(PARAMS, X, 0.0)
    log_z_alpha = (
        np.linalg.slogdet(prior.cov)[1] / 2
        + prior.mean @ np.linalg.solve(prior.cov, prior.mean) / 2
        - lg.LATENT_DIM * np.log(lg.PRIOR_SIGMA)
    )
    expected = np.mean([lg.log_evidence(PARAMS, x) for x in IMAGES])
    np.testing.assert_allclose(-loss - log_z_alpha, expected, rtol=1e-9)
    np.testing.assert_allclose(terms.expected_log_likelihood, expected + log_z_alpha, rtol=1e-9)
    np.testing.assert_allclose(terms.rejection, 0.0, atol=1e-9)


def test_moments_of_simulated_pairs_approach_the_exact_ones():
    rng, exact = np.random.default_rng(1), exact_moments()
    prior, num, batches = lg.power_posterior(PARAMS, X, 0.0), 500, 400
    weights, bias = PARAMS["generator"]["weights"], PARAMS["generator"]["bias"]
    z = jnp.float32(rng.multivariate_normal(*prior, size=(batches, num)))
    images = z @ jnp.float32(weights).T + jnp.float32(bias)
    x = images + lg.LIKELIHOOD_SIGMA * jnp.float32(rng.normal(size=images.shape))

    def add(moments, pairs):
        reference = linear_reference.fit(moments, lg.PRIOR_SIGMA, lg.LIKELIHOOD_SIGMA**2)
        ones = jnp.ones(num).at[-50:].set(0.0)  # padding has no weight
        sums = linear_reference.pair_sums(reference, Pairs(*pairs), ones)
        return linear_reference.updated(moments, sums, least_weight=0.0), None

    first = linear_reference.prior_moments(lg.LATENT_DIM, lg.DATA_DIM, lg.PRIOR_SIGMA)
    last, _ = jax.jit(partial(jax.lax.scan, add))(first, (z, images, jnp.zeros((batches, num)), x))
    # 180,000 pairs; entries of order 1 have standard errors of at most 0.006.
    for name, value, truth in zip(exact._fields[1:], last[1:], exact[1:], strict=True):
        np.testing.assert_allclose(value, truth, atol=0.03, err_msg=name)


def test_before_any_pair_it_is_the_reference_prior():
    moments = linear_reference.prior_moments(3, 7, 0.9)
    reference = linear_reference.fit(moments, 0.9, 0.09)
    np.testing.assert_allclose(linear_reference.mean(reference, jnp.float32(IMAGES)), 0.0)
    np.testing.assert_allclose(reference.root, 0.9 * np.eye(3), atol=1e-6)


def loose_reference(params):
    """A q of the plane model that is wrong enough for the ladder to matter."""
    z, x = plane.simulated_images(params, 4000, seed=5)
    means = plane.features(params, z)[1] @ params["generator"]["out"]
    variance = plane.LIKELIHOOD_SIGMA**2
    first = linear_reference.prior_moments(2, plane.DATA_DIM, plane.PRIOR_SIGMA)
    moments = first
    for _ in range(2):  # the second pass has errors of a q that has seen pairs
        reference = linear_reference.fit(moments, plane.PRIOR_SIGMA, variance)
        pairs = Pairs(z, means, jnp.zeros(4000), x)
        sums = linear_reference.pair_sums(reference, pairs, jnp.ones(4000))
        moments = linear_reference.updated(first._replace(updates=jnp.int32(-1)), sums)
    return linear_reference.fit(moments, plane.PRIOR_SIGMA, variance)


@pytest.fixture(scope="module")
def ladder():
    """Images, q, and on the grid log q and Delta + log q of every image, [num_images, num]."""
    params = plane.parameters()
    images = plane.simulated_images(params, 3)[1]
    grid = plane.make_grid(params, images)
    reference = loose_reference(params)
    centers = np.float64(linear_reference.mean(reference, jnp.float32(images)))
    cov = np.linalg.inv(np.float64(reference.precision))
    log_q = np.stack([stats.multivariate_normal.logpdf(grid.z, c, cov) for c in centers])
    # f + log p0 + l: the grid's prior is normalised over its points.
    tilts = plane.features(params, grid.z)[0] @ params["prior"]["out"]
    log_p0 = -(grid.z**2).sum(1) / 2 / plane.PRIOR_SIGMA**2
    log_p0 -= np.log(2 * np.pi * plane.PRIOR_SIGMA**2)
    return params, images, grid, reference, log_q, tilts + log_p0 + grid.log_likelihood


def laws(log_q, log_joint, temperatures):
    """The probabilities of the grid's points at each temperature, [T, num_images, num]."""
    return np.stack([special.softmax((1 - s) * log_q + s * log_joint, 1) for s in temperatures])


def draw(law, num, rng):
    """[num] places of the grid."""
    return np.searchsorted(np.cumsum(law), rng.random(num) * law.sum())


@pytest.mark.parametrize(
    ("num_temperatures", "power"), [(1, 1.0), (2, 0.3), (2, 3.0), (4, 0.3), (4, 1.0), (4, 3.0)]
)
def test_values_and_gradients_are_the_grids(ladder, num_temperatures, power):
    params, images, grid, reference, log_q, log_joint = ladder
    schedule = make_schedule("power", num_temperatures, power)
    temperatures = np.asarray(schedule.temperatures, np.float64)
    rng, num, model = np.random.default_rng(0), 400, plane.make_model()
    by_rung = laws(log_q, log_joint, temperatures)
    places = np.stack([[draw(law, num, rng) for law in rung] for rung in by_rung])
    z = jnp.float32(np.moveaxis(grid.z[places], 1, 2))  # [T, M, num_images, 2]
    still = ChainSettings(0.1, 0)
    objective = make_objective(
        model,
        SamplerSettings(still, still, chains_per_image=num, start="reference"),
        LossSettings(num_temperatures, reference="linear", correction="none"),
    )
    prior_places = draw(np.exp(grid.log_prior), num * 3, rng)
    prior = jnp.float32(grid.z[prior_places]).reshape(1, num, 3, 2)

    @jax.jit
    def of_params(params):
        states = Latents(z, prior)
        ladder = Ladder(schedule, Path(reference))
        values, terms = objective.surrogate(ladder, params, jnp.float32(images), states)
        return values.mean(), terms

    grads, terms = jax.grad(of_params, has_aux=True)(plane.float32(params))
    delta = np.take_along_axis((log_joint - log_q)[None].repeat(len(places), 0), places, axis=2)
    np.testing.assert_allclose(np.swapaxes(terms.log_likelihood, 1, 2), delta, atol=2e-3)
    # The means of Delta: 5 standard errors of 400 exact draws for the worst of up to 15.
    exact = (by_rung * (log_joint - log_q)).sum(2)
    sd = np.sqrt((by_rung * (log_joint - log_q) ** 2).sum(2) - exact**2)
    assert (np.abs(delta.mean(2) - exact) < 5 * sd / np.sqrt(num) + 1e-3).all()
    # The tilt's last layer: E_prior[h] - E_posterior[h], by the weights of all rungs.
    hidden = plane.features(params, grid.z)[0]
    posterior = special.softmax(log_joint, axis=1)
    truth = np.exp(grid.log_prior) @ hidden - (posterior @ hidden).mean(0)
    error = np.sqrt(
        (np.exp(grid.log_prior) @ hidden**2 + posterior.mean(0) @ hidden**2) / (num * 3)
    )
    assert (np.abs(grads["prior"]["out"] - truth) < 5 * error).all()


def test_hmc_in_the_metric_leaves_every_rung_as_it_is(ladder):
    params, images, grid, reference, log_q, log_joint = ladder
    temperatures, num, rng = np.float32([0.3, 1.0]), 3000, np.random.default_rng(2)
    by_rung = laws(log_q, log_joint, temperatures)
    places = np.stack([[draw(law, num, rng) for law in rung] for rung in by_rung])
    start = grid.z[places]  # [2, num_images, num, 2]
    model, curvature = plane.make_model(), jnp.diag(jnp.array([3.0, 0.5]))
    factors = inverse_factors(model, reference, curvature, jnp.asarray(temperatures))
    x = np.broadcast_to(images[None, :, None], (*start.shape[:3], images.shape[1]))
    target = posterior_target(
        model,
        plane.float32(params),
        jnp.float32(x.reshape(-1, images.shape[1])),
        jnp.repeat(temperatures, 3 * num),
        path=Path(reference, factors),
    )
    keys = jax.random.split(jax.random.key(0), 6 * num)
    for kernel, size in (("hmc", 0.9), ("mala", 0.4)):
        settings = ChainSettings(size, 6, kernel)
        chains = jax.jit(lambda z, s=settings: run_chain(target, z, keys, s))(
            jnp.float32(start.reshape(-1, 2))
        )
        ends = np.float64(chains.latents).reshape(start.shape)
        assert 0.3 < float(chains.acceptance.mean()) < 0.99
        assert np.mean(np.abs(ends - start) > 0.05) > 0.5
        for i, rung in enumerate(by_rung):
            for n, law in enumerate(rung):
                features = np.column_stack([grid.z, grid.z**2])
                mean = law @ features
                sd = np.sqrt(law @ (features - mean) ** 2)
                moments = np.column_stack([ends[i, n], ends[i, n] ** 2]).mean(0)
                # The grid's points stand 0.05 apart or less; 24 comparisons.
                assert (np.abs(moments - mean) / sd * np.sqrt(num) < 4.5).all()


@pytest.mark.usefixtures("x64")
def test_the_gradient_is_exact_on_average():
    """Posterior draws of q itself: the mean gradient over 40 x 500 draws, in standard errors."""
    still = ChainSettings(0.1, 0, "hmc")
    sampler = SamplerSettings(still, still, chains_per_image=1, start="reference")
    settings = LossSettings(1, reference="linear", prior_gradient="none", correction="none")
    objective, num = make_objective(lg.make_model(), sampler, settings), 500
    batch = Batch(
        jnp.broadcast_to(jnp.asarray(IMAGES[0]), (num, lg.DATA_DIM)), jnp.arange(num), jnp.ones(num)
    )
    ladder = objective.first_ladder(batch)._replace(path=Path(exact_reference()))

    def gradient(key):
        def loss(params):
            return objective.loss(params, batch, key, ladder)[0]

        return ravel_pytree(jax.grad(loss)(PARAMS)["generator"])[0]

    grads = jax.jit(lambda keys: jax.lax.map(gradient, keys))(
        jax.random.split(jax.random.key(1), 40)
    )
    law, variance = lg.power_posterior(PARAMS, IMAGES[0], 1.0), lg.LIKELIHOOD_SIGMA**2
    weights, bias = PARAMS["generator"]["weights"], PARAMS["generator"]["bias"]
    residual = IMAGES[0] - weights @ law.mean - bias
    of_weights = np.outer(residual, law.mean) - weights @ law.cov
    expected = ravel_pytree({"bias": -residual / variance, "weights": -of_weights / variance})[0]
    errors = grads.std(axis=0, ddof=1) / np.sqrt(len(grads))
    assert (np.abs(grads.mean(axis=0) - expected) < 4.5 * errors).all()
