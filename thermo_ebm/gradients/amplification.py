"""Amplification: sets the noise of a gradient without changing its mean.

    g' = g + sqrt(c - 1) xi d,    xi = +-1 from the step's key,

has the mean of g and c times its covariance, whatever the covariance's shape, where d
comes from the two halves of the batch (`halves.py`). With a target, c is chosen from a running mean
of the measured noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.gradients.halves import size, square
from thermo_ebm.types import Array, Params, PRNGKey

MAX_AMPLIFICATION = 64.0  # the largest c that a target may use
_MEMORY = 0.95  # decay of the running mean, over some twenty steps


class AmplificationSettings(NamedTuple):
    """Settings of the gradient's noise."""

    amplification: float = 1.0  # c, at least 1: the factor of the covariance
    accumulate: int = 1  # batches per update: divides the covariance
    target: float = 0.0  # target for the update's gradient, per parameter; 0: no target


class AmplificationState(NamedTuple):
    """The running mean of the noise over the steps so far; scalars."""

    noise: Array  # sum of |d|^2 / n, weighted by _MEMORY^age
    weight: Array  # sum of the weights


class AmplificationInfo(NamedTuple):
    """Amplification in one step; scalars."""

    amplification: Array  # c
    saturated: Array  # 1 where the target could not be reached, else 0


def init_state() -> AmplificationState:
    """The state before the first step."""
    return AmplificationState(jnp.zeros(()), jnp.zeros(()))


def changes_noise(settings: AmplificationSettings) -> bool:
    """Whether the settings change the gradient's noise."""
    return settings.amplification != 1.0 or settings.target > 0


def check_amplification(
    settings: AmplificationSettings, batch_size: int, mean_of_images: bool
) -> None:
    """Refuses noise control that has no halves of a batch to measure the noise from.

    Args:
      settings: of the noise.
      batch_size: images of one of the batches of an update.
      mean_of_images: whether the gradient is a mean over images.

    Raises:
      ValueError: the message names the field.
    """
    if settings.target and settings.amplification != 1:
        raise ValueError("target chooses the amplification, which must then be 1.")
    if not changes_noise(settings):
        return
    field = "target" if settings.target else "amplification"
    if batch_size * settings.accumulate < 2:
        raise ValueError(
            f"{field} needs at least two images per update (batch_size times accumulate), since "
            "the noise is measured from the two halves of a batch."
        )
    if not mean_of_images:
        raise ValueError(
            f"{field} needs a gradient that is a mean over images, not 'langevin' gradients with "
            "correction 'pooled_gaussian'."
        )


def choose_amplification(
    settings: AmplificationSettings, state: AmplificationState
) -> AmplificationInfo:
    """c of the next step: fixed, or the value that brings the running mean to the target.

    With a target, the first step is not amplified, since there is no mean yet.
    """
    if not settings.target:
        return AmplificationInfo(jnp.asarray(settings.amplification, jnp.float32), jnp.zeros(()))
    measured = state.weight > 0
    mean = state.noise / jnp.where(measured, state.weight, 1.0)
    needed = settings.target / jnp.maximum(mean, jnp.finfo(jnp.float32).tiny)
    c = jnp.where(measured, jnp.clip(needed, 1.0, MAX_AMPLIFICATION), 1.0)
    return AmplificationInfo(c, (measured & (c != needed)).astype(jnp.float32))


def amplify(grads: Params, difference: Params, amplification: Array, key: PRNGKey) -> Params:
    """g + sqrt(c - 1) xi d; with c = 1 the gradient is unchanged bit for bit.

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


def observe(state: AmplificationState, difference: Params) -> AmplificationState:
    """Adds |d|^2 per parameter of one step to the running mean, if it is finite."""
    noise = square(difference) / size(difference)
    new = AmplificationState(_MEMORY * state.noise + noise, _MEMORY * state.weight + 1.0)
    return jax.tree.map(lambda a, b: jnp.where(jnp.isfinite(noise), a, b), new, state)
