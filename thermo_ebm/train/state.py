"""Everything a training run is: what a checkpoint holds and a step changes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.train.optimisers import OptimiserState
from thermo_ebm.types import Array, Params, PRNGKey

# What the key of a repetition is folded with, once for each use of random numbers.
INIT, ORDER, CHAINS, VALIDATION, NOISE, PICTURES, EVALUATION = range(7)


class EpochSums(NamedTuple):
    """Sums over the epoch's steps so far, scalars; skipped steps are not in them."""

    loss: Array
    grad_mean: Array
    grad_var: Array
    grad_var_prior: Array
    grad_var_generator: Array
    steps: Array  # int32, how many were summed


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


def zero_sums() -> EpochSums:
    """The sums at the beginning of an epoch."""
    zero = jnp.zeros(())
    return EpochSums(zero, zero, zero, zero, zero, jnp.zeros((), jnp.int32))


def begin_epoch(state: TrainState, epoch: Array) -> TrainState:
    """A new order of the images, and sums of zero."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, ORDER), state.branch)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), state.order.shape[0])
    return state._replace(
        order=order.astype(jnp.int32), sums=zero_sums(), skipped=jnp.zeros((), jnp.int32)
    )
