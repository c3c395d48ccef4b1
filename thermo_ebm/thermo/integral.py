"""The thermodynamic integral: log p(x) from expected log-likelihoods (eq. 20-27)."""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from thermo_ebm.cholesky import cholesky_and_inverse
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.types import Array


class Moments(NamedTuple):
    """Mean and covariance of the latents at each temperature."""

    mean: Array  # [num_temperatures + 1, latent_dim]
    cov: Array  # [num_temperatures + 1, latent_dim, latent_dim], positive definite


# Quadratures: functions from a schedule to the weights of E_i, [num_temperatures + 1]. Weights add
# up to 1, so that adding a constant to the log-likelihood adds the same constant to the integral.


def trapezium_weights(schedule: Schedule) -> Array:
    """w_i = (dt_i + dt_(i+1)) / 2, the trapezium rule of eq. 24."""
    return (left_weights(schedule) + right_weights(schedule)) / 2


def left_weights(schedule: Schedule) -> Array:
    """w_i = t_(i+1) - t_i: the left sum, a lower bound on log p(x) because E_t rises with t."""
    return jnp.append(jnp.diff(schedule.temperatures), 0.0)


def right_weights(schedule: Schedule) -> Array:
    """w_i = t_i - t_(i-1): the right sum, an upper bound without weight on the prior's chains."""
    return jnp.insert(jnp.diff(schedule.temperatures), 0, 0.0)


def warped_trapezium_weights(schedule: Schedule) -> Array:
    """The trapezium rule in u: w_i proportional to dt/du at u_i, half of it at the ends."""
    num = schedule.temperatures.shape[0] - 1
    return _warped(schedule, jnp.ones(num + 1).at[jnp.array([0, num])].set(0.5))


