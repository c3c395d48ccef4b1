"""The dial: a gradient's noise set without touching its mean.

    g' = g + sqrt(c - 1) xi d,    xi = +-1 from the step's key,

has the mean of g and c times its covariance, whatever the covariance's shape, with d from the
batch's halves (`halves.py`). A target sets c from a running mean of the measured noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.gradients.halves import size, square
from thermo_ebm.types import Array, Params, PRNGKey

_MEMORY = 0.95  # of the running mean: some twenty steps


class DialSettings(NamedTuple):
    """How the noise of the gradient is set."""

    amplification: float = 1.0  # c, at least 1: the factor of the covariance
    accumulate: int = 1  # batches per update: divides the covariance
    target_noise: float = 0.0  # of the update's gradient, per parameter; 0 sets none
    max_amplification: float = 64.0  # the largest c that a target may ask for


class DialState(NamedTuple):
    """The running mean of the noise, of steps so far; scalars."""

    noise: Array  # sum of |d|^2 / n, weighted by _MEMORY^age
    weight: Array  # sum of the weights


class DialInfo(NamedTuple):
    """What one step's dial did; scalars."""

    amplification: Array  # c
    saturated: Array  # 1 where the target could not be reached, else 0


def init_dial() -> DialState:
    """No steps so far."""
    return DialState(jnp.zeros(()), jnp.zeros(()))


def is_used(settings: DialSettings) -> bool:
    """Whether the gradient's noise is changed at all."""
    return settings.amplification != 1.0 or settings.target_noise > 0


def choose_amplification(settings: DialSettings, state: DialState) -> DialInfo:
    """c of the next step: fixed, or what brings the running mean to the target.

    The first step of a target, which has no mean yet, is not amplified.
    """
    if not settings.target_noise:
        return DialInfo(jnp.asarray(settings.amplification, jnp.float32), jnp.zeros(()))
    known = state.weight > 0
    mean = state.noise / jnp.where(known, state.weight, 1.0)
    wanted = settings.target_noise / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)
    c = jnp.where(known, jnp.clip(wanted, 1.0, settings.max_amplification), 1.0)
    return DialInfo(c, (known & (c != wanted)).astype(jnp.float32))


def amplify(grads: Params, difference: Params, amplification: Array, key: PRNGKey) -> Params:
    """g + sqrt(c - 1) xi d; with c = 1 every bit stays as it was.

    Args:
      grads: g.
      difference: d, of the same structure.
      amplification: c >= 1.
      key: consumed; decides xi.
    """
    factor = jnp.sqrt(amplification - 1.0) * jax.random.rademacher(key, (), jnp.float32)
    return jax.tree.map(
        lambda g, d: jnp.where(amplification > 1.0, g + factor * d, g), grads, difference
    )


def observe(state: DialState, difference: Params) -> DialState:
    """Takes one step's |d|^2 per parameter into the running mean, if it is finite."""
    noise = square(difference) / size(difference)
    new = DialState(_MEMORY * state.noise + noise, _MEMORY * state.weight + 1.0)
    return jax.tree.map(lambda a, b: jnp.where(jnp.isfinite(noise), a, b), new, state)
