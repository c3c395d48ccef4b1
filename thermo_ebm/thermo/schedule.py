"""Temperature schedules t_0 = 0 < t_1 < ... < t_N = 1, by name."""

from collections.abc import Callable

import jax.numpy as jnp

from thermo_ebm.types import Array


def power_schedule(num_temperatures: int, power: float) -> Array:
    """t_i = (i / N_t)^p for i = 0 .. N_t (eq. 26).

    Args:
      num_temperatures: N_t, the number of intervals, at least 1.
      power: p > 0. Above 1 the temperatures crowd towards the prior, below 1 towards the
        posterior.

    Returns:
      [num_temperatures + 1], in the default float type.

    Raises:
      ValueError: if N_t < 1 or p <= 0.
    """
    if num_temperatures < 1:
        raise ValueError(f"num_temperatures must be at least 1, not {num_temperatures}.")
    if not power > 0:
        raise ValueError(f"power must be positive, not {power}.")
    return (jnp.arange(num_temperatures + 1) / num_temperatures) ** power


def linear_schedule(num_temperatures: int, power: float = 1.0) -> Array:
    """t_i = i / N_t: the power schedule with p = 1, whatever the power field says."""
    del power
    return power_schedule(num_temperatures, 1.0)


SCHEDULES: dict[str, Callable[[int, float], Array]] = {
    "power": power_schedule,
    "linear": linear_schedule,
}
