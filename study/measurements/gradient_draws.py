"""Repeated draws of the training gradient, and timed steps, for `gradient_noise.py`.

Draws take independent images from the population, so that the noise is that of an infinite data set
and the mean gradient is that of the population. The temperatures are an argument of every compiled
program (the schedule in the state, as for "equal_barrier"), so that all p share one program.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict

from thermo_ebm.gradients import amplification
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import Schedule, make_schedule
from thermo_ebm.train import feed, programs
from thermo_ebm.train.state import TrainState, init_state
from thermo_ebm.train.step import Batches, batch_gradient
from thermo_ebm.train.task import AXIS, Task
from thermo_ebm.types import Array, Params, PRNGKey

_GROUPS = 16  # of draws, left out one after another


class Draws(NamedTuple):
    """Gradients of independent batches and chains, [num_draws, num_params] each."""

    mean: np.ndarray  # g
    difference: np.ndarray  # d of the batch's halves
    effective_sample_size: float  # of the reweighted chains of an image, mean


class DrawMoments(NamedTuple):
    """Of a stochastic gradient, from repeated draws."""

    noise: float  # tr Cov / n
    bias: float  # |E g - reference| / |reference|, with its own sampling variance taken off
    least_bias: float  # the same with its standard error taken off too


def make_config(quick: bool) -> ConfigDict:
    """A small model of the digits, with a few hundred images as the population."""
    from configs import digits_paper

    config = digits_paper.get_config()
    config.update_from_flattened_dict(
        {
            "batch_size": 8 if quick else 32,
            "data.num_train": 64 if quick else 256,  # of which eight batches are one accumulated
            "data.num_val": 32,
            "model.latent_dim": 4,
            "model.prior.features": 32,
            "model.generator.features": 2 if quick else 4,
            # A flat likelihood and adjusted chains that exchange: they converge in their few steps.
            # With the digits' own settings the bias of the chains (measured: 0.25 of |g| by the
            # step size alone) would hide that of what is measured here.
            "model.likelihood_sigma": 1.0,
            "sampler.posterior.step_size": 0.05,
            "sampler.prior.kernel": "mala",
            "sampler.prior.num_steps": 5 if quick else 60,
            "sampler.posterior.kernel": "mala",
            "sampler.posterior.num_steps": 5 if quick else 60,
            "sampler.exchange_every": 2,
            "sampler.chains_per_image": 2,
            "loss.num_temperatures": 4,
            "loss.schedule": "equal_barrier",
            "loss.correction": "none",  # of the value alone; so that M = 1 is possible
            "loss.power": 0.3,
            "loss.prior_gradient": "contrastive",
            "loss.generator_gradient": "reweighted",
            "optimizer.decay.rate": 1.0,
        }
    )
    return config


def make_cifar10_config(data_dir: str) -> ConfigDict:
    """The same measurement on images of CIFAR-10: the paper's layers, a sixteenth as wide."""
    from configs import cifar10_paper

    config = cifar10_paper.get_config()
    shared = make_config(quick=False)
    for group in ("loss", "gradient_noise", "optimizer"):
        config[group] = shared[group]
    config.update_from_flattened_dict(
        {
            "batch_size": 16,
            "data.data_dir": data_dir,
            "data.num_train": 128,
            "data.num_val": 32,
            "model.latent_dim": 32,
            "model.prior.features": 32,
            "model.generator.features": 4,
            "sampler.prior.num_steps": 40,
            "sampler.posterior.num_steps": 20,
        }
    )
    return config


