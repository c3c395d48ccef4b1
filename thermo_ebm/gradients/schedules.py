"""Schedules of the learning rates, over the updates of an optimiser."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax

from thermo_ebm.types import Array


class Decay(NamedTuple):
    """How a learning rate falls; the fields of `config.optimizer.decay` and a group's rates."""

    first: float  # the learning rate until it falls
    final: float  # its lowest value
    begin: int  # updates before it falls
    end: int  # updates until it has fallen (`cosine`)
    rate: float  # factor of every interval (`exponential`)
    interval: int  # updates of an epoch


def exponential(decay: Decay) -> optax.Schedule:
    """The paper's (tables 4 and 5): multiplied by `rate` every epoch, until it is `final`."""
    return optax.exponential_decay(
        init_value=decay.first,
        transition_steps=decay.interval,
        decay_rate=decay.rate,
        transition_begin=decay.begin,
        staircase=True,
        # A rate of 1 never reaches the final value, and optax would start from it.
        end_value=None if decay.rate == 1 else decay.final,
    )


def constant(decay: Decay) -> optax.Schedule:
    """Always `first`."""
    return optax.constant_schedule(decay.first)


def cosine(decay: Decay) -> optax.Schedule:
    """Half a period of a cosine, from `first` at `begin` to `final` at `end` (1608.03983)."""
    fall = optax.cosine_decay_schedule(
        decay.first, decay.end - decay.begin, alpha=decay.final / decay.first
    )
    return optax.join_schedules([optax.constant_schedule(decay.first), fall], [decay.begin])


DECAYS: dict[str, Callable[[Decay], optax.Schedule]] = {
    "exponential": exponential,
    "cosine": cosine,
    "constant": constant,
}


def warmed_up(schedule: optax.Schedule, updates: float) -> optax.Schedule:
    """The schedule times k / `updates` in update k = 1, 2, ... of the first `updates`.

    >>> rate = warmed_up(optax.constant_schedule(1.0), 4)
    >>> [float(rate(number)) for number in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

    Args:
      schedule: of the number of updates done.
      updates: of the warm-up; the schedule itself if there are none.
    """
    if not updates:
        return schedule

    def learning_rate(count: Array) -> Array:
        return schedule(count) * jnp.minimum((count + 1) / updates, 1.0)

    return learning_rate
