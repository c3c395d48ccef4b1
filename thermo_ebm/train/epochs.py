"""The end of an epoch: validation, gradient noise, readings and pictures."""

import math
from typing import Any

import jax
import numpy as np

from thermo_ebm.cost import memory
from thermo_ebm.gradients.noise import GradientNoise
from thermo_ebm.run.tables import Row
from thermo_ebm.thermo.schedule import Schedule, equalised
from thermo_ebm.train import hosts, optimisers, repetition, spmd
from thermo_ebm.train.group import Group
from thermo_ebm.train.progress import Reporter
from thermo_ebm.train.repetition import Repetition
from thermo_ebm.train.state import EpochSums, TrainState


def is_pending(group: Group, steps: Any, summed: Any) -> Any:
    """Whether an epoch's steps are done and its readings not yet written; scalars or arrays.

    Args:
      group: what is trained.
      steps: done in all.
      summed: `sums.steps`, which `end_epochs` sets back to 0.
    """
    return (steps % group.task.steps_per_epoch == 0) & (summed > 0)


def end_epochs(
    group: Group,
    opened: list[Repetition],
    state: TrainState,
    host: TrainState,
    ended: np.ndarray,
    seconds: np.ndarray,
    reporter: Reporter,
) -> TrainState:
    """Writes the finished epoch of each repetition that has one, and begins its next epoch.

    Args:
      group: what is trained.
      opened: the group's repetitions.
      state: theirs, consumed.
      host: the state's scalars on the host, [num_repetitions] each.
      ended: bool [num_repetitions].
      seconds: of each epoch's training [num_repetitions].
      reporter: reports each epoch.
    """
    epochs = host.step // group.task.steps_per_epoch
    reporter.doing("validating")
    validated = group.programs.validate(state, group.validation)
    val_loss, aux = jax.device_get(spmd.local(validated))
    noise, measured = _measure_noise(group, state, host, ended, reporter)
    likelihood, wanted = _evaluate_likelihood(group, state, epochs, ended, reporter)
    dim = math.prod(group.validation.shape[2:])
    images_per_step = group.task.batch_size * group.task.gradient_noise.accumulate
    updates = jax.device_get(spmd.local(optimisers.num_updates(state.optimiser)))
    with hosts.writing(opened[0].folder.parent):
        for i in np.flatnonzero(ended).tolist() if hosts.is_first() else ():
            step = int(host.step[i])
            rates = optimisers.last_rates(group.task.optimisers, _one(updates, i))
            row: Row = {
                "epoch": int(epochs[i]),
                "step": step,
                **_step_means(_one(host.sums, i), dim, images_per_step),
                "skipped_steps": int(host.skipped[i]),
                "val_loss": float(val_loss[i]),
                "val_loss_per_dim": float(val_loss[i]) / dim,
                "learning_rate_prior": rates[0],
                "learning_rate_generator": rates[1],
                "flops_per_step": group.flops_per_step,
                "seconds": float(seconds[i]),
                "group_size": len(opened),
                "device_memory_mib": memory.peak_mib(jax.local_devices()),
            }
            if seconds[i]:
                images = group.task.steps_per_epoch * images_per_step
                row["images_per_second"] = images / float(seconds[i])
            if measured[i]:
                row |= _noise_readings(_one(noise, i))
            if wanted[i]:
                row |= _likelihood_readings(_one(likelihood, i), dim)
            repetition.write_epoch(opened[i], group.config, row, _one(aux, i))
            if _wants_pictures(group, int(epochs[i])):
                reporter.doing("drawing")
                _draw_pictures(group, opened[i], state, i, int(epochs[i]), step)
            reporter.epoch_done(row)
    state = _adapt_schedules(group, state, host, ended)
    return group.programs.begin_epoch(state, epochs, ended)


def _measure_noise(
    group: Group, state: TrainState, host: TrainState, ended: np.ndarray, reporter: Reporter
) -> tuple[GradientNoise | None, np.ndarray]:
    """The crossed design of every repetition, and for which the configuration asks for it now."""
    epochs = host.step // group.task.steps_per_epoch
    every = group.config.logging.grad_noise_every_epochs
    measured = ended & (epochs % every == 0) if every else np.zeros_like(ended)
    if not measured.any():
        return None, measured
    reporter.doing("measuring the gradient's noise")
    images = group.feed.images(state, np.asarray(host.step), 0)
    return jax.device_get(spmd.local(group.programs.noise(state, images))), measured


