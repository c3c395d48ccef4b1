"""The state of a training run: the content of a checkpoint, changed by each step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.gradients.amplification import AmplificationState
from thermo_ebm.thermo.schedule import Schedule
from thermo_ebm.train.optimisers import OptimiserState
from thermo_ebm.types import Array, Params, PRNGKey

# Numbers folded into the key of a repetition, one for each use of random numbers.
INIT, ORDER, CHAINS, VALIDATION, NOISE, PICTURES, EVALUATION, AMPLIFICATION, LIKELIHOOD = range(9)


class EpochSums(NamedTuple):
    """Sums over the epoch's steps so far, all but two of them scalars; without skipped steps."""

    loss: Array
    grad_mean: Array
    grad_var: Array
    grad_var_prior: Array
    grad_var_generator: Array
    steps: Array  # int32, how many were summed
    noise: Array  # |d|^2 per parameter, of steps that measured it, as the next five
    noise_prior: Array  # per parameter of alpha
    noise_generator: Array  # per parameter of beta
    signal: Array  # |g|^2 - |d|^2 per parameter
    update_noise: Array  # of the gradient that the optimisers were given
    noise_steps: Array  # int32, how many measured it
    amplification: Array  # c
    saturated: Array  # steps at which the target of the noise was out of reach
    effective_sample_size: Array  # of the reweighted chains of an image
    acceptance_prior: Array
    acceptance_posterior: Array
    round_trips: Array
    swap_probability: Array  # of neighbours among t_1 .. t_N, then 0, [num_temperatures]
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


# Fields missing from checkpoints of version 0.1.0: zero then, except the schedule.
ADDED = ("gradient_noise.", "schedule.", *(f"sums.{name}" for name in EpochSums._fields[6:]))


def zero_sums(num_temperatures: int) -> EpochSums:
    """The sums at the start of an epoch."""
    zeros = {name: jnp.zeros(()) for name in EpochSums._fields}
    counts = {name: jnp.zeros((), jnp.int32) for name in ("steps", "noise_steps")}
    pairs = {name: jnp.zeros(num_temperatures) for name in ("swap_probability", "rejection")}
    return EpochSums(**(zeros | counts | pairs))


def begin_epoch(state: TrainState, epoch: Array) -> TrainState:
    """A new order of the images, and sums of zero."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, ORDER), state.branch)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), state.order.shape[0])
    return state._replace(
        order=order.astype(jnp.int32),
        sums=jax.tree.map(jnp.zeros_like, state.sums),
        skipped=jnp.zeros((), jnp.int32),
    )
