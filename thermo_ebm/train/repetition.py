"""One repetition's folder: opening it, and writing its epochs."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import files, readings
from thermo_ebm.losses import LossTerms
from thermo_ebm.run import events, pictures, tables
from thermo_ebm.run.layout import (
    READINGS,
    STRIP,
    TEMPERATURES,
    checkpoints_dir,
    repetition_dir,
)
from thermo_ebm.run.records import Rollback, read_rollbacks
from thermo_ebm.train import checkpoints, hosts, writers
from thermo_ebm.train.checkpoints import Checkpoints
from thermo_ebm.train.writers import OpenWriter


class Repetition(NamedTuple):
    """An open repetition."""

    number: int
    folder: Path
    checkpoints: Checkpoints
    rollbacks: tuple[Rollback, ...]  # rollbacks so far, oldest first
    events: Any  # a TensorBoard writer; None on all processes but the first, and when not wanted
    writers: tuple[OpenWriter, ...] = ()  # further ones, likewise


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
        rollbacks = read_rollbacks(folder)
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


def write_epoch(
    repetition: Repetition, config: ConfigDict, row: tables.Row, aux: LossTerms
) -> None:
    """Writes one epoch's readings.

    Args:
      repetition: whose epoch has ended.
      config: of the run; readings that do not apply to it stay empty.
      row: readings by the names of `readings.READINGS`.
      aux: the terms of the validation loss, as numpy arrays.
    """
    row = readings.applicable(readings.READINGS, row, config)
    tables.append_row(repetition.folder / READINGS, row)
    if config.loss.name != "vanilla":
        rows = [
            readings.applicable(readings.TEMPERATURE_READINGS, row, config)
            for row in temperature_rows(int(row["epoch"] or 0), aux)
        ]
        path = repetition.folder / TEMPERATURES
        tables.append_rows(path, rows, readings.TEMPERATURE_READINGS)
    if repetition.events is not None:
        values = {
            readings.tag(name): value
            for name, value in row.items()
            if name not in ("epoch", "step")
        }
        events.write_scalars(repetition.events, int(row["step"] or 0), values)
    writers.deliver(repetition.writers, repetition.folder)


def temperature_rows(epoch: int, aux: LossTerms) -> list[tables.Row]:
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
