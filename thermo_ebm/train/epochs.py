"""The end of an epoch: validation, gradient noise, readings, pictures and the next schedule."""

import math
from typing import Any

import jax
import numpy as np

from thermo_ebm import readings
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.cost import memory
from thermo_ebm.gradients import halves
from thermo_ebm.gradients.bias import GradientBias
from thermo_ebm.gradients.noise import GradientNoise, NoiseSums, noise_of
from thermo_ebm.gradients.optimisers import num_updates
from thermo_ebm.likelihood import bits_per_dim
from thermo_ebm.likelihood.verdict import LEAST_SHARE
from thermo_ebm.losses import LossTerms
from thermo_ebm.run import events, pictures, tables
from thermo_ebm.run.layout import READINGS, TEMPERATURES
from thermo_ebm.run.tables import Row
from thermo_ebm.thermo.schedule import Schedule, equalised
from thermo_ebm.train import hosts, programs, writers
from thermo_ebm.train.feed import Feed
from thermo_ebm.train.programs import Programs
from thermo_ebm.train.recovery import Repetition
from thermo_ebm.train.report import Reporter
from thermo_ebm.train.start import Group
from thermo_ebm.train.state import EpochSums, TrainState
from thermo_ebm.train.task import last_rates
from thermo_ebm.train.validation import MeanLikelihood, bias_numbers

MOST_BIAS = 0.5  # of the root mean square of a batch's gradient, above which a run warns


def end_epochs(
    group: Group,
    opened: list[Repetition],
    state: TrainState,
    ended: np.ndarray,
    seconds: np.ndarray,
    reporter: Reporter,
) -> TrainState:
    """Writes the finished epoch of each repetition that has one, and begins its next epoch.

    Args:
      group: what is trained.
      opened: the group's repetitions.
      state: theirs, consumed.
      ended: bool [num_repetitions].
      seconds: of each epoch's training [num_repetitions].
      reporter: reports each epoch.
    """
    config, task = group.task.config, group.task
    host = programs.counters(state)
    epochs = host.step // task.steps_per_epoch
    reporter.doing("validating")
    validated = group.programs.validate(state, group.images.validation)
    val_loss, aux = jax.device_get(programs.local(validated))
    rows = [_row(group, _at(host, i), float(val_loss[i])) for i in range(len(opened))]
    counts = {name: num_updates(of_group) for name, of_group in state.optimiser.items()}
    updates = jax.device_get(programs.local(counts))
    for i, row in enumerate(rows):
        rates = last_rates(task.optimisers, _at(updates, i))
        row |= {f"learning_rate_{name}": rate for name, rate in rates.items()}
        row |= {"seconds": float(seconds[i]), "group_size": len(opened)}
        if seconds[i]:
            images = task.steps_per_epoch * task.images_per_step
            row["images_per_second"] = images / float(seconds[i])
    interval = config.logging.grad_noise_every_epochs
    if interval and (measured := ended & (epochs % interval == 0)).any():
        reporter.doing("measuring the gradient's noise")
        noise_sums = measure_noise(group.programs, group.images.feed, state, measured)
        num_parameters = halves.size(_at(programs.local(state.params), 0))
        for i in np.flatnonzero(measured).tolist():
            rows[i] |= _noise_readings(noise_of(_at(noise_sums, i), num_parameters))
    interval = config.logging.gradient_bias_every_epochs
    if interval and (measured := ended & (epochs % interval == 0)).any():
        reporter.doing("measuring the gradient's bias")
        batches = group.images.feed.take(bias_numbers(task))
        biases = jax.device_get(programs.local(group.programs.bias(state, batches)))
        for i in np.flatnonzero(measured).tolist():
            rows[i] |= _bias_readings(_at(biases, i))
            if warning := _warning_of_bias(rows[i]):
                reporter.note(warning)
    interval = config.evaluation.likelihood.every_epochs
    is_due = (epochs % max(interval, 1) == 0) | (epochs >= config.num_epochs)
    if interval and (evaluated := ended & is_due).any():
        reporter.doing("evaluating the log-likelihood")
        likelihood = group.programs.likelihood(state, group.images.likelihood)
        measured = jax.device_get(programs.local(likelihood))
        for i in np.flatnonzero(evaluated).tolist():
            rows[i] |= _likelihood_readings(group, _at(measured, i))
            if warning := _warning_of_likelihood(rows[i]):
                reporter.note(warning)
    with hosts.writing(opened[0].folder.parent):
        for i in np.flatnonzero(ended).tolist() if hosts.is_first() else ():
            write_epoch(opened[i], group, rows[i], _at(aux, i))
            interval, epoch = config.logging.pictures_every_epochs, int(epochs[i])
            if interval and (epoch % interval == 0 or epoch == config.num_epochs):
                reporter.doing("drawing")
                params, key = _at(programs.local((state.params, state.key)), i)
                samples = jax.device_get(group.programs.draw(params, key))
                _write_pictures(opened[i], rows[i], samples, group.images.real)
            reporter.epoch_done(rows[i])
    state = _adapt_schedules(group, state, host, ended)
    return group.programs.begin_epoch(state, epochs, ended)


