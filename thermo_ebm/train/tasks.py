"""What a run trains, and how: model, loss and optimisers, and the first state."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from thermo_ebm.config.build import (
    amplification_settings,
    loss_settings,
    make_objective,
)
from thermo_ebm.cost.plan import halves_together
from thermo_ebm.gradients import amplification
from thermo_ebm.gradients.amplification import AmplificationSettings
from thermo_ebm.likelihood import LikelihoodSettings
from thermo_ebm.losses import LossSettings, Objective
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.randomness import INIT
from thermo_ebm.thermo.schedule import Schedule, annealed_power, make_schedule
from thermo_ebm.train import optimisers
from thermo_ebm.train.optimisers import Optimisers
from thermo_ebm.train.state import TrainState, begin_epoch, zero_sums
from thermo_ebm.types import Array, PRNGKey

AXIS = "devices"
MAX_SKIPPED_STEPS = 10  # non-finite steps in a row before a rollback; at most those of an epoch
GRAD_NOISE_DRAWS = 256  # at most; a measurement ends once its relative error is below a tenth
# One estimator of the held-out log p(x) for every run, so that the values can be compared.
HELD_OUT_IMAGES = 64
HELD_OUT_SETTINGS = LikelihoodSettings(
    num_temperatures=24, chains_per_image=8, steps_per_temperature=10, prior_steps=100, pilots=0
)


class Task(NamedTuple):
    """The model, loss and optimisers of a run."""

    model: LatentEBM
    objective: Objective  # over the whole batch
    settings: LossSettings  # of the thermodynamic loss: its schedule
    anneal_steps: int  # over which "annealed_power" changes p
    final_power: float  # p at their end
    gradient_noise: AmplificationSettings
    optimisers: Optimisers
    batch_size: int  # of one update: `gradient_noise.accumulate` batches
    steps_per_epoch: int
    num_train: int
    num_val: int
    val_batches: int
    clip_norm: float  # 0 clips nothing
    max_skipped_steps: int
    grad_noise_draws: int
    likelihood: LikelihoodSettings
    likelihood_images: int
    streaming: bool  # whether `run_steps` gets a dispatch's images alone
    halves_together: bool  # see `plan.halves_together`


def updates_per_epoch(config: ConfigDict) -> int:
    """Steps of an epoch, which leaves out an incomplete last batch."""
    return config.data.num_train // (config.batch_size * config.gradient_noise.accumulate)


def make_task(config: ConfigDict, axis_name: str | None = AXIS) -> Task:
    """Builds the task of a checked configuration."""
    model = make_model(config.model, config.data.channels)
    steps_per_epoch = updates_per_epoch(config)
    val_batches = -(-config.data.num_val // config.batch_size)
    return Task(
        model=model,
        objective=make_objective(config, model, axis_name),
        settings=loss_settings(config),
        anneal_steps=config.loss.anneal_epochs * steps_per_epoch,
        final_power=config.loss.final_power,
        gradient_noise=amplification_settings(config),
        optimisers=optimisers.make_optimisers(config.optimizer, steps_per_epoch),
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
        num_train=config.data.num_train,
        num_val=config.data.num_val,
        val_batches=min(config.val_batches or val_batches, val_batches),
        clip_norm=config.optimizer.clip_norm,
        max_skipped_steps=min(MAX_SKIPPED_STEPS, steps_per_epoch),
        grad_noise_draws=GRAD_NOISE_DRAWS,
        likelihood=HELD_OUT_SETTINGS,
        likelihood_images=HELD_OUT_IMAGES,
        streaming=config.data.streaming,
        halves_together=halves_together(jax.default_backend()),
    )


def init_state(task: Task, seed: Array) -> TrainState:
    """The state before the first step; the seed is a scalar."""
    key = jax.random.key(seed)
    params = task.model.init(jax.random.fold_in(key, INIT))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(
        params=params,
        optimiser=optimisers.init(task.optimisers, params),
        step=zero,
        key=key,
        branch=zero,
        order=jnp.arange(task.num_train, dtype=jnp.int32),
        sums=zero_sums(task.settings.num_temperatures),
        skipped=zero,
        skipped_in_row=zero,
        gradient_noise=amplification.init_state(),
        schedule=first_schedule(task),
    )
    return begin_epoch(state, zero)


def first_schedule(task: Task) -> Schedule:
    """The schedule before the first step, its slopes finite."""
    settings = task.settings
    schedule = make_schedule(settings.schedule, settings.num_temperatures, settings.power)
    return jax.tree.map(jnp.float32, schedule)


def current_schedule(task: Task, state: TrainState) -> Schedule:
    """The temperatures of the next step."""
    settings = task.settings
    if settings.schedule == "equal_barrier":
        return state.schedule
    power: float | Array = settings.power
    if settings.schedule == "annealed_power":
        power = annealed_power(settings.power, task.final_power, state.step / task.anneal_steps)
    return make_schedule(settings.schedule, settings.num_temperatures, power)


def step_key(state: TrainState, use: int) -> PRNGKey:
    """The key of the next step for one use (`randomness.CHAINS`, ...)."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, use), state.branch)
    return jax.random.fold_in(key, state.step)
