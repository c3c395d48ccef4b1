"""log p(x) by annealed SMC where it is known: unbiased, bounded, each image by itself."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import plane_model as plane
import pytest
from scipy import special

from configs import digits_small
from thermo_ebm.likelihood import (
    Estimator,
    LikelihoodSettings,
    annealed_smc,
    collected,
    log_marginal_likelihood,
    particles,
    prepare,
    proposal,
)
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.models.prior import tilted_gaussian
from thermo_ebm.sampling import kernels

LINEAR, LINEAR_PARAMS = lg.make_model(), jax.tree.map(jnp.float32, lg.parameters())
PLANE, PLANE_PARAMS = plane.make_model(), plane.float32(plane.parameters())
NUM = 16  # images of a batch
# Few temperatures and chains, so that chains are resampled and estimates err.
COARSE = LikelihoodSettings(
    num_temperatures=3, chains_per_image=8, num_islands=2, pilot_chains=8, batch_size=NUM
)
REPETITIONS = 60


@functools.cache
def prepared(name):
    model, params, dim = {
        "linear": (LINEAR, LINEAR_PARAMS, lg.DATA_DIM),
        "plane": (PLANE, PLANE_PARAMS, plane.DATA_DIM),
    }[name]
    return model, params, prepare(model, params, (dim,), COARSE)


@functools.cache
def simulated(name, num=NUM):
    """Images of the model with their latents, and log p(x) of each."""
    model, params, preparation = prepared(name)
    z = preparation.latents[:num]
    x = annealed_smc.simulate(model, params, z, jnp.arange(num), jax.random.key(3))
    return x, z, truth(name, x)


def truth(name, x):
    x = np.asarray(x, np.float64)
    if name == "linear":
        return np.array([lg.log_evidence(lg.parameters(), image) for image in x])
    return plane.log_ratio(plane.make_grid(plane.parameters(), x), 1.0)


def exact_log_z_alpha(name):
    """log of the integral of exp(f) p_0."""
    if name == "linear":
        linear = lg.parameters()["prior"]["linear"]
        precision, _ = lg.natural(lg.parameters(), np.zeros(lg.DATA_DIM), 0.0)
        log_det = np.linalg.slogdet(precision * lg.PRIOR_SIGMA**2)[1]
        return (linear @ np.linalg.solve(precision, linear) - log_det) / 2
    axis = np.linspace(-plane.EDGE, plane.EDGE, plane.POINTS)
    z = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_p0 = -(z**2).sum(1) / 2 / plane.PRIOR_SIGMA**2
    tilt = plane.features(plane.parameters(), z)[0] @ plane.parameters()["prior"]["out"]
    return special.logsumexp(tilt + log_p0) - special.logsumexp(log_p0)


@pytest.mark.parametrize("name", ["linear", "plane"])
@pytest.mark.slow
def test_constant_of_the_prior(name):
    constant = prepared(name)[2].prior
    error = float(constant.log_z) - exact_log_z_alpha(name)
    assert abs(error) < 4 * float(constant.stderr) + 1e-4
    assert 0 < float(constant.stderr) < 0.02
    assert float(constant.r_hat) < 1.03


@pytest.mark.slow
def test_exact_draws_and_constant_of_a_prior_that_has_them():
    """Then no chain of the prior is run, and log Z_alpha has no error."""
    law = lg.power_posterior(lg.parameters(), np.zeros(lg.DATA_DIM), 0.0)
    root = jnp.float32(np.linalg.cholesky(law.cov))
    log_z = exact_log_z_alpha("linear")

    def make_prior(tilt, latent_dim, sigma):
        prior = tilted_gaussian(tilt, latent_dim, sigma)
        return prior._replace(
            exact_sample=lambda alpha, keys: (
                jnp.float32(law.mean)
                + jax.vmap(lambda key: jax.random.normal(key, (latent_dim,)))(keys) @ root.T
            ),
            # log of the integral of exp(log_density)
            log_normalizer=lambda alpha: jnp.float32(log_z + prior.log_constant),
        )

    model = LINEAR._replace(make_prior=make_prior)
    preparation = prepare(model, LINEAR_PARAMS, (lg.DATA_DIM,), COARSE)
    assert float(preparation.prior.log_z) == pytest.approx(log_z, abs=1e-5)
    assert (float(preparation.prior.stderr), float(preparation.prior.r_hat)) == (0.0, 1.0)
    x = np.float32(np.stack([lg.observation(seed) for seed in range(NUM)]))
    estimator = Estimator(preparation, COARSE, jax.random.key(0))
    estimates, _ = collected(list(estimator.run(x)))
    assert np.abs(estimates.log_marginal_likelihood - truth("linear", x)).max() < 0.05


@functools.cache
def repeated(name, kind):
    """log of estimate over truth [REPETITIONS, NUM] of coarse runs, with the exact Z_alpha."""
    preparation = prepared(name)[2]
    x, z, exact = simulated(name)
    settings, temperatures = COARSE.compiled(), jnp.full(NUM, COARSE.num_temperatures)

    def estimated(seed):
        key = jax.random.key(seed)
        schedule = annealed_smc.pilot(preparation, x, key, settings)
        schedule = schedule._replace(num_temperatures=temperatures)
        if kind == "estimate":
            result = annealed_smc.estimate(preparation, x, schedule, key, settings)
            return np.asarray(result.log_marginal_likelihood, np.float64)
        bound = annealed_smc.upper_bound(preparation, x, z, schedule, key, settings, 4)
        return np.asarray(bound[0], np.float64)

    offset = float(preparation.prior.log_z) - exact_log_z_alpha(name)
    return np.stack([estimated(seed) for seed in range(REPETITIONS)]) + offset - exact


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear", "plane"])
def test_unbiased(name):
    """The mean of estimate / p is 1, although their logs err by much."""
    log_ratio = repeated(name, "estimate")
    ratio = np.exp(log_ratio)
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / np.sqrt(ratio.size)
    if name == "plane":
        assert log_ratio.std() > 0.1


def test_conditional_smc_estimates_the_inverse_without_bias():
    """The mean of p / estimate is 1: resampling keeps the retained chain's share right."""
    upper, lower = repeated("plane", "upper bound"), repeated("plane", "estimate")
    ratio = np.exp(-upper)
    assert abs(ratio.mean() - 1) < 3 * ratio.std() / np.sqrt(ratio.size)
    assert lower.mean() < -2 * lower.std() / np.sqrt(lower.size)
    assert upper.mean() > 2 * upper.std() / np.sqrt(upper.size)


