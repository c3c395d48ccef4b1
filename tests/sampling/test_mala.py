"""Metropolis-adjusted chains leave their density as it is, where unadjusted ones visibly do not."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import plane_model as plane
import pytest
from sample_moments import standard_errors_off

from thermo_ebm.sampling.chains import (
    ChainSettings,
    posterior_chains,
    posterior_target,
    prior_chains,
    run_chain,
)
from thermo_ebm.sampling.kernels import Point, Target, metropolis_step, score

NUM, STEPS = 10_000, 12
TEMPERATURES = (0.15, 1.0)


def keys(num, seed=0):
    return jax.random.split(jax.random.key(seed), num)


def make_target(evaluate, temperature):
    return Target(evaluate, lambda z: score(evaluate(z), temperature), temperature)


@partial(jax.jit, static_argnums=(0, 4, 5))
def run(evaluate, z, temperature, keys, step_size, num_steps):
    """Ends of the adjusted chains, their acceptance, and ends of the unadjusted ones."""
    target = make_target(evaluate, temperature)
    adjusted, unadjusted = (
        run_chain(target, z, keys, ChainSettings(step_size, num_steps, kernel))
        for kernel in ("mala", "ula")
    )
    return adjusted.latents, adjusted.acceptance, unadjusted.latents


def gaussian_point(params, x):
    """What is evaluated of the linear-Gaussian model, written out from its natural parameters."""
    (prior, prior_shift), (posterior, posterior_shift) = (
        lg.natural(params, x, t) for t in (0.0, 1.0)
    )

    def quadratic(precision, shift, z):
        grad = jnp.float32(shift) - z @ jnp.float32(precision)
        return (z * (jnp.float32(shift) + grad)).sum(-1) / 2, grad

    def evaluate(z):
        likelihood = quadratic(posterior - prior, posterior_shift - prior_shift, z)
        return Point(z, *likelihood, *quadratic(prior, prior_shift, z))

    return evaluate


def test_mala_leaves_a_gaussian_invariant():
    params, x, rng = lg.parameters(), lg.observation(), np.random.default_rng(0)
    laws = [lg.power_posterior(params, x, t) for t in TEMPERATURES]
    start = np.concatenate([rng.multivariate_normal(*law, size=NUM) for law in laws])
    z, acceptance, loose = run(
        gaussian_point(params, x),
        jnp.float32(start),
        jnp.repeat(jnp.float32(TEMPERATURES), NUM),
        keys(2 * NUM),
        0.15,
        STEPS,
    )
    for i, law in enumerate(laws):
        rows = slice(i * NUM, (i + 1) * NUM)
        assert standard_errors_off(np.float64(z[rows]), law) < 4
        assert standard_errors_off(np.float64(loose[rows]), law) > 6
        assert 0.2 < np.mean(acceptance[rows]) < 0.98


@cache
def plane_start(num_images=3, num_chains=3000):
    """Exact samples of two tempered posteriors of different images."""
    params = plane.parameters()
    images = plane.simulated_images(params, num_images)[1]
    grid = plane.make_grid(params, images)
    places = plane.sample(grid, TEMPERATURES, num_chains)
    return params, images, grid, grid.z[places]


def test_mala_leaves_a_nonlinear_posterior_invariant():
    params, images, grid, start = plane_start()
    shape = start.shape[:3]
    x = jnp.float32(np.broadcast_to(images, (*shape, images.shape[1])).reshape(-1, images.shape[1]))
    temperature = np.repeat(np.float32(TEMPERATURES), shape[1] * shape[2])
    evaluate = posterior_target(plane.make_model(), plane.float32(params), x, temperature).evaluate
    z, acceptance, loose = run(
        evaluate, jnp.float32(start.reshape(-1, 2)), temperature, keys(len(x)), 0.05, STEPS
    )

    def off(ends):
        """The largest error of E[l] and of both moments of z, in standard errors."""
        ends = np.float64(ends).reshape(start.shape)
        worst = 0.0
        for i, t in enumerate(TEMPERATURES):
            for n, law in enumerate(plane.probabilities(grid, t)):
                values = plane.log_likelihoods(params, images[n : n + 1], ends[i, :, n])[0]
                moments = np.column_stack([values, ends[i, :, n], ends[i, :, n] ** 2])
                of_grid = np.column_stack([grid.log_likelihood[n], grid.z, grid.z**2])
                mean = law @ of_grid
                sd = np.sqrt(law @ (of_grid - mean) ** 2)
                errors = np.abs(moments.mean(0) - mean) / sd * np.sqrt(len(moments))
                worst = max(worst, errors.max())
        return worst

    assert off(start) < 4
    assert off(z) < 4
    assert off(loose) > 8
    assert 0.2 < np.mean(acceptance) < 0.98


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")  # the other library's own
def test_acceptance_against_blackjax_on_the_same_states_and_noise():
    mala = pytest.importorskip("blackjax").mcmc.mala
    params, images, _, start = plane_start()
    z, step_size, t = start[1, :40, 0], 0.04, 0.6
    x = np.broadcast_to(images[0], (len(z), images.shape[1]))
    model = plane.make_model()

    def log_density(z):
        point = posterior_target(model, params, x[:1], jnp.ones(1)).evaluate(z[None])
        return t * point.log_ratio[0] + point.log_reference[0]

    def theirs(key, z):
        state = mala.init(z, log_density)
        _, info = mala.build_kernel()(key, state, log_density, step_size)
        return info.acceptance_rate

    @jax.jit
    def both(z, keys):
        # Their key is split for noise and acceptance; a position's noise is one normal draw.
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.split(key)[0], (2,)))(keys)
        target = posterior_target(model, params, jnp.asarray(x), jnp.full(len(z), t))
        _, info = metropolis_step(target, target.evaluate(z), step_size, noise, jnp.zeros(len(z)))
        return info.acceptance, jax.vmap(theirs)(keys, z)

    ours, expected = both(jnp.asarray(z), keys(len(z)))
    np.testing.assert_allclose(ours, expected, rtol=1e-8)
    assert np.min(ours) < 0.3 < 0.9 < np.max(ours)


def test_mala_decision_by_hand():
    """One dimension, density exp(-z^2 / 2): both ways' proposals written out."""
    z, s, noise = 0.5, 0.8, -1.3
    proposal = z - s * z + np.sqrt(2 * s) * noise
    forward = -((proposal - z + s * z) ** 2) / (4 * s)
    backward = -((z - proposal + s * proposal) ** 2) / (4 * s)
    log_ratio = (z**2 - proposal**2) / 2 + backward - forward
    assert log_ratio < -0.01

    def evaluate(z):
        nothing = jnp.zeros(len(z))
        return Point(z, nothing, 0 * z, -(z[:, 0] ** 2) / 2, -z)

    target = make_target(evaluate, jnp.ones(2))
    new, info = metropolis_step(
        target,
        evaluate(jnp.full((2, 1), z)),
        s,
        jnp.full((2, 1), noise),
        jnp.array([log_ratio - 1e-3, log_ratio + 1e-3]),  # one just accepted, one just refused
    )
    np.testing.assert_allclose(info.acceptance, np.exp(log_ratio), rtol=1e-5)
    np.testing.assert_allclose(new.z[:, 0], [proposal, z], rtol=1e-6)
    np.testing.assert_allclose(new.log_reference, [-(proposal**2) / 2, -(z**2) / 2], rtol=1e-5)


