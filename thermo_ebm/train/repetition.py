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
from thermo_ebm.train import checkpoints, hosts
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.state import EpochSums


class Repetition(NamedTuple):
    """An open repetition."""

    number: int
    folder: Path
    checkpoints: Checkpoints
    rollbacks: tuple[Rollback, ...]  # so far, oldest first
    events: Any  # a TensorBoard writer; None on all processes but the first, and when not wanted


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
    flops: int,
    group_size: int,
) -> tables.Row:
    """One epoch's readings, by `tables.READING_COLUMNS`; sums and noise as numpy scalars."""
    train = {name: _mean(getattr(sums, name), sums.steps) for name in EpochSums._fields[:-1]}
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
    }
    if noise is not None:
        row |= {
            "grad_noise": float(noise.total),
            "grad_noise_batch": float(noise.batch),
            "grad_noise_mcmc": float(noise.mcmc),
            "grad_noise_relative": float(noise.relative) if np.isfinite(noise.relative) else None,
        }
    return row


def _mean(total: Any, steps: Any) -> float | None:
    """None where every step of the epoch was skipped."""
    return float(total) / int(steps) if int(steps) else None


def write_epoch(repetition: Repetition, row: tables.Row, aux: Any) -> None:
    """Writes one epoch's readings; `aux` is the validation loss's parts, as numpy arrays."""
    tables.append_row(repetition.folder / READINGS, row)
    if isinstance(aux, ThermodynamicAux):
        rows = temperature_rows(int(row["epoch"] or 0), aux)
        path = repetition.folder / TEMPERATURES
        tables.append_rows(path, rows, tables.TEMPERATURE_COLUMNS)
    if repetition.events is not None:
        values = {
            events.grouped(name): value
            for name, value in row.items()
            if name not in ("epoch", "step")
        }
        events.write_scalars(repetition.events, int(row["step"] or 0), values)


def temperature_rows(epoch: int, aux: ThermodynamicAux) -> list[tables.Row]:
    """One row a temperature, by `tables.TEMPERATURE_COLUMNS`."""
    return [
        {
            "epoch": epoch,
            "index": index,
            "temperature": float(temperature),
            "expected_log_likelihood": float(aux.expected_log_likelihood[index]),
            "kl_forward": float(aux.kl_forward[index]) if index < len(aux.kl_forward) else None,
            "kl_backward": float(aux.kl_backward[index]) if index < len(aux.kl_backward) else None,
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