def test_resampling_leaves_the_expected_number_of_each_chain():
    """Systematic: the floor or the ceiling of m times the share, and on average exactly that."""
    share = np.array([0.05, 0.5, 0.15, 0.3])  # 1 / sum(share^2) = 2.7 of 4: not resampled
    heavy = np.array([0.02, 0.9, 0.03, 0.05])
    state = kernels.Point(*(jnp.arange(4.0)[:, None],) * 5)
    population = particles.Population(
        state=state,
        log_weight=jnp.log(share)[None, None],
        log_bank=jnp.zeros((1, 1)),
        is_resampled=jnp.zeros(1, bool),
        smallest_size=jnp.full(1, 4.0),
        acceptance=jnp.zeros(1),
    )
    keys, resample = jax.random.split(jax.random.key(0), 4), jax.jit(particles.resample)
    untouched = resample(population, keys, 1)
    np.testing.assert_array_equal(untouched.state.z, state.z)
    assert not untouched.is_resampled.any()
    population = population._replace(log_weight=jnp.log(heavy)[None, None])
    draws = np.stack([np.ravel(resample(population, keys, k).state.z) for k in range(400)])
    counts = np.stack([(draws == chain).sum(axis=1) for chain in range(4)])
    assert set(counts[1]) <= {3, 4}
    np.testing.assert_allclose(counts.mean(axis=1), 4 * heavy, atol=4 * 0.5 / np.sqrt(400))
    resampled = resample(population, keys, 1)
    np.testing.assert_allclose(resampled.log_bank, np.log(1 / 4), atol=1e-6)
    np.testing.assert_array_equal(resampled.log_weight, 0.0)