def _at(stacked: Any, i: int) -> Any:
    """One repetition of a stacked tree."""
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def _row(group: Group, host: TrainState, val_loss: float) -> Row:
    """The readings that every epoch has; the state's scalars and sums are numpy scalars."""
    dim = math.prod(group.images.real.shape[1:])
    return {
        "epoch": int(host.step) // group.task.steps_per_epoch,
        "step": int(host.step),
        **_step_means(host.sums, dim, group.task.images_per_step),
        "skipped_steps": int(host.skipped),
        "val_loss": val_loss,
        "val_loss_per_dim": val_loss / dim,
        "flops_per_step": group.flops_per_step,
        "device_memory_mib": memory.peak_mib(jax.local_devices()),
    }


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
        if readings.READINGS[name].root:
            mean = math.sqrt(mean) if mean >= 0 else math.nan
        means[name] = mean if math.isfinite(mean) else None
    if (loss := means["train_loss"]) is not None:
        means["train_loss_per_dim"] = loss / dim
    variance, signal = means["train_grad_noise"], means["train_grad_signal"]
    if variance is not None and signal is not None and signal > 0:
        means["train_noise_scale"] = images_per_step * variance / signal
    return means


def measure_noise(
    run: Programs, images: Feed, state: TrainState, measured: np.ndarray
) -> NoiseSums:
    """The sums of the crossed design, block after block until all measured are resolved.

    Args:
      run: the programs.
      images: of the training set.
      state: of the repetitions that train together.
      measured: which of these count, bool [num_repetitions].
    """
    sums = run.zero_noise(state)
    while True:
        numbers = run.noise_numbers(state, sums.blocks)
        batches = images.take(np.asarray(programs.local(numbers)))
        sums, is_resolved = run.add_noise_block(state, sums, batches)
        if np.asarray(programs.local(is_resolved))[measured].all():
            return jax.device_get(programs.local(sums))


def _noise_readings(measured: GradientNoise) -> Row:
    parts = {
        "grad_noise": measured.total,
        "grad_noise_batch": measured.batch,
        "grad_noise_mcmc": measured.chains,
        "grad_noise_interaction": measured.interaction,
    }
    row: Row = {name: float(value) for name, value in parts.items()}
    row |= {
        f"{name}_stderr": float(stderr) for name, stderr in zip(parts, measured.stderr, strict=True)
    }
    relative = float(measured.relative)
    return row | {"grad_noise_relative": relative if math.isfinite(relative) else None}


def _bias_readings(measured: dict[str, GradientBias]) -> Row:
    row: Row = {}
    for name, of_group in measured.items():
        values = {"": of_group.bias, "_stderr": of_group.stderr, "_of_mean": of_group.of_mean}
        for suffix, value in values.items():
            is_finite = math.isfinite(float(value))
            row[f"train_gradient_bias_{name}{suffix}"] = float(value) if is_finite else None
    return row


def _warning_of_bias(row: Row) -> str:
    """One line where a gradient's bias exceeds half of a batch's gradient; "" elsewhere."""
    for group in ("prior", "generator"):
        name = f"train_gradient_bias_{group}"
        value, stderr = row[name], row[f"{name}_stderr"]
        if value is not None and stderr is not None and value > MOST_BIAS:
            return (
                f"epoch {row['epoch']}: chains have not arrived: the mean gradient of the {group} "
                f"is off by {value:.2f} +- {stderr:.2f} of a batch's gradient; see 'Chains that "
                "arrive' in the docs"
            )
    return ""


