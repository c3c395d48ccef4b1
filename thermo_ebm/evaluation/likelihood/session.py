"""Estimates log p(x) of each image with one checkpoint, resumably, and bounds on its own images."""

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm import data, likelihood
from thermo_ebm.config.build import image_shape
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.likelihood import tables
from thermo_ebm.evaluation.likelihood.tables import ImageTable, Row
from thermo_ebm.evaluation.run import LoadedCheckpoint, Run
from thermo_ebm.likelihood import LikelihoodSettings
from thermo_ebm.likelihood.bidirectional import bidirectional, simulate
from thermo_ebm.randomness import (
    AGAINST,
    BOUNDS,
    SCHEDULE,
    SIMULATION,
    VALIDATION_IMAGES,
)
from thermo_ebm.types import Array, Batch, Params, PRNGKey

# Compiled once per model, settings and number of images.
_STATIC = ("model", "settings")
_estimate = jax.jit(likelihood.estimate, static_argnames=_STATIC)
_simulate = jax.jit(simulate, static_argnames=_STATIC)
_bidirectional = jax.jit(bidirectional, static_argnames=_STATIC)

Progress = Callable[[int], Any]  # called with the number of images just finished


class SessionSettings(NamedTuple):
    """Settings of all tables in a folder; the fields have the names of the flags."""

    chains: int = 16  # per image, at least 2
    num_temperatures: int = 30  # intervals, at least 2
    steps_per_temperature: int = 10
    batch_size: int = 25  # images at once: their chains share a step size
    seed: int = 0


