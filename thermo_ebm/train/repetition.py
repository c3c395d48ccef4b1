"""One repetition's folder: opening it, and writing its epochs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm import files
from thermo_ebm.gradients.noise import GradientNoise
from thermo_ebm.losses import ThermodynamicAux
from thermo_ebm.run import events, pictures, tables
from thermo_ebm.run.layout import (
    READINGS,
    ROLLBACKS,
    STRIP,
    TEMPERATURES,
    checkpoints_dir,
    repetition_dir,
)
from thermo_ebm.run.rollbacks import Rollback, read_rollbacks
from thermo_ebm.train import checkpoints, hosts, writers
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.state import EpochSums
from thermo_ebm.train.writers import OpenWriter


class Repetition(NamedTuple):
    """An open repetition."""

    number: int
    folder: Path
    checkpoints: Checkpoints
    rollbacks: tuple[Rollback, ...]  # rollbacks so far, oldest first
    events: Any  # a TensorBoard writer; None on all processes but the first, and when not wanted
    writers: tuple[OpenWriter, ...] = ()  # further ones, likewise


class Sampled(NamedTuple):
    """The readings that the chains of a run provide."""

    adjusted_prior: bool
    adjusted_posterior: bool
    exchanged: bool
    tempered: bool  # there are temperatures between prior and posterior


# Sums that are scalars, and means over all steps that were not skipped.
_SCALARS = tuple(
    name
    for name in EpochSums._fields
    if name not in ("steps", "noise_steps", "swap_probability", "rejection")
)


def may_be_done(workdir: Path, number: int, total_steps: int) -> bool:
    """Whether a repetition has a checkpoint named by its last step or a later one."""
    steps = checkpoints.steps_in(checkpoints_dir(workdir, number))
    return any(step >= total_steps for step in steps)


def open_repetition(
    workdir: Path, number: int, keep: int | None = None, keep_period: int = 0
) -> Repetition:
    """Opens or makes a repetition's folder; its events are opened by `recovery.rewind`.

    Raises:
      UserError: the record of its rollbacks is damaged.
    """
    folder = repetition_dir(workdir, number)
    with hosts.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        rollbacks = read_rollbacks(folder / ROLLBACKS)
    opened = checkpoints.open_checkpoints(checkpoints_dir(workdir, number), keep, keep_period)
    return Repetition(number, folder, opened, rollbacks, None)


def close_repetition(repetition: Repetition) -> None:
    """Waits for its checkpoints and closes its files."""
    try:
        checkpoints.close(repetition.checkpoints)
    finally:
        try:
            writers.close_writers(repetition.writers)
        finally:
            if repetition.events is not None:
                with files.clear_errors(repetition.folder):
                    events.close_events(repetition.events)


def make_row(
    *,
    epoch: int,
    step: int,
    sums: EpochSums,
    skipped: int,
    val_loss: float,
    dim: int,
    rates: tuple[float, float],
    noise: GradientNoise | None,
    seconds: float,
    images: int,
    images_per_step: int,
    flops: int,
    group_size: int,
    of_chains: Sampled,
) -> tables.Row:
    """One epoch's readings, by `tables.READING_COLUMNS`; sums and noise as numpy scalars."""
    train = {name: _mean(getattr(sums, name), sums.steps) for name in _SCALARS}
    loss = train["loss"]
    row: tables.Row = {
        "epoch": epoch,
        "step": step,
        "train_loss": loss,
        "train_loss_per_dim": None if loss is None else loss / dim,
        "train_grad_mean": train["grad_mean"],
        "train_grad_var": train["grad_var"],
        "train_grad_var_prior": train["grad_var_prior"],
        "train_grad_var_generator": train["grad_var_generator"],
        "val_loss": val_loss,
        "val_loss_per_dim": val_loss / dim,
        "learning_rate_prior": rates[0],
        "learning_rate_generator": rates[1],
        "skipped_steps": skipped,
        "flops_per_step": flops,
        "images_per_second": images / seconds if seconds else None,
        "seconds": seconds,
        "group_size": group_size,
        "gradient_noise_amplification": train["amplification"],
        "gradient_noise_saturated": train["saturated"],
    }
    row |= _noise_of_steps(sums, images_per_step) | _chain_readings(sums, train, of_chains)
    return row if noise is None else row | _crossed_noise(noise)


