"""The state of a training run: the content of a checkpoint, changed by each step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm import readings
from thermo_ebm.gradients.amplification import AmplificationState
from thermo_ebm.randomness import ORDER
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.train.optimisers import OptimiserState
from thermo_ebm.types import Array, Params, PRNGKey


class EpochSums(NamedTuple):
    """Sums over the epoch's steps so far, without skipped steps."""

    steps: Array  # int32, how many were summed
    readings: dict[str, Array]  # scalars, by the names of `readings.per_step()`
    rejection: Array  # of an exchange between t_i and t_(i+1), [num_temperatures]


class TrainState(NamedTuple):
    """The state of one repetition."""

    params: Params
    optimiser: OptimiserState
    step: Array  # int32, steps done
    key: PRNGKey  # of the repetition; never changes
    branch: Array  # int32, rollbacks so far: folded into the key, so that a retry differs
    order: Array  # int32 [num_train], this epoch's order of the training images
    sums: EpochSums
    skipped: Array  # int32, steps of this epoch whose loss or gradient was not finite
    skipped_in_row: Array  # int32, the newest of them
    gradient_noise: AmplificationState
    schedule: Schedule  # the present adaptive schedule; unused by other schedules


def zero_sums(num_temperatures: int) -> EpochSums:
    """The sums at the start of an epoch."""
    return EpochSums(
        steps=jnp.zeros((), jnp.int32),
        readings={name: jnp.zeros(()) for name in readings.per_step()},
        rejection=jnp.zeros(num_temperatures),
    )


def begin_epoch(state: TrainState, epoch: Array) -> TrainState:
    """A new order of the images, and sums of zero."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, ORDER), state.branch)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), state.order.shape[0])
    return state._replace(
        order=order.astype(jnp.int32),
        sums=jax.tree.map(jnp.zeros_like, state.sums),
        skipped=jnp.zeros((), jnp.int32),
    )
