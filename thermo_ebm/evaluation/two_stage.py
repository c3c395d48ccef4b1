"""A prior for a trained run whose decoder stays as it is: latents of its images, then the fit.

The result is the run's parameters with another prior, in a file that `te.load_run` opens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from thermo_ebm import data, likelihood
from thermo_ebm.config import checks
from thermo_ebm.config.build import image_shape
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import exported
from thermo_ebm.evaluation.run import LoadedCheckpoint, Run
from thermo_ebm.likelihood.proposal import Preparation
from thermo_ebm.likelihood.settings import LikelihoodSettings
from thermo_ebm.models import own
from thermo_ebm.run import configuration
from thermo_ebm.sampling.arrival import posterior_latents
from thermo_ebm.train import prior_fit
from thermo_ebm.train.prior_fit import FittedPrior, PriorFitSettings
from thermo_ebm.types import Array, PRNGKey

# For q(z | x), where the chains begin; log Z_alpha of the old prior is not used.
_PROPOSAL = LikelihoodSettings(num_pairs=2048, num_probes=512, prior_chains=512)


class PriorChoice(NamedTuple):
    """What of the new prior is chosen; None: as the run's configuration has it."""

    prior: str = "mlp"
    features: int | None = None
    num_updates: int = 2000
    learning_rate: float = 5e-3
    l2: float = 0.0


def fit_settings(run: Run, choice: PriorChoice) -> PriorFitSettings:
    """The settings of a fit whose prior a configuration like the run's can describe.

    The activation is `gelu`: chains of a smooth tilt take longer steps.
    """
    model = run.config.model
    return PriorFitSettings(
        prior=choice.prior,
        features=choice.features or model.prior.features,
        leak=model.prior.leak,
        activation="gelu",
        sigma=model.prior_sigma,
        num_updates=choice.num_updates,
        learning_rate=choice.learning_rate,
        l2=choice.l2,
    )


def new_config(run: Run, choice: PriorChoice) -> ConfigDict:
    """The run's configuration with the new prior.

    Raises:
      UserError: the prior does not fit the rest of the configuration.
    """
    settings = fit_settings(run, choice)
    config = run.config.copy_and_resolve_references()
    config.model.prior.name = settings.prior
    config.model.prior.features = settings.features
    config.model.prior.activation = settings.activation
    checks.check(config)
    if own.networks(config).prior is not None:
        raise UserError(
            f"model.factory={config.model.factory}: has a prior, which would take the place of the "
            "fitted one; fit_prior needs a run whose factory leaves the prior to the configuration"
        )
    return config


def draw_latents(
    run: Run,
    checkpoint: LoadedCheckpoint,
    images: np.ndarray,
    key: PRNGKey,
    draws: int = 1,
    batch_size: int = 128,
    progress: Callable[[int], Any] = lambda num: None,
) -> np.ndarray:
    """Draws from p(z | x) of each image, by chains from the linear estimate until arrival.

    Args:
      run: the run.
      checkpoint: of it.
      images: uint8 [num, height, width, channels].
      key: consumed.
      draws: of each image, each by a chain of its own.
      batch_size: chains at once, which share a metric and a step size.
      progress: called with numbers of images just done.

    Returns:
      [num, draws, D].

    Raises:
      UserError: the latents are not finite.
    """
    params = checkpoint.params
    preparation = likelihood.prepare(run.model, params, image_shape(run.config), _PROPOSAL)
    size, latents = min(max(batch_size // draws, 1), len(images)), []
    for number, first in enumerate(range(0, len(images), size)):
        rows = np.minimum(np.arange(first, first + size), len(images) - 1)
        x = jnp.repeat(jnp.asarray(data.to_unit(images[rows])), draws, axis=0)
        batch = np.asarray(_draw(preparation, x, jax.random.fold_in(key, number)))
        latents.append(batch.reshape(size, draws, -1)[: len(images) - first])
        progress(len(latents[-1]))
    if not all(np.isfinite(batch).all() for batch in latents):
        raise UserError(f"{checkpoint.title()}: latents of its images are not finite")
    return np.concatenate(latents)


@jax.jit
def _draw(preparation: Preparation, x: Array, key: PRNGKey) -> Array:
    model, params = preparation.model, preparation.params
    return posterior_latents(model, params, x, key, preparation.reference)


def write(
    path: Path, run: Run, checkpoint: LoadedCheckpoint, fitted: FittedPrior, choice: PriorChoice
) -> None:
    """Writes the checkpoint with the fitted prior in place of its own.

    Args:
      path: the file, replaced if it is there.
      run: the run.
      checkpoint: whose decoder is kept.
      fitted: from `prior_fit.fit_prior` with `fit_settings(run, choice)`.
      choice: what was chosen.

    Raises:
      UserError: the file cannot be written.
    """
    params = {**checkpoint.params, "prior": fitted.alpha}
    fields = configuration.as_json(new_config(run, choice))
    exported.write(path, fields, *checkpoint._replace(params=params))


def fit(
    latents: np.ndarray,
    key: PRNGKey,
    settings: PriorFitSettings,
    progress: Callable[[int], Any] = lambda num: None,
) -> FittedPrior:
    """`prior_fit.fit_prior`, whose errors become those of a program."""
    try:
        return prior_fit.fit_prior(latents, key, settings, progress)
    except ValueError as error:
        raise UserError(str(error)) from error
