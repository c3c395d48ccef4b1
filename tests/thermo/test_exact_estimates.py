"""Estimates of log p(x) for batches of different images, on two models where all of it is known.

"linear" is the linear-Gaussian model, "plane" the nonlinear one with two latents. The divergences
that correct a quadrature are each image's own: of latents pooled over the batch they do not do.
"""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import plane_model as plane
import pytest

from thermo_ebm.losses import LossSettings, make_objective
from thermo_ebm.losses.thermodynamic import ImageTerms
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings, TemperedChains
from thermo_ebm.thermo.integral import (
    QUADRATURES,
    Moments,
    interpolated_integral,
    neighbour_kl,
    quadrature_weights,
    thermodynamic_integral,
)
from thermo_ebm.thermo.schedule import make_schedule

pytestmark = pytest.mark.usefixtures("x64")

MODELS = ("linear", "plane")
POWERS = (0.1, 0.3, 1.0, 3.0, 6.0, 10.0)
NUM_IMAGES, REPETITIONS, CHAINS = 6, 20, 128


@cache
def images_of(name):
    if name == "plane":
        return plane.simulated_images(plane.parameters(), NUM_IMAGES)[1]
    return np.stack([lg.observation(seed) for seed in range(NUM_IMAGES)])


@cache
def grid():
    return plane.make_grid(plane.parameters(), images_of("plane"))


@cache
def truth(name):
    """The mean of log p(x) over the images."""
    if name == "plane":
        return plane.log_ratio(grid(), 1.0).mean()
    return np.mean([lg.log_evidence(lg.parameters(), x) for x in images_of(name)])


@cache
def terms(name, num, power):
    """Temperatures, and E_i and both divergences: exact, means over the images."""
    temperatures = np.asarray(make_schedule("power", num, power).temperatures)
    if name == "plane":
        of_image = plane.path(grid(), temperatures)
    else:
        each = [lg.path(lg.parameters(), x, temperatures) for x in images_of(name)]
        of_image = [np.stack(leaves) for leaves in zip(*each, strict=True)]
    return temperatures, *(leaf.mean(0) for leaf in of_image)


def pooled_moments(name, temperatures):
    """Of the aggregate posterior at each temperature: of the latents of all images together."""
    moments = []
    for t in temperatures:
        if name == "plane":
            law, z = plane.probabilities(grid(), t).mean(0), grid().z
            mean, second = law @ z, np.einsum("n,ni,nj->ij", law, z, z)
        else:
            laws = [lg.power_posterior(lg.parameters(), x, t) for x in images_of(name)]
            mean = np.mean([law.mean for law in laws], axis=0)
            second = np.mean([law.cov + np.outer(law.mean, law.mean) for law in laws], axis=0)
        moments.append((mean, second - np.outer(mean, mean)))
    return Moments(*(jnp.stack(leaves) for leaves in zip(*moments, strict=True)))


def error(name, num, power, quadrature):
    """Of a quadrature alone, with exact expectations."""
    weights = quadrature_weights(quadrature, make_schedule("power", num, power))
    return float(np.asarray(weights) @ terms(name, num, power)[1]) - truth(name)


