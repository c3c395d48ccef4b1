"""The thermodynamic integral is exactly log p(x) where its terms are exact, and nothing else is."""

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest

from thermo_ebm.thermo.integral import (
    QUADRATURES,
    Moments,
    gaussian_kl,
    neighbour_kl,
    quadrature_weights,
    thermodynamic_integral,
)
from thermo_ebm.thermo.schedule import Schedule, make_schedule, power_schedule

POWERS = (0.1, 0.3, 1, 3, 6, 10)
NUMS = (1, 5, 10, 30)
PARAMS, X = lg.parameters(), lg.observation()
LOG_EVIDENCE = lg.log_evidence(PARAMS, X)

integral = jax.jit(thermodynamic_integral, static_argnames=("kl_form", "quadrature"))

pytestmark = pytest.mark.usefixtures("x64")


def exact_terms(num, power):
    temperatures = np.asarray(power_schedule(num, power))
    return temperatures, *lg.path(PARAMS, X, temperatures)


def random_gaussian(seed, dim=4):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim))
    return lg.Gaussian(rng.normal(size=dim), root @ root.T + 0.1 * np.eye(dim))


# The identity.


@pytest.mark.parametrize("num", NUMS)
def test_corrected_integral_is_exact_for_all_schedules_and_quadratures(num):
    # Simpson's rule is for an even number of intervals.
    rules = [rule for rule in QUADRATURES if num % 2 == 0 or rule != "warped_simpson"]

    def estimates(slopes, *terms):
        return jnp.stack(
            [thermodynamic_integral(*terms, quadrature=rule, slopes=slopes) for rule in rules]
        )

    slopes = [make_schedule("power", num, power).slopes for power in POWERS]
    terms = zip(*(exact_terms(num, power) for power in POWERS), strict=True)
    values = jax.jit(jax.vmap(estimates))(jnp.stack(slopes), *map(np.stack, terms))
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, LOG_EVIDENCE, rtol=0, atol=1e-6)


def test_corrected_integral_is_exact_with_divergences_of_the_library():
    temperatures, expected, _, _ = exact_terms(10, 0.3)
    laws = [lg.power_posterior(PARAMS, X, t) for t in temperatures]
    moments = Moments(*(jnp.stack(leaves) for leaves in zip(*laws, strict=True)))
    estimate = thermodynamic_integral(temperatures, expected, *neighbour_kl(moments))
    np.testing.assert_allclose(estimate, LOG_EVIDENCE, rtol=0, atol=1e-6)


@pytest.mark.parametrize("num", NUMS)
def test_neither_the_printed_sum_nor_no_correction_is_exact(num):
    for power in POWERS:
        temperatures, expected, forward, backward = exact_terms(num, power)
        printed = integral(temperatures, expected, forward, backward, kl_form="sum")
        assert printed - LOG_EVIDENCE > 1e-2
        # The printed sign is wrong by all of the backward divergences.
        np.testing.assert_allclose(printed - LOG_EVIDENCE, backward.sum(), rtol=1e-9)
        assert abs(integral(temperatures, expected) - LOG_EVIDENCE) > 1e-4


def test_left_and_right_sums_are_bounds():
    for power in POWERS:
        temperatures, expected, _, _ = exact_terms(10, power)
        left = integral(temperatures, expected, quadrature="left")
        right = integral(temperatures, expected, quadrature="right")
        assert left < LOG_EVIDENCE - 1e-2
        assert right > LOG_EVIDENCE + 1e-2


# Quadratures and their corrections by hand: t = 0, 1/4, 1.

HAND = (np.array([0.0, 0.25, 1.0]), np.array([-8.0, -4.0, -2.0]))
FORWARD, BACKWARD = np.array([0.5, 1.0]), np.array([0.25, 0.125])


