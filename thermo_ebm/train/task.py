"""What a run trains and how: the model, its objective and an optimiser for each parameter group."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from thermo_ebm.config.build import amplification_settings, make_objective, parameter_groups
from thermo_ebm.cost.plan import halves_together
from thermo_ebm.gradients import schedules
from thermo_ebm.gradients.amplification import AmplificationSettings
from thermo_ebm.gradients.optimisers import (
    Optimiser,
    OptimiserSettings,
    find_direction,
    make_optimiser,
)
from thermo_ebm.losses import LossSettings, Objective
from thermo_ebm.models.latent_ebm import LatentEBM, make_model
from thermo_ebm.sampling.path import best_acceptance
from thermo_ebm.types import Array

AXIS = "devices"  # the pmapped axis over which a batch is spread
MAX_SKIPPED_STEPS = 10  # non-finite steps in a row before a rollback; at most those of an epoch
GRAD_NOISE_DRAWS = 256  # at most; a measurement ends once its relative error is below a tenth


class Task(NamedTuple):
    """What a run trains."""

    config: ConfigDict
    model: LatentEBM
    objective: Objective  # over the complete batch
    settings: LossSettings
    gradient_noise: AmplificationSettings
    optimisers: dict[str, Optimiser]  # by parameter group
    halves_together: bool  # see `plan.halves_together`
    best_acceptance: Array  # that adapted step sizes approach, [N + 1]
    max_skipped_steps: int = MAX_SKIPPED_STEPS
    grad_noise_draws: int = GRAD_NOISE_DRAWS

    @property
    def images_per_step(self) -> int:
        """Images of one update: `gradient_noise.accumulate` batches."""
        return self.config.batch_size * self.gradient_noise.accumulate

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, which leaves out an incomplete last batch."""
        return updates_per_epoch(self.config)

    @property
    def total_steps(self) -> int:
        """Steps of the complete training of a repetition."""
        return self.config.num_epochs * self.steps_per_epoch

    @property
    def val_batches(self) -> int:
        """Batches of validation images on which the validation loss is evaluated."""
        available = -(-self.config.data.num_val // self.config.batch_size)
        return min(self.config.val_batches or available, available)


def updates_per_epoch(config: ConfigDict) -> int:
    """Steps of an epoch of a configuration."""
    return config.data.num_train // (config.batch_size * config.gradient_noise.accumulate)


def make_task(config: ConfigDict, axis_name: str | None = AXIS) -> Task:
    """Builds the task of a checked configuration."""
    model = make_model(config)
    return Task(
        config=config,
        model=model,
        objective=make_objective(config, model, axis_name),
        settings=LossSettings.from_config(config),
        gradient_noise=amplification_settings(config),
        optimisers=make_optimisers(
            config.optimizer, updates_per_epoch(config), parameter_groups(config)
        ),
        halves_together=halves_together(jax.default_backend()),
        best_acceptance=_best_acceptance(config, model),
        max_skipped_steps=min(MAX_SKIPPED_STEPS, updates_per_epoch(config)),
    )


def _best_acceptance(config: ConfigDict, model: LatentEBM) -> Array:
    """The acceptance that adapted step sizes approach.

    Exact draws, of the prior or of an encoder, always have 1.
    """
    settings = LossSettings.from_config(config)
    prior, posterior = config.sampler.prior.kernel, config.sampler.posterior.kernel
    best = best_acceptance(prior, posterior, settings.num_temperatures)
    if settings.encoder is not None:
        best = best.at[1:].set(1.0)
    return best if model.prior.exact_sample is None else best.at[0].set(1.0)


def make_optimisers(
    config: ConfigDict, steps_per_epoch: int, groups: Sequence[str] = ("prior", "generator")
) -> dict[str, Optimiser]:
    """The optimiser of each parameter group, its learning rate by `decay` and `warm_up_epochs`."""
    optimisers, decay = {}, config.decay
    for name in groups:
        settings = config[name]
        fall = schedules.Decay(
            first=settings.learning_rate,
            final=settings.final_learning_rate,
            begin=decay.begin_epoch * steps_per_epoch,
            end=decay.end_epoch * steps_per_epoch,
            rate=decay.rate,
            interval=steps_per_epoch,
        )
        learning_rate = schedules.warmed_up(
            schedules.DECAYS[decay.name](fall), config.warm_up_epochs * steps_per_epoch
        )
        moments = OptimiserSettings(settings.b1, settings.b2, config.weight_decay)
        optimisers[name] = make_optimiser(find_direction(config.name, moments), learning_rate)
    return optimisers


def last_rates(optimisers: dict[str, Optimiser], updates: dict[str, int]) -> dict[str, float]:
    """Each group's learning rate in its last update; before the first, that of the first."""
    return {
        name: float(optimiser.learning_rate(max(int(updates[name]) - 1, 0)))
        for name, optimiser in optimisers.items()
    }