def changed(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A copy with other values of some fields, by their dotted names."""
    copy = ConfigDict(config.to_dict())
    copy.update_from_flattened_dict(dict(fields))
    return copy


def power_schedule(task: Task, power: float) -> Schedule:
    """The schedule of p with finite slopes, in the state's types."""
    schedule = make_schedule("power", task.settings.num_temperatures, power)
    finite = jnp.where(jnp.isfinite(schedule.slopes), schedule.slopes, 0.0)
    return Schedule(jnp.float32(schedule.temperatures), jnp.float32(finite))


def make_draws(task: Task, fixed_batch: bool = False) -> Callable[..., Draws]:
    """Compiles the drawing of gradients of one task.

    Args:
      task: what is trained.
      fixed_batch: every draw takes the same first images of the population (all of them, if the
        batch is as large): only the chains are random.

    Returns:
      (params, schedule, population uint8 [num_train, ...], key, num_draws) -> `Draws`.
    """
    num = task.images_per_step

    def draw_gradient(params: Params, schedule: Schedule, population: Array, key: PRNGKey) -> Any:
        batch_key, chain_key = jax.random.split(key)
        numbers = jnp.arange(num)
        if not fixed_batch:
            numbers = jax.random.choice(batch_key, population.shape[0], (num,))
        batches = _device_share(population, numbers.reshape(-1, task.config.batch_size))
        drawn = batch_gradient(task, params, batches, chain_key, Ladder(schedule))
        size = getattr(drawn.aux, "effective_sample_size", jnp.nan)
        return ravel_pytree(drawn.mean)[0], ravel_pytree(drawn.difference)[0], size

    def draw_gradients(
        params: Params, schedule: Schedule, population: Array, keys: PRNGKey, device: Array
    ) -> Any:
        del device
        return jax.lax.map(lambda key: draw_gradient(params, schedule, population, key), keys)

    mapped = jax.pmap(
        draw_gradients, axis_name=AXIS, in_axes=(None, None, None, None, 0), out_axes=None
    )

    def draw(
        params: Params, schedule: Schedule, population: np.ndarray, key: PRNGKey, num_draws: int
    ) -> Draws:
        keys, devices = jax.random.split(key, num_draws), np.arange(jax.device_count())
        mean, difference, size = mapped(params, schedule, population, keys, devices)
        return Draws(np.asarray(mean), np.asarray(difference), float(jnp.mean(size)))

    return draw


def _device_share(population: Array, numbers: Array) -> Batches:
    """This device's share, inside pmap, of batches given by their numbers [num, batch_size]."""
    num_devices = jax.lax.psum(1, AXIS)
    share = -(-numbers.shape[1] // num_devices)
    filling = ((0, 0), (0, share * num_devices - numbers.shape[1]))
    filled = jnp.pad(numbers, filling, mode="edge")
    first = jax.lax.axis_index(AXIS) * share
    numbers = jax.lax.dynamic_slice_in_dim(filled, first, share, axis=1)
    return Batches(population[numbers], numbers)


@partial(jax.jit, static_argnames="repeats")
def amplified(
    mean: Array, difference: Array, factor: Array, key: PRNGKey, repeats: int
) -> tuple[Array, Array]:
    """The amplified gradients of every draw, `repeats` of each.

    Returns:
      Their mean over the repeats, [num_draws, num_params], and the trace of their covariance.
    """

    def of_draw(draw: tuple[Array, Array, PRNGKey]) -> tuple[Array, Array]:
        g, d, key = draw
        keys = jax.random.split(key, repeats)
        amplify = partial(amplification.amplify, {"all": g}, {"all": d}, factor)
        gradients = jax.vmap(amplify)(keys)["all"]
        return gradients.mean(axis=0), gradients.var(axis=0).sum()

    keys = jax.random.split(key, mean.shape[0])
    means, within = jax.lax.map(of_draw, (mean, difference, keys))
    # E over a draw's repeats of their variance, made unbiased, and the variance of the means less
    # what that leaves in them.
    within = within.mean() * repeats / max(repeats - 1, 1)
    between = means.var(axis=0, ddof=1).sum()
    return means, between + within * (1 - 1 / repeats)


def moments(means: np.ndarray, covariance: float, reference: np.ndarray) -> DrawMoments:
    """Noise and bias of a stochastic gradient.

    Args:
      means: of independent draws, [num_draws, num_params].
      covariance: the trace of one draw's covariance.
      reference: independent draws of the long chains' gradient, [num_references, num_params].
    """
    means, reference = np.asarray(means, np.float64), np.asarray(reference, np.float64)
    square = _squared_distance(means, reference)
    norm = max((reference.mean(axis=0) ** 2).sum() - _variance_of_mean(reference), 1e-300)
    error = _jackknife(means, reference)
    bias, least = (np.sqrt(max(value, 0.0) / norm) for value in (square, square - error))
    return DrawMoments(float(covariance) / means.shape[1], float(bias), float(least))


def _squared_distance(means: np.ndarray, reference: np.ndarray) -> float:
    """|E a - E b|^2, unbiased: the variances of both means are taken off."""
    square = ((means.mean(axis=0) - reference.mean(axis=0)) ** 2).sum()
    return square - _variance_of_mean(means) - _variance_of_mean(reference)


def _variance_of_mean(draws: np.ndarray) -> float:
    return draws.var(axis=0, ddof=1).sum() / len(draws)


def _jackknife(means: np.ndarray, reference: np.ndarray) -> float:
    """Standard error of the squared distance, over groups of draws and over the references."""
    variance = 0.0
    for draws, make in ((means, lambda a: (a, reference)), (reference, lambda b: (means, b))):
        groups = np.array_split(np.arange(len(draws)), min(_GROUPS, len(draws) // 2))
        values = [_squared_distance(*make(np.delete(draws, group, axis=0))) for group in groups]
        variance += (len(groups) - 1) * float(np.var(values))
    return float(np.sqrt(variance))


def initial_state(task: Task, seed: int) -> TrainState:
    """A replicated state of one repetition, before its first step, with the schedule of p."""
    state = jax.jit(partial(init_state, task))(seed)
    schedule = power_schedule(task, task.settings.power)
    return jax.device_put(state._replace(schedule=schedule), programs.replicated())


def without_halves(task: Task) -> Task:
    """The same task, whose step takes one gradient of the whole batch and measures no noise."""
    # As gradients that are no mean over images are taken: no halves, and no difference.
    plain = task.objective._replace(differentiated=True, mean_of_images=False)
    return task._replace(objective=plain)


def trained(task: Task, state: TrainState, population: np.ndarray, num_steps: int) -> TrainState:
    """The state after `num_steps` more steps of the trainer."""
    run = programs.make_programs(task, 1)
    stacked = programs.stack_repetitions([state])
    for state, _ in _dispatches(task, run, stacked, population, num_steps):
        stacked = state
    return programs.select_repetition(stacked, 0)


def noise_with_target(
    task: Task, state: TrainState, population: np.ndarray, num_steps: int
) -> tuple[float, float]:
    """Trains with a target: the update's mean noise over the last half, and steps saturated there.

    Args:
      task: with `gradient_noise.target`.
      state: where training goes on from.
      population: the training images.
      num_steps: of the run.
    """
    run, total, steps, saturated = programs.make_programs(task, 1), 0.0, 0, 0.0
    stacked = programs.stack_repetitions(
        [state._replace(gradient_noise=amplification.init_state())]
    )
    for done, (_, sums) in enumerate(_dispatches(task, run, stacked, population, num_steps)):
        if 2 * (done + 1) * task.steps_per_epoch > num_steps:
            total += float(sums.readings["train_update_noise"][0])
            saturated += float(sums.readings["gradient_noise_saturated"][0])
            steps += int(sums.steps[0])
    return total / steps, saturated / steps


def _dispatches(
    task: Task, run: Any, state: TrainState, population: np.ndarray, num_steps: int
) -> Iterator[tuple[TrainState, Any]]:
    """Trains epoch by epoch: yields the state at the end of each, and its sums."""
    first, images = int(programs.local(state.step)[0]), feed.in_memory(population, task)
    for done in range(0, num_steps, task.steps_per_epoch):
        stop = first + min(done + task.steps_per_epoch, num_steps)
        reached = first + done
        while reached < stop:
            order_end = (reached // task.steps_per_epoch + 1) * task.steps_per_epoch
            reached = min(reached + task.config.steps_per_dispatch, order_end, stop)
            until, limit = np.array([reached], np.int32), task.config.steps_per_dispatch
            batches = images.dispatch(state, until, limit)
            state = run.run(state, until, np.int32(limit), batches)
        sums = jax.device_get(programs.local(state.sums))
        epoch = np.array([stop // task.steps_per_epoch], np.int32)
        state = run.begin_epoch(state, epoch, np.array([True]))
        yield state, sums


def seconds_per_step(
    tasks: list[Task], state: TrainState, population: np.ndarray, repeats: int
) -> np.ndarray:
    """Times the trainer's step of several tasks, one after another and again: [repeats, tasks]."""
    steps = [programs.map_step(task) for task in tasks]
    # A step consumes its state.
    stacked = [programs.stack_repetitions([state]) for _ in tasks]
    states = [programs.select_repetition(copy, 0) for copy in stacked]
    batches = [
        feed.in_memory(population, task).take(
            np.arange(task.images_per_step).reshape(-1, task.config.batch_size)
        )
        for task in tasks
    ]
    seconds = np.zeros((repeats + 1, len(tasks)))
    for row in seconds:
        for i, run in enumerate(steps):
            start = time.perf_counter()
            states[i] = jax.block_until_ready(run(states[i], batches[i]))
            row[i] = time.perf_counter() - start
    return seconds[1:]  # the first ones compile
