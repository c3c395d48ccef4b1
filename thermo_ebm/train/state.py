"""The state of a training run: the content of a checkpoint, changed by each step."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm import readings
from thermo_ebm.config.build import image_shape, sampler_settings
from thermo_ebm.gradients import amplification
from thermo_ebm.gradients.amplification import AmplificationState
from thermo_ebm.gradients.optimisers import OptimiserState, init_optimisers
from thermo_ebm.losses import path_settings
from thermo_ebm.randomness import INIT, ORDER
from thermo_ebm.sampling.path import Ladder, PathState, make_ladder
from thermo_ebm.sampling.path import init_state as init_path
from thermo_ebm.thermo.schedule import Schedule, annealed_power, make_schedule
from thermo_ebm.train.task import Task
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
    path: PathState | None = None  # what the chains have shown of their path, if it is learned
    average: Params | None = None  # of the parameters over updates, if `ema_decay` asks for one


def init_state(task: Task, seed: Array) -> TrainState:
    """The state before the first step; the seed is a scalar."""
    key = jax.random.key(seed)
    params = task.model.init(jax.random.fold_in(key, INIT))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        params=params,
        optimiser=init_optimisers(task.optimisers, params),
        step=zero,
        key=key,
        branch=zero,
        order=jnp.arange(task.config.data.num_train, dtype=jnp.int32),
        sums=EpochSums(
            steps=zero,
            readings={name: jnp.zeros(()) for name in readings.per_step()},
            rejection=jnp.zeros(task.settings.num_temperatures),
        ),
        skipped=zero,
        skipped_in_row=zero,
        gradient_noise=amplification.init_state(),
        schedule=first_schedule(task),
        path=first_path(task),
        average=params if task.config.optimizer.ema_decay else None,
    )
    return begin_epoch(state, zero)


def begin_epoch(state: TrainState, epoch: Array) -> TrainState:
    """A new order of the images, and sums of zero."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, ORDER), state.branch)
    order = jax.random.permutation(jax.random.fold_in(key, epoch), state.order.shape[0])
    return state._replace(
        order=order.astype(jnp.int32),
        sums=jax.tree.map(jnp.zeros_like, state.sums),
        skipped=jnp.zeros((), jnp.int32),
    )


def first_schedule(task: Task) -> Schedule:
    """The schedule before the first step, its slopes finite."""
    settings = task.settings
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    return jax.tree.map(jnp.float32, schedule)


def first_path(task: Task) -> PathState | None:
    """What is known of the chains' path before the first step."""
    config = task.config
    sampler = sampler_settings(config)
    settings = path_settings(task.settings, sampler)
    if sampler.prior.persistent:
        chains = sampler.chains_per_image, task.images_per_step
        settings = settings._replace(prior_chains=chains)
    dim = math.prod(image_shape(config))
    return init_path(task.model, settings, task.settings.num_temperatures, dim)


def current_ladder(task: Task, state: TrainState) -> Ladder:
    """The temperatures and the path of the next step."""
    settings, loss = task.settings, task.config.loss
    power: float | Array = settings.power
    if settings.schedule == "annealed_power":
        annealed = state.step / (loss.anneal_epochs * task.steps_per_epoch)
        power = annealed_power(settings.power, loss.final_power, annealed)
    schedule = state.schedule
    if settings.schedule != "equal_barrier":
        schedule = make_schedule(settings.schedule, settings.num_temperatures, power)
    return make_ladder(task.model, state.path, schedule)


def step_key(state: TrainState, use: int) -> PRNGKey:
    """The key of the next step for one use (`randomness.CHAINS`, ...)."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, use), state.branch)
    return jax.random.fold_in(key, state.step)