def test_a_proposal_that_is_not_finite_is_rejected():
    def evaluate(z):
        inside = jnp.where(z[:, 0] > 1.0, jnp.nan, 0.0)
        return Point(z, jnp.zeros(len(z)), 0 * z, inside, 0 * z)

    start = jnp.linspace(-3.0, 1.0, 500)[:, None]
    target = make_target(evaluate, jnp.ones(500))
    chains = run_chain(target, start, keys(500), ChainSettings(0.5, 20, "mala"))
    assert np.max(chains.latents) <= 1.0
    assert np.isfinite(chains.state.log_reference).all()
    assert 0.2 < np.mean(chains.acceptance) < 0.98


def test_chains_of_the_model_choose_their_kernel():
    params, images, _, _ = plane_start()
    model, single = plane.make_model(), plane.float32(params)
    x, t = jnp.float32(np.repeat(images, 50, axis=0)), jnp.ones(150)

    @partial(jax.jit, static_argnums=0)
    def both(kernel):
        prior = prior_chains(model, single["prior"], keys(150), ChainSettings(0.6, 5, kernel))
        settings = ChainSettings(0.02, 5, kernel)
        return prior, posterior_chains(model, single, x, t, keys(150), settings)

    for loose, adjusted in zip(both("ula"), both("mala"), strict=True):
        assert np.all(np.asarray(loose.acceptance) == 1)
        assert 0.3 < np.mean(adjusted.acceptance) < 1
        # Chains that refused nothing are the unadjusted ones: the same noise.
        same = np.isclose(adjusted.latents, loose.latents, rtol=1e-4, atol=1e-5).all(1)
        assert 5 < same.sum() < 150