def _noise_of_steps(sums: EpochSums, images_per_step: int) -> tables.Row:
    """Noise readings from the halves of the epoch's batches; empty if no step measured them."""
    names = ("noise", "noise_prior", "noise_generator", "signal", "update_noise")
    noise, prior, generator, signal, update = (
        _mean(getattr(sums, name), sums.noise_steps) for name in names
    )
    scale = None
    if noise is not None and signal is not None and signal > 0:
        scale = images_per_step * noise / signal
    return {
        "train_grad_noise": noise,
        "train_grad_noise_prior": prior,
        "train_grad_noise_generator": generator,
        "train_grad_signal": signal,
        "train_noise_scale": scale,
        "train_update_noise": update,
    }


def _chain_readings(
    sums: EpochSums, train: dict[str, float | None], of_chains: Sampled
) -> tables.Row:
    """Readings of the chains; empty cells where they do not apply."""
    steps = max(int(sums.steps), 1)
    swaps, rejection = (np.asarray(x) / steps for x in (sums.swap_probability, sums.rejection))
    size = train["effective_sample_size"]
    return {
        "effective_sample_size": size if size is not None and np.isfinite(size) else None,
        "acceptance_prior": train["acceptance_prior"] if of_chains.adjusted_prior else None,
        "acceptance_posterior": (
            train["acceptance_posterior"] if of_chains.adjusted_posterior else None
        ),
        "swap_rate": float(swaps[:-1].mean()) if of_chains.exchanged else None,
        "global_barrier": float(rejection.sum()) if of_chains.tempered else None,
        "round_trips": train["round_trips"] if of_chains.exchanged else None,
    }


def _crossed_noise(noise: GradientNoise) -> tables.Row:
    parts = {
        "grad_noise": noise.total,
        "grad_noise_batch": noise.batch,
        "grad_noise_mcmc": noise.chains,
        "grad_noise_interaction": noise.interaction,
    }
    row: tables.Row = {name: float(value) for name, value in parts.items()}
    row |= {f"{name}_stderr": float(e) for name, e in zip(parts, noise.stderr, strict=True)}
    row["grad_noise_relative"] = float(noise.relative) if np.isfinite(noise.relative) else None
    return row


def _mean(total: Any, steps: Any) -> float | None:
    """The mean, or None if every step of the epoch was skipped."""
    return float(total) / int(steps) if int(steps) else None


def write_epoch(repetition: Repetition, row: tables.Row, aux: Any, exchanged: bool) -> None:
    """Writes one epoch's readings; `aux` is the validation loss's parts, as numpy arrays."""
    tables.append_row(repetition.folder / READINGS, row)
    if isinstance(aux, ThermodynamicAux):
        rows = temperature_rows(int(row["epoch"] or 0), aux, exchanged)
        path = repetition.folder / TEMPERATURES
        tables.append_rows(path, rows, tables.TEMPERATURE_COLUMNS)
    if repetition.events is not None:
        values = {
            events.grouped(name): value
            for name, value in row.items()
            if name not in ("epoch", "step")
        }
        events.write_scalars(repetition.events, int(row["step"] or 0), values)
    writers.deliver(repetition.writers, repetition.folder)


def temperature_rows(epoch: int, aux: ThermodynamicAux, exchanged: bool) -> list[tables.Row]:
    """One row per temperature, by `tables.TEMPERATURE_COLUMNS`."""

    def entry(values: Any, index: int) -> float | None:
        there = 0 <= index < len(values) and np.isfinite(values[index])
        return float(values[index]) if there else None

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
            # Of pairs among t_1 .. t_N.
            "swap_rate": entry(aux.swap_probability, index - 1) if exchanged else None,
            "weight": float(aux.weights[index]),
        }
        for index, temperature in enumerate(aux.temperatures)
    ]


def write_pictures(
    repetition: Repetition,
    epoch: int,
    step: int,
    samples: np.ndarray,
    real: np.ndarray,
    frame: np.ndarray,
) -> None:
    """Writes the grid of samples beside real images, and the strip with one more frame."""
    folder = repetition.folder / "samples"
    columns = max(round(len(samples) ** 0.5), 1)
    picture = pictures.side_by_side(samples, real, columns, f"samples, epoch {epoch}")
    pictures.save_png(folder / f"epoch_{epoch:04d}.png", picture)
    strip = pictures.append_frame(repetition.folder / STRIP, epoch, frame)
    pictures.save_png(folder / "strip.png", pictures.draw_strip(strip))
    if repetition.events is not None:
        events.write_image(repetition.events, step, "samples", picture)