def warped_simpson_weights(schedule: Schedule) -> Array:
    """Simpson's rule in u, for an even number of intervals."""
    num = schedule.temperatures.shape[0] - 1
    if num % 2:
        raise ValueError(f"warped_simpson needs an even num_temperatures, not {num}.")
    rule = jnp.array([2.0, 4.0] * (num // 2) + [2.0]).at[jnp.array([0, num])].set(1.0)
    return _warped(schedule, rule)


def _warped(schedule: Schedule, rule: Array) -> Array:
    """A quadrature rule in u, as weights of E_i.

    The slopes are scaled so that they integrate to the length of the interval. Where the slope at
    u = 0 is infinite (the power schedule below p = 1), the trapezium rule in t is used: the
    integrand over u is steep there, and a rule in u, even on the other intervals alone, is worse.
    """
    slopes = schedule.slopes
    weights = rule * jnp.where(jnp.isfinite(slopes), slopes, 0.0)
    return jnp.where(jnp.isfinite(slopes[0]), weights / weights.sum(), trapezium_weights(schedule))


QUADRATURES: dict[str, Callable[[Schedule], Array]] = {
    "trapezium": trapezium_weights,
    "left": left_weights,
    "right": right_weights,
    "warped_trapezium": warped_trapezium_weights,
    "warped_simpson": warped_simpson_weights,
}


def quadrature_weights(name: str, schedule: Schedule) -> Array:
    """The weight of each E_i under a quadrature, [num_temperatures + 1].

    The warped rules integrate over the schedule's own variable u, in which the integrand
    E(t(u)) dt/du is smooth and, above p = 1, vanishes at u = 0, so that E_0 has no weight. For the
    power schedule, "warped_trapezium" is the trapezium rule in t at p = 1 and of the same order
    above; "warped_simpson" is of a higher order where E is smooth. Below p = 1 both are the
    trapezium rule in t.

    Raises:
      ValueError: for an unknown name, Simpson's rule over an odd number of intervals, or a warped
        rule without slopes.

    >>> from thermo_ebm.thermo.schedule import make_schedule
    >>> quadrature_weights("warped_trapezium", make_schedule("power", 2, 2.0)).tolist()
    [0.0, 0.5, 0.5]
    """
    weights = QUADRATURES[_known("quadrature", name, QUADRATURES)]
    if schedule.slopes is None and name.startswith("warped"):
        raise ValueError(f"quadrature {name!r} needs the schedule's slopes.")
    return weights(schedule)


def interpolated_integral(schedule: Schedule, expected_log_likelihood: np.ndarray) -> float:
    """The integral by monotone cubic interpolation (PCHIP) of E in u, for reporting a value.

    The estimate is not linear in E and is therefore not used for gradients.

    Args:
      schedule: t_i and dt/du.
      expected_log_likelihood: E_i, [num_temperatures + 1].

    Returns:
      int E dt, in nats.
    """
    t, slopes = (np.asarray(array, np.float64) for array in schedule)
    expected = np.asarray(expected_log_likelihood, np.float64)
    u = np.linspace(0.0, 1.0, len(t))
    curve = PchipInterpolator(u, expected)
    # Between nodes E is cubic, and dt/du, the derivative of the Hermite cubic of t, is quadratic:
    # three Gauss-Legendre points integrate their product exactly.
    start = 0 if np.isfinite(slopes[0]) else 1
    length = CubicHermiteSpline(u[start:], t[start:], slopes[start:]).derivative()
    nodes, weights = np.polynomial.legendre.leggauss(3)
    half = 0.5 / (len(t) - 1)
    points = (u[start:-1] + half)[:, None] + half * nodes
    rest = half * np.sum(weights * curve(points) * length(points))
    return float(rest + start * t[1] * (expected[0] + expected[1]) / 2)


# The factor of KL(p_(i+1), p_i) beside KL(p_i, p_(i+1)) in the correction of the trapezium rule.
# "difference" makes the estimate exact; "sum" is eq. 24 as the paper prints it.
KL_FORMS: dict[str, float] = {"difference": -1.0, "sum": 1.0}


class _Factors(NamedTuple):
    """Gaussians with their covariance factorised, [...] of them."""

    mean: Array  # [..., dim]
    cholesky: Array  # lower Cholesky factor L, [..., dim, dim]
    inverse: Array  # L^-1, [..., dim, dim]


def _divergence(p: _Factors, q: _Factors) -> Array:
    """KL(p, q) in nats (eq. 25), [...]."""
    spread = jnp.sum((q.inverse @ p.cholesky) ** 2, axis=(-2, -1))
    shift = jnp.einsum("...ij,...j->...i", q.inverse, q.mean - p.mean)
    half_log_det_p, half_log_det_q = (
        jnp.sum(jnp.log(jnp.diagonal(factors.cholesky, axis1=-2, axis2=-1)), axis=-1)
        for factors in (p, q)
    )
    log_det = 2 * (half_log_det_q - half_log_det_p)
    return (spread + jnp.sum(shift**2, axis=-1) + log_det - p.mean.shape[-1]) / 2


def gaussian_kl(mean_p: Array, cov_p: Array, mean_q: Array, cov_q: Array) -> Array:
    """KL(p, q) of two Gaussians, in nats (eq. 25), by Cholesky factors and log-determinants.

    >>> float(gaussian_kl(jnp.zeros(1), jnp.eye(1), jnp.ones(1), jnp.eye(1)))
    0.5

    Args:
      mean_p: [dim].
      cov_p: [dim, dim], positive definite.
      mean_q: [dim].
      cov_q: [dim, dim], positive definite.

    Returns:
      A scalar.
    """
    mean_p, cov_p, mean_q, cov_q = map(jnp.asarray, (mean_p, cov_p, mean_q, cov_q))
    chex.assert_rank([mean_p, cov_p, mean_q, cov_q], [1, 2, 1, 2])
    chex.assert_equal_shape([cov_p, cov_q])
    chex.assert_shape([mean_p, mean_q], (cov_p.shape[0],))
    p = _Factors(mean_p, *cholesky_and_inverse(cov_p))
    q = _Factors(mean_q, *cholesky_and_inverse(cov_q))
    return _divergence(p, q)


def neighbour_kl(moments: Moments) -> tuple[Array, Array]:
    """Eq. 25 for all neighbours: KL(p_i, p_(i+1)) and KL(p_(i+1), p_i), [num_temperatures] each."""
    factors = _Factors(moments.mean, *jax.vmap(cholesky_and_inverse)(moments.cov))
    lower, upper = (
        jax.tree.map(lambda leaf, rows=rows: leaf[rows], factors)
        for rows in (slice(None, -1), slice(1, None))
    )
    return _divergence(lower, upper), _divergence(upper, lower)


def thermodynamic_integral(
    temperatures: Array,
    expected_log_likelihood: Array,
    kl_forward: Array | None = None,
    kl_backward: Array | None = None,
    kl_weight: float = 1.0,
    kl_form: str = "difference",
    quadrature: str = "trapezium",
    slopes: Array | None = None,
) -> Array:
    """The estimate of log p(x) in nats (eq. 24 and 27).

    sum_i w_i E_i + eta / 2 sum_i [KL(p_i, p_(i+1)) -+ KL(p_(i+1), p_i)]

    The paper prints a plus between the two divergences. The identity behind eq. 24 has a minus:
    with the minus, exact E and KL give log p(x) exactly for every schedule and every N_t, since

        KL(p_i, p_(i+1)) - KL(p_(i+1), p_i) = 2 [int E dt over the interval - its trapezium].

    The identity holds for one image. For a batch, KL is the mean over images of each image's own
    divergence. `quadrature_correction` has the identities of the other quadratures.

    >>> temperatures = jnp.array([0.0, 0.25, 1.0])
    >>> expected_log_likelihood = jnp.array([-8.0, -4.0, -2.0])
    >>> float(thermodynamic_integral(temperatures, expected_log_likelihood))  # -1.5 - 2.25
    -3.75

    Args:
      temperatures: t_0 .. t_N, [num_temperatures + 1].
      expected_log_likelihood: E_i, [num_temperatures + 1].
      kl_forward: KL(p_i, p_(i+1)), [num_temperatures]; None for no correction.
      kl_backward: KL(p_(i+1), p_i), [num_temperatures]; None for no correction.
      kl_weight: eta. The result estimates log p(x) only with eta = 1.
      kl_form: "difference", or "sum" as printed.
      quadrature: one of `QUADRATURES`.
      slopes: dt/du at the temperatures, [num_temperatures + 1]; the warped quadratures need them.

    Returns:
      A scalar.

    Raises:
      ValueError: for an unknown name, for one divergence without the other, for "sum" with
        another quadrature than the trapezium, or for a warped quadrature without slopes.
    """
    temperatures = jnp.asarray(temperatures)
    expected_log_likelihood = jnp.asarray(expected_log_likelihood)
    chex.assert_rank([temperatures, expected_log_likelihood], 1)
    chex.assert_equal_shape([temperatures, expected_log_likelihood])
    schedule = Schedule(temperatures, None if slopes is None else jnp.asarray(slopes))
    integral = jnp.sum(quadrature_weights(quadrature, schedule) * expected_log_likelihood)
    if kl_forward is None and kl_backward is None:
        return integral
    if kl_forward is None or kl_backward is None:
        raise ValueError("kl_forward and kl_backward must be given together.")
    return integral + kl_weight * quadrature_correction(
        schedule, expected_log_likelihood, kl_forward, kl_backward, kl_form, quadrature
    )


def quadrature_correction(
    schedule: Schedule,
    expected_log_likelihood: Array,
    kl_forward: Array,
    kl_backward: Array,
    kl_form: str = "difference",
    quadrature: str = "trapezium",
) -> Array:
    """The correction of a quadrature: int E dt minus the quadrature, from exact divergences.

    For each interval, with the trapezium T, the forward divergence F and the backward divergence B,

        int E dt = T + (F - B) / 2 = left sum + F = right sum - B,

    and any other quadrature is first corrected to the trapezium. "sum" is eq. 24 as printed.
    Arguments and errors are those of `thermodynamic_integral`; returns a scalar.
    """
    chex.assert_shape([kl_forward, kl_backward], (schedule.temperatures.shape[0] - 1,))
    sign = KL_FORMS[_known("kl_form", kl_form, KL_FORMS)]
    if kl_form == "sum" and quadrature != "trapezium":
        raise ValueError(f'kl_form "sum" goes with the trapezium, not with "{quadrature}".')
    if quadrature == "left":
        return jnp.sum(kl_forward)
    if quadrature == "right":
        return -jnp.sum(kl_backward)
    of_trapezium = (jnp.sum(kl_forward) + sign * jnp.sum(kl_backward)) / 2
    if quadrature == "trapezium":
        return of_trapezium
    missing = trapezium_weights(schedule) - quadrature_weights(quadrature, schedule)
    return of_trapezium + jnp.sum(missing * expected_log_likelihood)


def _known(field: str, name: str, table: dict) -> str:
    if name not in table:
        raise ValueError(f"{field} must be one of {', '.join(table)}, not {name!r}.")
    return name