@pytest.mark.parametrize(
    ("quadrature", "weights", "correction"),
    [
        ("trapezium", [0.125, 0.5, 0.375], (1.5 - 0.375) / 2),
        ("left", [0.25, 0.75, 0.0], 1.5),
        ("right", [0.0, 0.25, 0.75], -0.375),
        # In u, with the slopes 0, 1, 2 of t = u^2; corrected by way of the trapezium in t.
        ("warped_trapezium", [0.0, 0.5, 0.5], (1.5 - 0.375) / 2 - 3.75 + 3.0),
        ("warped_simpson", [0.0, 2 / 3, 1 / 3], (1.5 - 0.375) / 2 - 3.75 + 10 / 3),
    ],
)
def test_integral_by_hand(quadrature, weights, correction):
    temperatures, expected = HAND
    slopes = np.array([0.0, 1.0, 2.0])
    schedule = Schedule(jnp.asarray(temperatures), jnp.asarray(slopes))
    np.testing.assert_allclose(quadrature_weights(quadrature, schedule), weights, atol=1e-15)
    plain = np.dot(weights, expected)
    options = {"quadrature": quadrature, "slopes": slopes}
    assert thermodynamic_integral(*HAND, **options) == pytest.approx(plain)
    for eta in (0.0, 1.0, 2.0):
        estimate = thermodynamic_integral(temperatures, expected, FORWARD, BACKWARD, eta, **options)
        assert estimate == pytest.approx(plain + eta * correction)


def test_integral_with_the_printed_formula_by_hand():
    estimate = thermodynamic_integral(*HAND, FORWARD, BACKWARD, 2.0, "sum")
    assert estimate == pytest.approx(-3.75 + 1.875)


def test_integral_refuses_arguments_that_do_not_fit_together():
    with pytest.raises(ValueError, match="quadrature must be one of trapezium, left, right"):
        thermodynamic_integral(*HAND, quadrature="simpson")
    with pytest.raises(ValueError, match="kl_form must be one of"):
        thermodynamic_integral(*HAND, FORWARD, BACKWARD, kl_form="plus")
    with pytest.raises(ValueError, match="together"):
        thermodynamic_integral(*HAND, FORWARD)
    with pytest.raises(ValueError, match='not with "left"'):
        thermodynamic_integral(*HAND, FORWARD, BACKWARD, kl_form="sum", quadrature="left")
    with pytest.raises(ValueError, match="needs the schedule's slopes"):
        thermodynamic_integral(*HAND, quadrature="warped_trapezium")
    odd = make_schedule("power", 3, 1.0)
    with pytest.raises(ValueError, match="warped_simpson needs an even num_temperatures, not 3"):
        quadrature_weights("warped_simpson", odd)
    with pytest.raises(AssertionError):
        thermodynamic_integral(HAND[0], HAND[1][:2])
    with pytest.raises(AssertionError):
        thermodynamic_integral(*HAND, FORWARD[:1], BACKWARD[:1])


# Divergences.


def test_divergence_of_two_gaussians():
    for seed in range(5):
        p, q = random_gaussian(seed), random_gaussian(seed + 100)
        np.testing.assert_allclose(gaussian_kl(*p, *q), lg.kl(p, q), rtol=1e-10)


def test_divergence_in_one_dimension_by_hand():
    # log(s_q / s_p) + (s_p^2 + d^2) / (2 s_q^2) - 1/2 with s_p = 1, s_q = 2, d = 3.
    value = gaussian_kl(np.zeros(1), np.eye(1), np.full(1, 3.0), 4 * np.eye(1))
    np.testing.assert_allclose(value, np.log(2) + 10 / 8 - 0.5, rtol=1e-12)


def test_divergence_of_a_gaussian_from_itself_is_zero():
    p = random_gaussian(0)
    np.testing.assert_allclose(gaussian_kl(*p, *p), 0.0, atol=1e-12)


def test_divergence_where_the_determinant_underflows():
    # det = 1e-400 is 0 in float64; the log-determinant is not.
    dim = 100
    value = gaussian_kl(np.zeros(dim), 1e-4 * np.eye(dim), np.zeros(dim), 2e-4 * np.eye(dim))
    np.testing.assert_allclose(value, dim / 2 * (np.log(2) + 0.5 - 1), rtol=1e-10)


def test_divergence_refuses_other_shapes():
    with pytest.raises(AssertionError):
        gaussian_kl(np.zeros(3), np.eye(3), np.zeros(2), np.eye(2))
    with pytest.raises(AssertionError):
        gaussian_kl(np.zeros(2), np.eye(3), np.zeros(2), np.eye(3))


def test_divergences_of_neighbours_both_ways():
    laws = [random_gaussian(seed) for seed in range(4)]
    moments = Moments(*(jnp.stack(leaves) for leaves in zip(*laws, strict=True)))
    forward, backward = neighbour_kl(moments)
    np.testing.assert_allclose(forward, [lg.kl(laws[i], laws[i + 1]) for i in range(3)], rtol=1e-9)
    np.testing.assert_allclose(backward, [lg.kl(laws[i + 1], laws[i]) for i in range(3)], rtol=1e-9)
