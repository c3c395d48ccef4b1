"""One repetition's folder: opening it, resuming it, writing its epochs, and its rollbacks."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging

from thermo_ebm import files
from thermo_ebm.gradients import GradientNoise
from thermo_ebm.losses import ThermodynamicAux
from thermo_ebm.train import checkpoints, events, pictures, readings
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.rundir import repetition_dir
from thermo_ebm.train.state import EpochSums

READINGS, TEMPERATURES, ROLLBACKS = "readings.csv", "temperatures.csv", "rollbacks.json"
STRIP = "samples/strip.npz"


class Repetition(NamedTuple):
    """An open repetition."""

    number: int
    folder: Path
    checkpoints: Checkpoints
    events: Any  # a TensorBoard writer; None on all processes but the first, and when not wanted


def is_done(workdir: Path, number: int, total_steps: int) -> bool:
    """Whether a repetition has a checkpoint of its last step."""
    folder = repetition_dir(workdir, number) / "checkpoints"
    return any(
        path.name.isdigit() and int(path.name) >= total_steps
        for path in (folder.iterdir() if folder.is_dir() else ())
    )


def open_repetition(workdir: Path, number: int, keep: int, keep_period: int) -> Repetition:
    """Opens or makes a repetition's folder; its events are opened by `resume`."""
    folder = repetition_dir(workdir, number)
    folder.mkdir(parents=True, exist_ok=True)
    opened = checkpoints.open_checkpoints(folder / "checkpoints", keep, keep_period)
    return Repetition(number, folder, opened, None)


def rewind(repetition: Repetition, step: int, epochs_done: int, tensorboard: bool) -> Repetition:
    """Drops what was written after a checkpoint, whose step it is; opens a new event file."""
    if jax.process_index() > 0:
        return repetition
    folder = repetition.folder
    readings.truncate(folder / READINGS, epochs_done)
    readings.truncate(folder / TEMPERATURES, epochs_done, readings.TEMPERATURE_COLUMNS)
    pictures.truncate_strip(folder / STRIP, epochs_done)
    if repetition.events is not None:
        events.close_events(repetition.events)
    opened = events.open_events(folder / "tensorboard", step) if tensorboard else None
    return repetition._replace(events=opened)


def close_repetition(repetition: Repetition) -> None:
    """Waits for its checkpoints and closes its files."""
    checkpoints.close(repetition.checkpoints)
    if repetition.events is not None:
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
) -> readings.Row:
    """One epoch's readings, by `readings.READING_COLUMNS`; sums and noise as numpy scalars."""
    count = max(int(sums.steps), 1)
    train = {name: float(getattr(sums, name)) / count for name in EpochSums._fields[:-1]}
    row: readings.Row = {
        "epoch": epoch,
        "step": step,
        "train_loss": train["loss"],
        "train_loss_per_dim": train["loss"] / dim,
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
    }
    if noise is not None:
        row |= {
            "grad_noise": float(noise.total),
            "grad_noise_batch": float(noise.batch),
            "grad_noise_mcmc": float(noise.mcmc),
            "grad_noise_relative": float(noise.relative),
        }
    return row


def write_epoch(repetition: Repetition, row: readings.Row, aux: Any) -> None:
    """Writes one epoch's readings; `aux` is the validation loss's parts, as numpy arrays."""
    readings.append_row(repetition.folder / READINGS, row)
    if isinstance(aux, ThermodynamicAux):
        rows = temperature_rows(int(row["epoch"] or 0), aux)
        path = repetition.folder / TEMPERATURES
        readings.append_rows(path, rows, readings.TEMPERATURE_COLUMNS)
    if repetition.events is not None:
        values = {name: value for name, value in row.items() if name not in ("epoch", "step")}
        events.write_scalars(repetition.events, int(row["step"] or 0), values)


def temperature_rows(epoch: int, aux: ThermodynamicAux) -> list[readings.Row]:
    """One row a temperature, by `readings.TEMPERATURE_COLUMNS`."""
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


def read_rollbacks(repetition: Repetition) -> list[dict[str, int]]:
    """The rollbacks of a repetition so far, oldest first: from_step, to_step, branch."""
    try:
        return files.read_json(repetition.folder / ROLLBACKS)
    except FileNotFoundError:
        return []


def record_rollback(repetition: Repetition, from_step: int, to_step: int) -> int:
    """Records one more rollback, before it happens; returns its branch of the key, 1, 2, ..."""
    records = read_rollbacks(repetition)
    branch = len(records) + 1
    records.append({"from_step": from_step, "to_step": to_step, "branch": branch})
    if jax.process_index() == 0:
        files.write_json(repetition.folder / ROLLBACKS, records)
    logging.warning(
        "repetition %d diverged at step %d: back to step %d with branch %d of its key",
        *(repetition.number, from_step, to_step, branch),
    )
    return branch
