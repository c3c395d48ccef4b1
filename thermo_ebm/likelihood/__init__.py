"""log p(x) of images by annealed SMC, with an error that can be believed or a warning.

    settings.py       what can be chosen
    particles.py      annealed SMC of any path: schedule, estimate, conditional SMC
    proposal.py       what a model's images share: q(z | x), metric, log Z_alpha
    annealed_smc.py   log p(x) of one batch of images, and upper bounds of simulated ones
    effort.py         as many temperatures as each image needs
    verdict.py        whether the numbers can be relied on

The likelihood of an image is the model's (`models/likelihoods.py`).
"""

import math
from typing import Any, NamedTuple

import numpy as np

from thermo_ebm.likelihood import verdict as verdicts
from thermo_ebm.likelihood.annealed_smc import Scores
from thermo_ebm.likelihood.effort import Estimator, collected
from thermo_ebm.likelihood.proposal import PriorConstant, prepare
from thermo_ebm.likelihood.settings import LikelihoodSettings
from thermo_ebm.likelihood.verdict import Verdict
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.types import Array, Params, PRNGKey, check_images, check_key

__all__ = [
    "Estimator",
    "LikelihoodSettings",
    "MarginalLikelihood",
    "Verdict",
    "bits_per_dim",
    "check_levels",
    "collected",
    "log_marginal_likelihood",
    "prepare",
]


class MarginalLikelihood(NamedTuple):
    """Estimates of log p(x) in nats, [num] each, and what they rest on."""

    log_marginal_likelihood: np.ndarray  # log p(x)
    stderr: np.ndarray  # of this image, without that of `prior`, which all images share
    reliable: np.ndarray  # bool
    island_spread: np.ndarray  # between the largest and the smallest estimate of an island
    effective_sample_size: np.ndarray  # of the M weights, the least over temperatures
    acceptance: np.ndarray  # of the moves
    gradients: np.ndarray  # of a chain
    scores: Scores
    prior: PriorConstant  # log Z_alpha
    verdict: Verdict  # on all images and the prior

    @property
    def mean_stderr(self) -> float:
        """Standard error of the mean over these images, with that of log Z_alpha."""
        images = np.sqrt(np.sum(self.stderr**2)) / len(self.stderr)
        return float(np.hypot(images, self.prior.stderr))

    def summary(self) -> str:
        """The mean over these images with its error and the verdict, in one line."""
        mean = self.log_marginal_likelihood.mean()
        return f"log p(x) {mean:.4g} +- {self.mean_stderr:.2g} nats, {self.verdict.sentence()}"


def log_marginal_likelihood(
    model: LatentEBM,
    params: Params,
    images: Array,
    key: PRNGKey,
    settings: LikelihoodSettings = LikelihoodSettings(),  # noqa: B008 (immutable)
) -> MarginalLikelihood:
    """log p(x) of each image by annealed SMC, with as many gradients as its error needs.

    Compiled once for a model, settings and the shape of an image. An image's estimate depends on
    the key and the settings, not on the other images.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape], floating-point numbers in [-1, 1].
      key: consumed.
      settings: the estimator.

    Raises:
      ValueError: numbers of chains that do not fit, a key that is none, no images, or images that
        are not floating-point numbers in [-1, 1], or not of the likelihood's levels.
    """
    check_key(key)
    settings.check()
    x = np.asarray(check_images(images))
    check_levels(x, model.likelihood.levels)
    preparation = prepare(model, params, x.shape[1:], settings)
    estimator = Estimator(preparation, settings, key)
    estimates, num_temperatures = collected(list(estimator.run(x)))
    gradients = estimator.gradients(num_temperatures)
    judged = [
        verdicts.of_images(estimates, gradients, settings),
        verdicts.of_prior(preparation.prior, settings.prior_chains),
    ]
    return MarginalLikelihood(
        estimates.log_marginal_likelihood,
        estimates.stderr,
        np.asarray(verdicts.are_reliable(estimates, settings)),
        estimates.island_spread,
        estimates.effective_sample_size,
        estimates.acceptance,
        gradients,
        estimates.scores,
        preparation.prior,
        verdicts.together(judged),
    )


def check_levels(x: np.ndarray, levels: int) -> None:
    """Refuses values that the likelihood gives no probability.

    Args:
      x: data values in [-1, 1], of any shape.
      levels: of the likelihood; 0: all values have a density.

    Raises:
      ValueError: a value is not one of the levels.
    """
    if levels:
        level = (x.astype(np.float64) + 1) / 2 * (levels - 1)
        off = np.abs(level - np.clip(np.round(level), 0, levels - 1))
        if off.max() > 0.02:
            raise ValueError(
                f"images have the value {x.flat[off.argmax()]:.6g}; the model's likelihood is of "
                f"{levels} levels, evenly spaced from -1 to 1"
            )


def bits_per_dim(log_marginal_likelihood: Any, dim: int, levels: int = 0) -> Any:
    """Bits per data value.

    A density is taken as that of 8-bit images in [-1, 1], whose 256 levels are 1 / 127.5 apart:
    times this width it is a probability (`models/likelihoods.py` says when).

    Args:
      log_marginal_likelihood: log p(x) in nats, a number or an array.
      dim: values of an image.
      levels: `ImageLikelihood.levels`; 0: log p is a log-density, else a log-probability.
    """
    log_width = 0.0 if levels else -math.log(127.5)
    return -(log_marginal_likelihood / dim + log_width) / math.log(2)