def test_exact_on_the_linear_model_without_a_move():
    """q is the posterior but for the errors of 8,192 pairs: one temperature, no moves."""
    preparation = prepared("linear")[2]
    x = jnp.float32(np.stack([lg.observation(seed) for seed in range(NUM)]))
    schedule = particles.PathSchedule(
        jnp.tile(jnp.array([0.0, 1.0]), (NUM, 1)),
        jnp.full((NUM, 2), -30.0),
        jnp.ones(NUM, int),
        jnp.ones(NUM, int),
    )
    key, settings = jax.random.key(0), COARSE.compiled()
    result = annealed_smc.estimate(preparation, x, schedule, key, settings)
    error = np.asarray(result.log_marginal_likelihood) - truth("linear", x)
    assert np.abs(error).max() < 0.05 + 4 * float(preparation.prior.stderr)


def collect(settings, images, name="plane", seed=5):
    estimator = Estimator(prepared(name)[2], settings, jax.random.key(seed))
    return collected(list(estimator.run(np.asarray(images))))


def test_a_registered_kernel_moves_the_chains(monkeypatch):
    """By its name, with a state of its own: Gaussian random walks that count their steps."""

    class Walk(NamedTuple):
        z: jax.Array
        log_ratio: jax.Array
        log_reference: jax.Array
        count: jax.Array

    def init(target, z):
        point = target.evaluate(z)
        return Walk(z, point.log_ratio, point.log_reference, jnp.zeros(len(z)))

    def step(keys, state, target, step_size):
        size = jnp.expand_dims(step_size, 1)
        point = target.evaluate(state.z + size * keys.noise(state.z.shape[1]))
        proposal = Walk(point.z, point.log_ratio, point.log_reference, state.count + 1)
        log_ratio = kernels.log_density(proposal, target.temperature)
        log_ratio -= kernels.log_density(state, target.temperature)
        accepted = keys.log_uniform() < log_ratio
        new = jax.tree.map(
            lambda a, b: jnp.where(accepted.reshape(-1, *[1] * (a.ndim - 1)), a, b), proposal, state
        )
        return new, kernels.Info(jnp.exp(jnp.minimum(log_ratio, 0.0)))

    walk = kernels.Kernel(init, step, adjusted=True, best_acceptance=0.4)
    monkeypatch.setitem(kernels.KERNELS, "walk", walk)
    settings = COARSE._replace(kernel="walk", num_temperatures=80, num_trajectories=2)
    settings.check()
    x, _, exact = simulated("plane")
    estimates, temperatures = collect(settings, x)
    error = estimates.log_marginal_likelihood - exact
    assert abs(error.mean()) < 3 * np.sqrt(np.mean(estimates.stderr**2) / NUM) + 0.02
    assert (estimates.stderr < 1).all()
    estimator = Estimator(prepared("plane")[2], settings, jax.random.key(0))
    assert (estimator.gradients(temperatures) == 160).all()
    with pytest.raises(ValueError, match="kernel is 'ula', must have a Metropolis test"):
        settings._replace(kernel="ula").check()


def test_an_image_is_independent_of_its_batch_to_the_bit():
    """At another place, beside other images, and with other numbers of temperatures beside it."""
    settings = COARSE._replace(num_temperatures=0, error=0.15, max_gradients=400)
    x = simulated("plane")[0]
    estimates, temperatures = collect(settings, x)
    assert len(set(temperatures.tolist())) > 1
    few, few_temperatures = collect(settings, x[jnp.array([11, 3, 7])])
    for field, alone in zip(jax.tree.leaves(estimates), jax.tree.leaves(few), strict=True):
        np.testing.assert_array_equal(field[[11, 3, 7]], alone)
    np.testing.assert_array_equal(temperatures[[11, 3, 7]], few_temperatures)


def test_the_error_asked_for_or_the_limit_is_reached():
    x, _, exact = simulated("plane")
    settings = LikelihoodSettings(batch_size=NUM, error=0.08, max_gradients=8_192)
    estimates, temperatures = collect(settings, x)
    limit = settings.max_gradients // settings.num_leapfrog
    assert ((estimates.stderr <= 0.12) | (temperatures == limit)).all()
    error = estimates.log_marginal_likelihood - exact
    assert abs(error.mean()) < 0.08
    assert np.abs(error).max() < 0.35
    _, more = collect(settings._replace(error=0.04), x)
    assert more.sum() > temperatures.sum()
    _, hasty = collect(settings._replace(error=0.01, max_seconds=1e-3), x)
    assert hasty.max() <= 64