@pytest.mark.parametrize("num", [1, 4, 10])
@pytest.mark.parametrize("name", MODELS)
def test_exact_terms_give_the_mean_log_likelihood_under_every_quadrature(name, num):
    rules = [rule for rule in QUADRATURES if num % 2 == 0 or rule != "warped_simpson"]

    @jax.jit
    def all_rules(temperatures, slopes, expected, forward, backward):
        arguments = temperatures, expected, forward, backward
        return jnp.stack(
            [thermodynamic_integral(*arguments, quadrature=r, slopes=slopes) for r in rules]
        )

    for power in POWERS:
        slopes = make_schedule("power", num, power).slopes
        temperatures, *exact = terms(name, num, power)
        np.testing.assert_allclose(
            all_rules(temperatures, slopes, *exact), truth(name), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("name", MODELS)
def test_divergences_of_pooled_latents_do_not_correct_the_quadrature(name):
    both_ways = jax.jit(neighbour_kl)
    for power in (0.3, 1.0, 3.0, 6.0):
        temperatures, expected, forward, backward = terms(name, 10, power)
        plain = np.trapezoid(expected, temperatures) - truth(name)
        pooled = np.subtract(*both_ways(pooled_moments(name, temperatures))).sum() / 2
        assert plain < -0.02
        # Each image's own divergences take all of the error away, those of the pool not a half.
        assert plain + (forward - backward).sum() / 2 == pytest.approx(0, abs=1e-9)
        assert plain + pooled < 0.5 * plain


# From samples: exact ones, independent over temperatures, chains and images.

TRAPEZIUM = LossSettings(10, quadrature="trapezium", correction="none")
CASES = {
    "none": TRAPEZIUM._replace(correction="none"),
    "pooled_gaussian": TRAPEZIUM._replace(correction="pooled_gaussian"),
    "ratio": TRAPEZIUM._replace(correction="ratio"),
    "ratio, right": TRAPEZIUM._replace(quadrature="right", correction="ratio"),
    "ratio, warped": TRAPEZIUM._replace(quadrature="warped_simpson", correction="ratio"),
}
# Where the trapezium is visibly off and neighbouring temperatures still overlap.
POWER = {"linear": 0.3, "plane": 1.0}


def exact_samples(name, temperatures, seed):
    """Latents [T, CHAINS, NUM_IMAGES, dim] and their log-likelihoods."""
    images = images_of(name)
    if name == "plane":
        places = plane.sample(grid(), temperatures, CHAINS, seed)
        return grid().z[places], grid().log_likelihood[np.arange(NUM_IMAGES), places]
    rng, params = np.random.default_rng(seed), lg.parameters()
    z = np.empty((len(temperatures), CHAINS, NUM_IMAGES, lg.LATENT_DIM))
    for (i, t), (n, x) in itertools.product(enumerate(temperatures), enumerate(images)):
        z[i, :, n] = rng.multivariate_normal(*lg.power_posterior(params, x, t), size=CHAINS)
    square = ((images - lg.generator(params["generator"], z)) ** 2).sum(-1)
    variance = lg.LIKELIHOOD_SIGMA**2
    return z, -square / (2 * variance) - lg.DATA_DIM / 2 * np.log(2 * np.pi * variance)


@cache
def estimates(name):
    """Of every case, [REPETITIONS] each."""
    schedule = make_schedule("power", 10, POWER[name])
    temperatures = np.asarray(schedule.temperatures)
    draws = [exact_samples(name, temperatures, seed) for seed in range(REPETITIONS)]

    @jax.jit
    def every_case(z, values):
        of_image = jnp.ones((11, NUM_IMAGES))
        no_trips = jnp.zeros(NUM_IMAGES, jnp.int32)
        chains = TemperedChains(z, z[:1], of_image, of_image[:9], no_trips)
        nothing = jnp.full(NUM_IMAGES, jnp.nan)
        image_terms = ImageTerms(nothing, values, nothing, nothing, nothing)
        chain = ChainSettings(0.1, 1)
        sampler = SamplerSettings(chain, chain, chains_per_image=CHAINS)
        estimated = {}
        for case, settings in CASES.items():
            objective = make_objective(lg.make_model(), sampler, settings)
            value, _ = objective.summary(image_terms, chains, of_image[0], schedule)
            estimated[case] = -value
        return estimated

    leaves = map(np.stack, zip(*draws, strict=True))
    return jax.tree.map(np.asarray, jax.vmap(every_case)(*leaves))


def standard_errors_off(values, expected):
    return (values.mean() - expected) / (values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("name", MODELS)
def test_ratios_from_samples_are_the_truth_and_pooled_divergences_are_not(name):
    by_case = estimates(name)
    for case in ("ratio", "ratio, right", "ratio, warped"):
        assert abs(standard_errors_off(by_case[case], truth(name))) < 3
        assert by_case[case].std(ddof=1) < 0.3
    for case in ("none", "pooled_gaussian"):
        assert abs(standard_errors_off(by_case[case], truth(name))) > 10
    # With the difference of divergences the ratio is the estimate, whatever the quadrature.
    np.testing.assert_allclose(by_case["ratio, right"], by_case["ratio"], rtol=1e-9)


# What the quadratures alone are worth.


@pytest.mark.parametrize("power", [3.0, 6.0])
def test_warped_rules_have_a_half_and_a_tenth_of_the_trapeziums_error(power):
    plain = abs(error("plane", 10, power, "trapezium"))
    assert plain > 0.05
    assert abs(error("plane", 10, power, "warped_trapezium")) <= plain / 2
    assert abs(error("plane", 10, power, "warped_simpson")) <= plain / 10


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("power", [0.1, 0.3, 0.7])
def test_below_one_the_warped_rules_are_finite_and_no_worse(name, power):
    plain = abs(error(name, 10, power, "trapezium"))
    for quadrature in ("warped_trapezium", "warped_simpson"):
        assert abs(error(name, 10, power, quadrature)) <= plain * (1 + 1e-9)


@pytest.mark.parametrize("power", [3.0, 6.0])
def test_interpolation_in_the_schedules_own_variable(power):
    schedule = make_schedule("power", 10, power)
    value = interpolated_integral(schedule, terms("plane", 10, power)[1])
    plain = abs(error("plane", 10, power, "trapezium"))
    assert abs(value - truth("plane")) < plain / 2


@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_a_constant_is_integrated_exactly(quadrature):
    for power in POWERS:
        weights = quadrature_weights(quadrature, make_schedule("power", 10, power))
        assert np.sum(weights) == pytest.approx(1.0, abs=1e-12)
        assert np.all(weights >= 0)
