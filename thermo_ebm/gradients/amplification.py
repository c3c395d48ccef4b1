"""Amplification: sets the noise of a gradient without changing its mean.

    g' = g + sqrt(c - 1) xi d,    xi = +-1 from the step's key,

has the mean of g and c times its covariance, whatever the covariance's shape, where d
comes from the two halves of the batch (`halves.py`); Wu et al. (2020, arXiv 1906.07405) and Mori &
Ueda (2020, arXiv 2009.13094) set the noise of a gradient in related ways. With a target, c is
chosen at each step from its own d: since E |d|^2 = tr Cov(g),

    c |d|^2 = target    gives    tr Cov(g') = tr Cov(g) + E[(c - 1) |d|^2] = target

without a delay, for any distribution of d, because xi is independent of d.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.gradients.halves import size, square
from thermo_ebm.types import Array, Params, PRNGKey

MAX_AMPLIFICATION = 64.0  # the largest c that a target may use
# Updates before the amplification begins, where the second moment is that of the gradient before
# it: of one or two gradients, the root of their mean square comes near 0 by chance, and the
# amplified gradient over this root has no finite variance.
WARM_UP = 10


class AmplificationSettings(NamedTuple):
    """Settings of the gradient's noise."""

    amplification: float = 1.0  # c, at least 1: the factor of the covariance
    accumulate: int = 1  # batches per update: divides the covariance
    target: float = 0.0  # target for the update's gradient, per parameter; 0: no target
    second_moment: str = "plain"  # see `optimisers.choose_gradients`


class AmplificationState(NamedTuple):
    """Noise above the target in former steps, where c = 1 was too much; later steps get less."""

    excess: Array  # sum of c |d|^2 / n - target, at most one target; a scalar


class AmplificationInfo(NamedTuple):
    """Amplification in one step; scalars."""

    amplification: Array  # c
    saturated: Array  # 1 where the target could not be reached, else 0


def init_state() -> AmplificationState:
    """The state before the first step."""
    return AmplificationState(jnp.zeros(()))


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
    settings: AmplificationSettings, state: AmplificationState, difference: Params | None
) -> tuple[AmplificationInfo, AmplificationState]:
    """c of one step, fixed or for the target, and the state after the step.

    Args:
      settings: of the noise.
      state: before the step.
      difference: d of the step; None if there is no target.
    """
    if not settings.target or difference is None:
        fixed = jnp.asarray(settings.amplification, jnp.float32)
        return AmplificationInfo(fixed, jnp.zeros(())), state
    target = settings.target
    noise = square(difference) / size(difference)
    needed = (target - state.excess) / jnp.maximum(noise, jnp.finfo(jnp.float32).tiny)
    c = jnp.clip(needed, 1.0, MAX_AMPLIFICATION)
    excess = jnp.clip(state.excess + c * noise - target, -target, target)
    return AmplificationInfo(c, (c != needed).astype(jnp.float32)), AmplificationState(excess)


def after_warm_up(
    settings: AmplificationSettings, info: AmplificationInfo, step: Array
) -> AmplificationInfo:
    """No amplification in the first updates, where it would meet a second moment of few gradients.

    Args:
      settings: of the noise.
      info: of the step.
      step: steps done before it.
    """
    if settings.second_moment != "plain":
        return info
    return info._replace(amplification=jnp.where(step < WARM_UP, 1.0, info.amplification))


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
