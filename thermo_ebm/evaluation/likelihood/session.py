"""Estimates log p(x) of each image with one checkpoint, resumably, and bounds on its own images."""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
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
from thermo_ebm.likelihood import Estimator, LikelihoodSettings, prepare
from thermo_ebm.likelihood.annealed_smc import Estimates, Scores, simulate
from thermo_ebm.likelihood.proposal import PriorConstant
from thermo_ebm.likelihood.verdict import Verdict, are_reliable, of_images
from thermo_ebm.randomness import SIMULATION, VALIDATION_IMAGES
from thermo_ebm.run import layout
from thermo_ebm.types import Params, PRNGKey

Columns = Mapping[str, np.ndarray]  # [num] each
Progress = Callable[[int], Any]  # called with the number of images just finished


class SessionSettings(NamedTuple):
    """Settings of all tables in a folder; the fields have the names of the flags."""

    error: float = 0.1  # nats, the standard error asked for of each image
    max_gradients: int = 20_000  # of a chain
    max_seconds: float = 0.0  # of a table, after which no estimate is repeated; 0: never
    chains: int = 16  # per image, a multiple of 4
    batch_size: int = 8  # images at once
    seed: int = 0


class Session(NamedTuple):
    """One checkpoint, the settings of its likelihood, and the folder of the tables."""

    run: Run
    params: Params
    settings: SessionSettings
    estimator: Estimator  # with the key of the validation images
    folder: Path

    def key(self, stream: int) -> PRNGKey:
        """The key of one stream of random numbers."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), stream)


def open_session(
    run: Run, checkpoint: LoadedCheckpoint, settings: SessionSettings, folder: Path
) -> Session:
    """Continues the tables in `folder`, or begins them.

    Args:
      run: the run.
      checkpoint: one of its checkpoints, from `Run.load`.
      settings: what the user chose.
      folder: of the tables; `tables.locked` must hold it.

    Raises:
      UserError: the parameters are not finite, or the folder has another checkpoint's rows.
    """
    repetition, step, params, kind = checkpoint
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if not all(np.isfinite(leaf).all() for leaf in leaves):
        raise UserError(f"step={step}: repetition {repetition} has diverged; choose another step")
    recorded = {"repetition": repetition, "step": step, **settings._asdict()}
    recorded["parameters"] = zlib.crc32(b"".join(leaf.tobytes() for leaf in leaves))
    recorded |= {} if kind == layout.LAST else {"parameters_kind": kind}
    tables.check_settings(folder, recorded)
    estimator_settings = LikelihoodSettings(
        error=settings.error,
        max_gradients=settings.max_gradients,
        max_seconds=settings.max_seconds,
        chains_per_image=settings.chains,
        pilot_chains=min(settings.chains, 16),
        batch_size=settings.batch_size,
    )
    preparation = prepare(run.model, params, image_shape(run.config), estimator_settings)
    key = jax.random.fold_in(jax.random.key(settings.seed), VALIDATION_IMAGES)
    estimator = Estimator(preparation, estimator_settings, key)
    return Session(run, params, settings, estimator, folder)


def prior_constant(session: Session) -> PriorConstant:
    """log Z_alpha of the checkpoint."""
    return jax.device_get(session.estimator.preparation.prior)


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
    return _estimated_rows(session, table, images, progress)


def verdict_of_rows(session: Session, rows: list[Row]) -> Verdict:
    """Whether the estimates of a table of images can be relied on."""
    names = (
        "log_marginal_likelihood",
        "stderr",
        "island_spread",
        "effective_sample_size",
        "gradients",
        "prior_sampling",
    )
    value, stderr, spread, size, gradients, sampling = (tables.column(rows, n) for n in names)
    estimates = Estimates(value, stderr, spread, size, gradients, sampling, Scores(*3 * [value]))
    return of_images(estimates, gradients, session.estimator.settings)


def against_rows(session: Session, images: np.ndarray, name: str, progress: Progress) -> list[Row]:
    """Like `validation_rows`, for other images, called `name`."""
    table = tables.against_table(session.folder, name)
    return _estimated_rows(session, table, images, progress)


def simulated_rows(session: Session, num: int, progress: Progress) -> list[Row]:
    """Bounds for `num` images simulated from the model; missing rows are computed."""
    estimator, table = session.estimator, tables.simulated_table(session.folder)
    latents = np.asarray(estimator.preparation.latents[-num:])[::-1]
    numbers = jnp.arange(num)
    images = np.asarray(
        simulate(session.run.model, session.params, latents, numbers, session.key(SIMULATION))
    )

    def compute(missing: np.ndarray) -> Iterator[Columns]:
        bounds = estimator.bounds(images[missing], latents[missing])
        yield {
            "image": missing,
            "log_marginal_likelihood": bounds.lower.log_marginal_likelihood,
            "stderr": bounds.lower.stderr,
            "upper": bounds.upper,
            "upper_stderr": bounds.upper_stderr,
        }

    return _complete(table, num, compute, progress)


def _estimated_rows(
    session: Session, table: ImageTable, images: np.ndarray, progress: Progress
) -> list[Row]:
    checksums = np.array([zlib.crc32(image.tobytes()) for image in images], np.float64)
    for image, row in table.read().items():
        if image < len(images) and row["checksum"] != checksums[image]:
            raise UserError(
                f"{table.path}: image {image} differs from that of this run; move the table away"
            )
    dim, levels = math.prod(image_shape(session.run.config)), session.run.model.likelihood.levels
    estimator = session.estimator

    def compute(missing: np.ndarray) -> Iterator[Columns]:
        for part in estimator.run(data.to_unit(images[missing])):
            estimates, rows = part.estimates, missing[part.rows]
            value = estimates.log_marginal_likelihood
            yield {
                "image": rows,
                "checksum": checksums[rows],
                "log_marginal_likelihood": value,
                "bits_per_dim": likelihood.bits_per_dim(value, dim, levels),
                "stderr": estimates.stderr,
                "reliable": np.asarray(are_reliable(estimates, estimator.settings)),
                "island_spread": estimates.island_spread,
                "effective_sample_size": estimates.effective_sample_size,
                "prior_sampling": estimates.prior_sampling,
                "gradients": estimator.gradients(part.num_temperatures),
                **estimates.scores._asdict(),
            }

    return _complete(table, len(images), compute, progress)


def _complete(
    table: ImageTable,
    num: int,
    compute: Callable[[np.ndarray], Iterator[Columns]],
    progress: Progress,
) -> list[Row]:
    """Computes the missing rows of images 0 .. num - 1, writing whenever some are final.

    No image's figures depend on those beside it, so that they are the same when an interrupted
    table is continued.

    Args:
      table: the table.
      num: number of images.
      compute: from the numbers of missing images to parts of the table.
      progress: called with numbers of finished images.

    Raises:
      UserError: the table is damaged, or a value is not finite.
    """
    rows = table.read()
    missing = np.array([image for image in range(num) if image not in rows], int)
    progress(num - len(missing))
    for columns in compute(missing) if len(missing) else ():
        for i, image in enumerate(columns["image"].tolist()):
            row = {name: float(values[i]) for name, values in columns.items()}
            if not all(map(math.isfinite, row.values())):
                raise UserError(
                    f"{table.path}: image {image}: its log p(x) or a score is not a finite "
                    "number; choose another step"
                )
            rows[image] = row
        table.write(rows)
        progress(len(columns["image"]))
    return [rows[image] for image in range(num)]