def _likelihood_readings(group: Group, measured: MeanLikelihood) -> Row:
    mean, stderr, reliable = map(float, measured)
    if not math.isfinite(mean):
        return {}
    dim = math.prod(group.images.real.shape[1:])
    return {
        "val_log_marginal_likelihood": mean,
        "val_log_marginal_likelihood_stderr": stderr if math.isfinite(stderr) else None,
        "val_log_marginal_likelihood_reliable": reliable,
        "val_bits_per_dim": bits_per_dim(mean, dim, group.task.model.likelihood.levels),
    }


def _warning_of_likelihood(row: Row) -> str:
    """One line where the held-out log p(x) of many images cannot be relied on; "" elsewhere."""
    share = row.get("val_log_marginal_likelihood_reliable")
    if share is None or share >= LEAST_SHARE:
        return ""
    return (
        f"epoch {row['epoch']}: log p(x) is reliable for {100 * share:.0f} % of the images only; "
        "python -m launch.likelihood says why"
    )


def write_epoch(repetition: Repetition, group: Group, row: Row, aux: LossTerms) -> None:
    """Writes one epoch's readings.

    Args:
      repetition: whose epoch has ended.
      group: of the repetition; readings that do not apply to its configuration stay empty.
      row: readings by the names of `readings.READINGS`.
      aux: the terms of the validation loss, as numpy arrays.
    """
    loss, sampler = group.task.settings, sampler_settings(group.task.config)
    step = int(row["step"] or 0)
    row = readings.applicable(readings.READINGS, row, loss, sampler)
    tables.append_row(repetition.folder / READINGS, row)
    if loss.value == "integral":
        rows = [
            readings.applicable(readings.TEMPERATURE_READINGS, temperature_row, loss, sampler)
            for temperature_row in temperature_rows(int(row["epoch"] or 0), aux)
        ]
        path = repetition.folder / TEMPERATURES
        tables.append_rows(path, rows, readings.TEMPERATURE_READINGS)
    if repetition.events is not None:
        names = [name for name in row if name not in ("epoch", "step")]
        values = {readings.tag(name): row[name] for name in names}
        events.write_scalars(repetition.events, step, values)
    writers.write(repetition.writers, step, row)


def temperature_rows(epoch: int, aux: LossTerms) -> list[Row]:
    """One row per temperature, by the names of `readings.TEMPERATURE_READINGS`."""

    def entry(values: Any, index: int) -> float | None:
        is_finite = 0 <= index < len(values) and np.isfinite(values[index])
        return float(values[index]) if is_finite else None

    return [
        {
            "epoch": epoch,
            "index": index,
            "temperature": float(temperature),
            "expected_log_likelihood": float(aux.expected_log_likelihood[index]),
            "kl_forward": entry(aux.kl_forward, index),
            "kl_backward": entry(aux.kl_backward, index),
            "rejection": entry(aux.rejection, index),
            "acceptance": entry(aux.acceptance, index),
            "swap_rate": entry(aux.swap_probability, index - 1),  # of pairs among t_1 .. t_N
            "weight": float(aux.weights[index]),
        }
        for index, temperature in enumerate(aux.temperatures)
    ]


def _write_pictures(
    repetition: Repetition, row: Row, samples: np.ndarray, real: np.ndarray
) -> None:
    """Writes the grid of samples beside real images."""
    epoch, columns = int(row["epoch"] or 0), max(round(len(samples) ** 0.5), 1)
    picture = pictures.side_by_side(samples, real, columns, f"samples, epoch {epoch}")
    pictures.save_png(repetition.folder / "samples" / f"epoch_{epoch:04d}.png", picture)
    if repetition.events is not None:
        events.write_image(repetition.events, int(row["step"] or 0), "samples", picture)


def _adapt_schedules(
    group: Group, state: TrainState, host: TrainState, ended: np.ndarray
) -> TrainState:
    """Adapts the temperatures of repetitions that have ended an epoch, from its rejections."""
    if group.task.settings.schedule != "equal_barrier":
        return state
    temperatures, slopes = (np.array(leaf) for leaf in host.schedule)
    for i in np.flatnonzero(ended).tolist():
        rejection = np.asarray(host.sums.rejection[i]) / max(int(host.sums.steps[i]), 1)
        temperatures[i], slopes[i] = equalised(_at(host.schedule, i), rejection)
    schedule = jax.device_put((temperatures, slopes), programs.replicated())
    return state._replace(schedule=Schedule(*schedule))