def _evaluate_likelihood(
    group: Group, state: TrainState, epochs: Any, ended: np.ndarray, reporter: Reporter
) -> tuple[Any, np.ndarray]:
    """The held-out log-likelihood of all repetitions, and of which it is wanted now."""
    every = group.config.evaluation.likelihood.every_epochs
    due = (epochs % max(every, 1) == 0) | (epochs >= group.config.num_epochs)
    wanted = ended & due & (every > 0)
    if not wanted.any():
        return None, wanted
    reporter.doing("evaluating the log-likelihood")
    found = group.programs.likelihood(state, group.validation)
    return jax.device_get(spmd.local(found)), wanted


def _step_means(sums: EpochSums, dim: int, images_per_step: int) -> Row:
    """Means over the epoch's steps; empty where no step was summed or the reading is not finite.

    Args:
      sums: of one repetition's epoch, as numpy scalars.
      dim: values of an image.
      images_per_step: images of one update.
    """
    means: Row = {}
    for name, total in sums.readings.items():
        mean = float(total) / int(sums.steps) if sums.steps else math.nan
        means[name] = mean if math.isfinite(mean) else None
    loss, noise, signal = (
        means[name] for name in ("train_loss", "train_grad_noise", "train_grad_signal")
    )
    if loss is not None:
        means["train_loss_per_dim"] = loss / dim
    if noise is not None and signal is not None and signal > 0:
        means["train_noise_scale"] = images_per_step * noise / signal
    return means


def _noise_readings(noise: GradientNoise) -> Row:
    parts = {
        "grad_noise": noise.total,
        "grad_noise_batch": noise.batch,
        "grad_noise_mcmc": noise.chains,
        "grad_noise_interaction": noise.interaction,
    }
    row: Row = {name: float(value) for name, value in parts.items()}
    row |= {
        f"{name}_stderr": float(stderr) for name, stderr in zip(parts, noise.stderr, strict=True)
    }
    row["grad_noise_relative"] = float(noise.relative) if np.isfinite(noise.relative) else None
    return row


def _likelihood_readings(likelihood: Any, dim: int) -> Row:
    value, stderr = float(likelihood.mean), float(likelihood.stderr)
    if not math.isfinite(value):
        return {}
    return {
        "val_log_marginal_likelihood": value,
        "val_log_marginal_likelihood_stderr": stderr if math.isfinite(stderr) else None,
        # A pixel's levels are 2 / 255 apart.
        "val_bits_per_dim": -value / (dim * math.log(2)) + math.log2(127.5),
    }


def _adapt_schedules(
    group: Group, state: TrainState, host: TrainState, ended: np.ndarray
) -> TrainState:
    """Adapts the temperatures of repetitions that have ended an epoch, from its rejections."""
    if group.task.settings.schedule != "equal_barrier":
        return state
    temperatures, slopes = (np.array(leaf) for leaf in host.schedule)
    for i in np.flatnonzero(ended).tolist():
        rejection = np.asarray(host.sums.rejection[i]) / max(int(host.sums.steps[i]), 1)
        temperatures[i], slopes[i] = equalised(_one(host.schedule, i), rejection)
    schedule = jax.device_put((temperatures, slopes), spmd.replicated())
    return state._replace(schedule=Schedule(*schedule))


def _one(stacked: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _wants_pictures(group: Group, epoch: int) -> bool:
    every = group.config.logging.pictures_every_epochs
    return every > 0 and (epoch % every == 0 or epoch == group.config.num_epochs)


def _draw_pictures(
    group: Group, one: Repetition, state: TrainState, i: int, epoch: int, step: int
) -> None:
    params, key = _one(spmd.local((state.params, state.key)), i)
    samples, frame = jax.device_get(group.draw(params, key))
    repetition.write_pictures(one, epoch, step, samples, group.real, frame)
