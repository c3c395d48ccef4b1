"""A checkpoint's held-out log-likelihood for each image, resumable, and that of other images."""

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
from thermo_ebm.evaluation import likelihood_files as tables
from thermo_ebm.evaluation.trained import TrainedRun
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


class Settings(NamedTuple):
    """Settings; the fields have the names of the flags."""

    chains: int = 16
    num_temperatures: int = 30
    steps_per_temperature: int = 10
    batch_size: int = 25  # images at once: their chains share a step size
    seed: int = 0


class Session(NamedTuple):
    """One checkpoint, the settings of its likelihood, and the folder of the tables."""

    run: TrainedRun
    params: Params
    settings: Settings
    estimator: LikelihoodSettings
    temperatures: Array  # the adapted schedule, [num_temperatures + 1]
    folder: Path

    def key(self, stream: int) -> PRNGKey:
        """The key of one stream of random numbers."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), stream)


def check(settings: Settings) -> None:
    """Refuses settings with which no likelihood can be estimated.

    Raises:
      UserError: naming the field and what it must be.
    """
    for name, least in (
        ("chains", 2),
        ("num_temperatures", 2),
        ("steps_per_temperature", 1),
        ("batch_size", 1),
    ):
        if (value := getattr(settings, name)) < least:
            raise UserError(f"{name}={value}: must be at least {least}")


def open_session(
    run: TrainedRun,
    repetition: int,
    step: int,
    params: Params,
    images: np.ndarray,
    settings: Settings,
    folder: Path,
) -> Session:
    """Continues the tables in `folder`, or begins them.

    The temperatures are adapted once, on the first `batch_size` of the images, and recorded.

    Args:
      run: the run.
      repetition: which repetition, for the record.
      step: of the checkpoint.
      params: of the checkpoint.
      images: validation images, uint8 [num, height, width, channels].
      settings: what the user chose.
      folder: of the tables; `likelihood_files.hold` must hold it.

    Raises:
      UserError: the parameters are not finite, or the folder has another checkpoint's rows.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise UserError(f"step={step}: repetition {repetition} has diverged; choose another step")
    estimator = LikelihoodSettings(
        num_temperatures=settings.num_temperatures,
        chains_per_image=settings.chains,
        steps_per_temperature=settings.steps_per_temperature,
    )
    same = {"repetition": repetition, "step": step, **settings._asdict()}
    same["parameters"] = zlib.crc32(b"".join(leaf.tobytes() for leaf in leaves))
    temperatures = tables.read_settings(folder, same)
    if temperatures is None:
        first = jnp.asarray(data.to_unit(images[: settings.batch_size]))
        key = jax.random.fold_in(jax.random.key(settings.seed), SCHEDULE)
        adapted = likelihood.adapted_schedule(run.model, params, first, key, estimator)
        temperatures = np.asarray(adapted.temperatures, np.float64).tolist()
        tables.write_settings(folder, same, temperatures)
    schedule = jnp.asarray(temperatures, jnp.float32)
    return Session(run, params, settings, estimator, schedule, folder)


def validation_table(session: Session, images: np.ndarray, progress: Progress) -> list[tables.Row]:
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
    return _table(session, images, session.folder / tables.TABLE, VALIDATION_IMAGES, progress)


def against_path(session: Session, name: str) -> Path:
    """The table of other images, called `name`."""
    return session.folder / tables.FOLDER / f"against_{name}.csv"


def against_table(
    session: Session, images: np.ndarray, name: str, progress: Progress
) -> list[tables.Row]:
    """Like `validation_table`, for other images, called `name`."""
    return _table(session, images, against_path(session, name), AGAINST, progress)