def test_errors_cover():
    x, _, exact = simulated("plane", 128)
    estimates, _ = collect(LikelihoodSettings(batch_size=NUM, num_temperatures=12), x)
    error = estimates.log_marginal_likelihood - exact
    assert 0.88 <= np.mean(np.abs(error) < 1.96 * estimates.stderr) <= 1.0
    assert abs(error.mean()) < 0.05


def test_scores_are_means_over_the_posterior():
    x = np.stack([lg.observation(seed) for seed in range(NUM)])
    settings = LikelihoodSettings(num_temperatures=12, batch_size=NUM)
    estimates, _ = collect(settings, np.float32(x), "linear")
    laws = [lg.power_posterior(lg.parameters(), image, 1.0) for image in x]
    square = np.array([law.mean @ law.mean + np.trace(law.cov) for law in laws])
    constant = lg.DATA_DIM / 2 * np.log(2 * np.pi * lg.LIKELIHOOD_SIGMA**2)
    misfit = [
        -lg.expected_log_likelihood(lg.parameters(), image, law) - constant
        for image, law in zip(x, laws, strict=True)
    ]
    alpha = lg.parameters()["prior"]
    tilt = [
        alpha["linear"] @ law.mean
        - np.sum(alpha["quadratic"] * (np.outer(law.mean, law.mean) + law.cov)) / 2
        for law in laws
    ]
    exact = {"norm": square / (2 * lg.PRIOR_SIGMA**2), "reconstruction": misfit, "tilt": tilt}
    for name, values in exact.items():
        error = getattr(estimates.scores, name) - np.asarray(values)
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(NUM), name


@pytest.mark.slow
def test_log_marginal_likelihood_of_the_library():
    x, _, exact = simulated("plane")
    result = log_marginal_likelihood(PLANE, PLANE_PARAMS, x, jax.random.key(1))
    error = result.log_marginal_likelihood - exact
    assert abs(error.mean()) < 0.06
    assert result.verdict.reliable, result.verdict.sentence()
    assert result.reliable.all()
    assert 0.005 < result.mean_stderr < 0.1
    assert (result.gradients <= 20_000).all()


@pytest.mark.slow
def test_compiled_once_for_equal_shapes():
    """For any images, parameters, effort and key; a run that is loaded again has the same model."""
    x = simulated("plane")[0]
    programs = proposal.prepare_from, annealed_smc.pilot, annealed_smc.estimate
    settings = COARSE._replace(batch_size=4)
    log_marginal_likelihood(PLANE, PLANE_PARAMS, x[:3], jax.random.key(0), settings)
    sizes = [program._cache_size() for program in programs]
    other = jax.tree.map(lambda leaf: 1.1 * leaf, PLANE_PARAMS)
    settings = settings._replace(num_temperatures=5, max_gradients=40)
    log_marginal_likelihood(PLANE, other, x[3:13], jax.random.key(1), settings)
    assert [program._cache_size() for program in programs] == sizes
    config = digits_small.get_config()
    assert make_model(config) is make_model(digits_small.get_config())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"chains_per_image": 6},
            "chains_per_image is 6, must be a multiple of the",
        ),
        ({"num_islands": 1}, "at least 2"),
        ({"error": 0.0}, "error is 0.0, must be positive"),
        ({"max_gradients": 0}, "max_gradients is 0, must be at least 1"),
    ],
)
def test_refuses_settings_that_give_no_estimate(change, message):
    images, settings = np.zeros((2, plane.DATA_DIM), np.float32), LikelihoodSettings(**change)
    with pytest.raises(ValueError, match=message):
        log_marginal_likelihood(PLANE, PLANE_PARAMS, images, jax.random.key(0), settings)


def test_worst_r_hat():
    """Near 1 of independent draws; large where one direction, along no axis, has two wells."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(300, 64, 3)).astype(np.float32)
    assert 0.99 < float(proposal.worst_r_hat(jnp.asarray(draws))) < 1.02
    wells = np.sign(rng.normal(size=(1, 64, 1))) * np.array([1.0, -1.0, 0.5])
    assert float(proposal.worst_r_hat(jnp.asarray(draws + wells, jnp.float32))) > 1.5
