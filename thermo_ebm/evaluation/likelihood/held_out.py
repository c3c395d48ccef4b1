"""Held-out log p(x) of a run's checkpoints, by which the best can be kept.

The estimator is that of training's readings, on the same images, but under one key for all
checkpoints.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from thermo_ebm import data
from thermo_ebm.evaluation import records
from thermo_ebm.evaluation.evaluate import Checkpoint, extent_of
from thermo_ebm.evaluation.run import Run, UnusableCheckpoint
from thermo_ebm.likelihood import MarginalLikelihood, log_marginal_likelihood, verdict
from thermo_ebm.randomness import LIKELIHOOD
from thermo_ebm.run import layout, tables
from thermo_ebm.train.validation import HELD_OUT_IMAGES, HELD_OUT_SETTINGS

METRIC = "log_marginal_likelihood"
LABEL = "held_out"  # the prefix of the columns in `eval.csv`


class HeldOut(NamedTuple):
    """The evaluations of this file; of these there is one kind."""

    def extent(self, config: ConfigDict) -> records.Extent:
        """Columns and sizes of the evaluations of a run."""
        return records.Extent(LABEL, min(HELD_OUT_IMAGES, config.data.num_val), 1)

    def required_columns(self) -> list[str]:
        """None: an evaluation has all columns."""
        return []


def evaluate(run: Run, checkpoint: Checkpoint, images: np.ndarray) -> MarginalLikelihood | None:
    """Estimates log p(x) for one checkpoint and writes its row of `eval.csv`.

    Args:
      run: the run.
      checkpoint: of the run.
      images: its first validation images, uint8 [num, height, width, channels].

    Returns:
      The estimates; None, with a warning, if the checkpoint was removed in the meantime or is
      damaged.

    Raises:
      UserError: the checkpoint has another structure, or the row cannot be written.
    """
    repetition, step = checkpoint
    folder = layout.repetition_dir(run.workdir, repetition)
    try:
        params = run.read_params(layout.checkpoints_dir(run.workdir, repetition) / str(step))
    except (FileNotFoundError, UnusableCheckpoint) as error:
        logging.warning("repetition %d, step %d: %s", repetition, step, error)
        return None
    extent = extent_of(run, HeldOut())
    label = extent.network
    key = jax.random.fold_in(run.key(repetition), LIKELIHOOD)
    x = jnp.asarray(data.to_unit(images[: extent.num_images]))
    result = log_marginal_likelihood(run.model, params, x, key, HELD_OUT_SETTINGS)
    of_prior = verdict.of_prior(result.prior, HELD_OUT_SETTINGS.prior_chains)
    row: tables.Row = {"epoch": step // run.steps_per_epoch, "step": step}
    row |= {
        f"{label}_{METRIC}": float(result.log_marginal_likelihood.mean()),
        f"{label}_{METRIC}_stderr": result.mean_stderr,
        f"{label}_reliable": float(result.reliable.mean()) if of_prior.reliable else 0.0,
    }
    row |= records.extent(*extent)
    records.write(folder, label, row, (), "tensorboard" in run.config.logging.writers)
    return result