def simulated_table(session: Session, num: int, progress: Progress) -> list[tables.Row]:
    """Bounds for `num` images simulated from the model; missing rows are computed."""
    model, estimator, path = session.run.model, session.estimator, _simulated_path(session)
    size = min(session.settings.batch_size, num)

    def compute(group: list[int]) -> list[tables.Row]:
        positions, mask = _padded(group, size)
        images, latents = _simulate(
            model, session.params, positions, session.key(SIMULATION), estimator
        )
        found = _bidirectional(
            model, session.params, Batch(images, positions, mask), latents, session.temperatures,
            session.key(BOUNDS), estimator,
        )  # fmt: skip
        columns = {name: np.asarray(values) for name, values in found._asdict().items()}
        columns["log_likelihood"] = columns.pop("log_marginal_likelihood")
        return [
            {"image": image, **{name: float(values[i]) for name, values in columns.items()}}
            for i, image in enumerate(group)
        ]

    rows = tables.read_rows(path, tables.SIMULATED_COLUMNS)
    return _fill(rows, num, size, compute, path, tables.SIMULATED_COLUMNS, progress)


def _simulated_path(session: Session) -> Path:
    return session.folder / tables.FOLDER / "simulated.csv"


def _table(
    session: Session, images: np.ndarray, path: Path, stream: int, progress: Progress
) -> list[tables.Row]:
    size = min(session.settings.batch_size, len(images))
    checksums = [zlib.crc32(image.tobytes()) for image in images]

    def compute(group: list[int]) -> list[tables.Row]:
        positions, mask = _padded(group, size)
        unit = data.to_unit(images[np.asarray(positions)])
        found = _estimate(
            session.run.model, session.params, Batch(unit, positions, mask),
            session.temperatures, session.key(stream), session.estimator,
        )  # fmt: skip
        values = _columns(jax.device_get(found), math.prod(image_shape(session.run.config)))
        return [
            {"image": image, "checksum": checksums[image]}
            | {name: float(column[i]) for name, column in values.items()}
            for i, image in enumerate(group)
        ]

    rows = tables.read_rows(path, tables.IMAGE_COLUMNS)
    for image, row in rows.items():
        if image < len(checksums) and row["checksum"] != checksums[image]:
            raise UserError(
                f"{path}: image {image} differs from that of this run; move the table away"
            )
    return _fill(rows, len(images), size, compute, path, tables.IMAGE_COLUMNS, progress)


def _columns(found: likelihood.MarginalLikelihood, dim: int) -> dict[str, np.ndarray]:
    return {
        "log_likelihood": found.log_marginal_likelihood,
        # Of 256 levels in [-1, 1], each 1 / 127.5 wide.
        "bits_per_dim": -found.log_marginal_likelihood / (dim * math.log(2)) + math.log2(127.5),
        "stderr": found.stderr,
        "annealed": found.annealed,
        "effective_sample_size": found.effective_sample_size,
        **found.scores._asdict(),
    }


def _padded(group: list[int], size: int) -> tuple[Array, Array]:
    """Positions of a group of images, padded to `size` by repeating the last, and the mask."""
    missing = size - len(group)
    positions = jnp.asarray([*group, *[group[-1]] * missing], jnp.int32)
    return positions, jnp.asarray([1.0] * len(group) + [0.0] * missing)


def _fill(
    rows: dict[int, tables.Row],
    num: int,
    size: int,
    compute: Callable[[list[int]], list[tables.Row]],
    path: Path,
    columns: tuple[str, ...],
    progress: Progress,
) -> list[tables.Row]:
    """Computes the missing rows of 0 .. num - 1 in groups of `size`, writing after each group.

    The groups, and therefore all figures, are the same when an interrupted table is continued.
    """
    missing = [image for image in range(num) if image not in rows]
    progress(num - len(missing))
    for first in range(0, len(missing), size):
        group = missing[first : first + size]
        new = compute(group)
        for row in new:
            if not all(math.isfinite(value) for value in row.values()):
                raise UserError(
                    f"{path}: image {row['image']:.0f}: its log-likelihood or a score is not a "
                    "finite number; choose another step or more temperatures"
                )
        rows |= {int(row["image"]): row for row in new}
        tables.write_rows(path, rows, columns)
        progress(len(group))
    return [rows[image] for image in range(num)]