class Session(NamedTuple):
    """One checkpoint, the settings of its likelihood, and the folder of the tables."""

    run: Run
    params: Params
    settings: SessionSettings
    estimator: LikelihoodSettings
    temperatures: Array  # the adapted schedule, [num_temperatures + 1]
    folder: Path

    def key(self, stream: int) -> PRNGKey:
        """The key of one stream of random numbers."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), stream)


def open_session(
    run: Run,
    checkpoint: LoadedCheckpoint,
    images: np.ndarray,
    settings: SessionSettings,
    folder: Path,
) -> Session:
    """Continues the tables in `folder`, or begins them.

    The temperatures are adapted once, on the first `batch_size` of the images, and recorded.

    Args:
      run: the run.
      checkpoint: one of its checkpoints, from `Run.load`.
      images: validation images, uint8 [num, height, width, channels].
      settings: what the user chose.
      folder: of the tables; `tables.locked` must hold it.

    Raises:
      UserError: the parameters are not finite, or the folder has another checkpoint's rows.
    """
    repetition, step, params = checkpoint
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise UserError(f"step={step}: repetition {repetition} has diverged; choose another step")
    estimator = LikelihoodSettings(
        num_temperatures=settings.num_temperatures,
        chains_per_image=settings.chains,
        steps_per_temperature=settings.steps_per_temperature,
    )
    recorded = {"repetition": repetition, "step": step, **settings._asdict()}
    recorded["parameters"] = zlib.crc32(b"".join(leaf.tobytes() for leaf in leaves))
    temperatures = tables.read_settings(folder, recorded)
    if temperatures is None:
        first = jnp.asarray(data.to_unit(images[: settings.batch_size]))
        key = jax.random.fold_in(jax.random.key(settings.seed), SCHEDULE)
        adapted = likelihood.adapted_schedule(run.model, params, first, key, estimator)
        temperatures = np.asarray(adapted.temperatures, np.float64).tolist()
        tables.write_settings(folder, recorded, temperatures)
    schedule = jnp.asarray(temperatures, jnp.float32)
    return Session(run, params, settings, estimator, schedule, folder)


def validation_rows(session: Session, images: np.ndarray, progress: Progress) -> list[Row]:
    """The rows of validation images, in `likelihood.csv`; missing rows are computed.

    Args:
      session: the checkpoint and the estimator.
      images: uint8 [num, height, width, channels].
      progress: called with numbers of finished images, including those of earlier calls.

    Returns:
      A row for each image.

    Raises:
      UserError: the table has rows of other images, or log p(x) is not finite.
    """
    table = tables.validation_table(session.folder)
    return _estimated_rows(session, table, images, session.key(VALIDATION_IMAGES), progress)


def against_rows(session: Session, images: np.ndarray, name: str, progress: Progress) -> list[Row]:
    """Like `validation_rows`, for other images, called `name`."""
    table = tables.against_table(session.folder, name)
    return _estimated_rows(session, table, images, session.key(AGAINST), progress)


def simulated_rows(session: Session, num: int, progress: Progress) -> list[Row]:
    """Bounds for `num` images simulated from the model; missing rows are computed."""
    model, params, estimator = session.run.model, session.params, session.estimator

    def compute(positions: Array, mask: Array) -> dict[str, np.ndarray]:
        images, latents = _simulate(model, params, positions, session.key(SIMULATION), estimator)
        bounds = _bidirectional(
            model, params, Batch(images, positions, mask), latents, session.temperatures,
            session.key(BOUNDS), estimator,
        )  # fmt: skip
        return jax.device_get(bounds)._asdict()

    table = tables.simulated_table(session.folder)
    return _complete(table, num, session.settings.batch_size, compute, progress)


def _estimated_rows(
    session: Session, table: ImageTable, images: np.ndarray, key: PRNGKey, progress: Progress
) -> list[Row]:
    checksums = np.array([zlib.crc32(image.tobytes()) for image in images], np.float64)
    for image, row in table.read().items():
        if image < len(images) and row["checksum"] != checksums[image]:
            raise UserError(
                f"{table.path}: image {image} differs from that of this run; move the table away"
            )
    dim = math.prod(image_shape(session.run.config))

    def compute(positions: Array, mask: Array) -> dict[str, np.ndarray]:
        numbers = np.asarray(positions)
        x = jnp.asarray(data.to_unit(images[numbers]))
        estimates = _estimate(
            session.run.model, session.params, Batch(x, positions, mask), session.temperatures,
            key, session.estimator,
        )  # fmt: skip
        estimates = jax.device_get(estimates)
        value = estimates.log_marginal_likelihood
        return {
            "checksum": checksums[numbers],
            "log_marginal_likelihood": value,
            "bits_per_dim": likelihood.bits_per_dim(value, dim),
            "stderr": estimates.stderr,
            "annealed": estimates.annealed,
            "effective_sample_size": estimates.effective_sample_size,
            **estimates.scores._asdict(),
        }

    return _complete(table, len(images), session.settings.batch_size, compute, progress)


def _complete(
    table: ImageTable,
    num: int,
    batch_size: int,
    compute: Callable[[Array, Array], dict[str, np.ndarray]],
    progress: Progress,
) -> list[Row]:
    """Computes the missing rows of images 0 .. num - 1 in groups, writing after each group.

    The groups, and therefore all figures, are the same when an interrupted table is continued.

    Args:
      table: the table.
      num: number of images.
      batch_size: images of a group.
      compute: from the numbers of a group's images, [batch_size], the last repeated, and a mask
        that is 0 for repetitions, to the group's columns besides `image`, [batch_size] each.
      progress: called with numbers of finished images.

    Raises:
      UserError: the table is damaged, or a value is not finite.
    """
    rows = table.read()
    missing = [image for image in range(num) if image not in rows]
    size = min(batch_size, num)
    progress(num - len(missing))
    for first in range(0, len(missing), size):
        group = missing[first : first + size]
        padding = size - len(group)
        positions = jnp.asarray([*group, *[group[-1]] * padding], jnp.int32)
        columns = compute(positions, jnp.asarray([1.0] * len(group) + [0.0] * padding))
        for i, image in enumerate(group):
            row = {"image": image} | {name: float(values[i]) for name, values in columns.items()}
            if not all(map(math.isfinite, row.values())):
                raise UserError(
                    f"{table.path}: image {image}: its log p(x) or a score is not a finite "
                    "number; choose another step or more temperatures"
                )
            rows[image] = row
        table.write(rows)
        progress(len(group))
    return [rows[image] for image in range(num)]
