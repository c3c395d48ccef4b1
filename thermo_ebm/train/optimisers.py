"""Two Adam optimisers, one for alpha and one for beta, with the paper's decay (tables 4 and 5)."""

from typing import Any, NamedTuple

import optax
from ml_collections import ConfigDict

from thermo_ebm.types import Params


class Optimisers(NamedTuple):
    """The two gradient transformations, and the schedules of their learning rates."""

    prior: optax.GradientTransformation
    generator: optax.GradientTransformation
    prior_rate: optax.Schedule
    generator_rate: optax.Schedule


class OptimiserState(NamedTuple):
    """The states of both optimisers."""

    prior: Any  # of optax.adam: Adam's own state, with its count of updates, and the schedule's
    generator: Any


def make_optimisers(config: ConfigDict, steps_per_epoch: int) -> Optimisers:
    """Builds both optimisers from `config.optimizer`.

    The learning rate stays at its first value for `decay.begin_epoch` epochs, is then multiplied
    by `decay.rate` every epoch and stops at its final value.
    """
    rates = [_rate(config[name], config.decay, steps_per_epoch) for name in ("prior", "generator")]
    prior, generator = (
        optax.adam(rate, b1=config[name].b1, b2=config[name].b2)
        for rate, name in zip(rates, ("prior", "generator"), strict=True)
    )
    return Optimisers(prior, generator, *rates)


def _rate(one: ConfigDict, decay: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    return optax.exponential_decay(
        init_value=one.learning_rate,
        transition_steps=steps_per_epoch,
        decay_rate=decay.rate,
        transition_begin=decay.begin_epoch * steps_per_epoch,
        staircase=True,
        # A rate of 1 never reaches the final value, and optax would start from it.
        end_value=None if decay.rate == 1 else one.final_learning_rate,
    )


def init(optimisers: Optimisers, params: Params) -> OptimiserState:
    """The state before the first step."""
    return OptimiserState(
        optimisers.prior.init(params["prior"]), optimisers.generator.init(params["generator"])
    )


def num_updates(state: OptimiserState) -> tuple[Any, Any]:
    """Number of updates of prior and generator; skipped steps do not count."""
    return state.prior[0].count, state.generator[0].count


def last_rates(optimisers: Optimisers, updates: tuple[Any, Any]) -> tuple[float, float]:
    """The learning rates in the last update; before the first update, those of the first."""
    prior, generator = (max(int(number) - 1, 0) for number in updates)
    return float(optimisers.prior_rate(prior)), float(optimisers.generator_rate(generator))


def update(
    optimisers: Optimisers, grads: Params, state: OptimiserState, params: Params
) -> tuple[Params, OptimiserState]:
    """One step of both: returns the new parameters and the new state."""
    alpha, prior_state = optimisers.prior.update(grads["prior"], state.prior, params["prior"])
    beta, generator_state = optimisers.generator.update(
        grads["generator"], state.generator, params["generator"]
    )
    new = {
        "prior": optax.apply_updates(params["prior"], alpha),
        "generator": optax.apply_updates(params["generator"], beta),
    }
    return new, OptimiserState(prior_state, generator_state)
