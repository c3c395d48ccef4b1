"""Temperature schedules t_0 = 0 < t_1 < ... < t_N = 1, by name (eq. 26 and others).

A schedule is a curve t(u) sampled at u_i = i / N_t, with its slope dt/du, so that a quadrature can
integrate over u, where the integrand E(t(u)) dt/du is smooth.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import PchipInterpolator

from thermo_ebm.types import Array

_LEAST_REJECTION = 1e-4  # keeps an adapted schedule strictly increasing


class Schedule(NamedTuple):
    """A temperature schedule."""

    temperatures: Array  # t_0 = 0 .. t_N = 1, [num_temperatures + 1]
    # dt/du at u_i = i / N_t, [num_temperatures + 1]; may be infinite at u = 0. None where they are
    # not known; the warped quadratures need them.
    slopes: Any = None


def power_schedule(num_temperatures: int, power: float) -> Array:
    """t_i = (i / N_t)^p for i = 0 .. N_t (eq. 26).

    Args:
      num_temperatures: N_t, the number of intervals, at least 1.
      power: p > 0. Above 1 the temperatures concentrate near the prior, below 1 near the
        posterior.

    Returns:
      [num_temperatures + 1], in the default float type.

    Raises:
      ValueError: if N_t < 1 or p <= 0.

    >>> power_schedule(2, 2.0).tolist()
    [0.0, 0.25, 1.0]
    """
    return make_schedule("power", num_temperatures, power).temperatures


def _power(u: Array, power: Array) -> Schedule:
    return Schedule(u**power, power * u ** (power - 1))


def _sigmoid(u: Array, power: Array) -> Schedule:
    """The logistic curve from -p to p, rescaled to [0, 1] (Wu et al. 2017 use p = 4)."""
    curve = jax.nn.sigmoid(power * (2 * u - 1))
    first, last = jax.nn.sigmoid(-power), jax.nn.sigmoid(power)
    slopes = 2 * power * curve * (1 - curve) / (last - first)
    return Schedule((curve - first) / (last - first), slopes)


# Curves by name: (u_i [num_temperatures + 1], p) -> schedule. "annealed_power" is the power curve
# with a p that changes over training; "equal_barrier" starts from the power curve and adapts.
CURVES: dict[str, Callable[[Array, Array], Schedule]] = {
    "power": _power,
    "annealed_power": _power,
    "sigmoid": _sigmoid,
    "equal_barrier": _power,
}


def make_schedule(name: str, num_temperatures: int, power: float | Array) -> Schedule:
    """Builds a schedule by name.

    Args:
      name: one of `CURVES`.
      num_temperatures: N_t, the number of intervals, at least 1.
      power: p > 0; for "sigmoid" the steepness. May be traced.

    Returns:
      t_i and dt/du. The ends are 0 and 1 exactly.

    Raises:
      ValueError: for an unknown name, N_t < 1 or p <= 0.

    >>> make_schedule("power", 2, 2.0).slopes.tolist()
    [0.0, 1.0, 2.0]
    """
    if name not in CURVES:
        raise ValueError(f"schedule must be one of {', '.join(CURVES)}, not {name!r}.")
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be at least 1, not {num_temperatures}.")
    if not isinstance(power, jax.Array) and not power > 0:
        raise ValueError(f"power must be positive, not {power}.")
    u = jnp.arange(num_temperatures + 1) / num_temperatures
    schedule = CURVES[name](u, jnp.asarray(power, u.dtype))
    ends = schedule.temperatures.at[0].set(0.0).at[-1].set(1.0)
    return schedule._replace(temperatures=ends)


def annealed_power(first: float, last: float, progress: Array) -> Array:
    """p between `first` and `last` along half a cosine; progress in [0, 1]."""
    return last + (first - last) * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0))) / 2


def equalised(schedule: Schedule, rejection: np.ndarray) -> Schedule:
    """Temperatures whose neighbours reject exchanges equally often (Syed et al. 2022, section 5).

    The communication barrier Lambda(t), the sum of the rejection rates below t, is interpolated
    monotonically and cut into equal parts.

    Args:
      schedule: the schedule with which the rates were measured.
      rejection: mean rejection rate between t_i and t_(i+1), [num_temperatures].

    Returns:
      The adapted schedule, strictly increasing from 0 to 1; the given schedule if a rate is not
      finite.
    """
    temperatures = np.asarray(schedule.temperatures)
    rejection = np.asarray(rejection, np.float64)
    chex.assert_shape(rejection, (len(temperatures) - 1,))
    if not np.isfinite(rejection).all():
        return schedule
    barrier = np.append(0.0, np.cumsum(np.maximum(rejection, _LEAST_REJECTION)))
    curve = PchipInterpolator(barrier / barrier[-1], temperatures.astype(np.float64))
    u = np.linspace(0.0, 1.0, len(temperatures))
    new = curve(u).astype(temperatures.dtype)
    new[0], new[-1] = 0.0, 1.0
    _separate(new)
    slopes = PchipInterpolator(u, new.astype(np.float64)).derivative()(u)
    return Schedule(*map(jnp.asarray, (new, slopes.astype(new.dtype))))


def _separate(temperatures: np.ndarray) -> None:
    """Separates neighbours that rounding has made equal; the ends stay unchanged."""
    least, inner = np.finfo(temperatures.dtype).tiny, range(1, len(temperatures) - 1)
    for i in inner:
        temperatures[i] = max(temperatures[i], np.nextafter(temperatures[i - 1], 1.0), least)
    for i in reversed(inner):
        temperatures[i] = min(temperatures[i], np.nextafter(temperatures[i + 1], 0.0))
