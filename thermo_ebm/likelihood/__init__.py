"""log p(x) of images: annealed importance sampling and MBAR, with Metropolis-adjusted moves.

Chains start from the prior p_alpha at t = 0, whose normalising constant is not needed, and are
taken to the posterior along a separate schedule (Neal 2001). With t_0 = 0 < ... < t_N = 1 and
z_(k-1) the state of a chain when its temperature rises from t_(k-1) to t_k,

    log w = sum_k (t_k - t_(k-1)) l(z_(k-1)),        E w = p(x),

so that log mean w is a stochastic lower bound on log p(x), which is tight if the chains follow the
changing density. MBAR (`thermo/ratios.py`) uses the log-likelihoods of the same chains at all
temperatures at once and has a smaller error; its standard error is a jackknife over the chains,
which are independent.

For images simulated from the model, chains can also run in the other direction, from the latent
that made the image: `bidirectional` computes the resulting upper bound.
"""

import math
from typing import Any

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.likelihood.annealing import Annealer, LikelihoodSettings
from thermo_ebm.likelihood.estimators import MarginalLikelihood, summarise
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.kernels import find_kernel
from thermo_ebm.thermo.schedule import Schedule, equalised, make_schedule
from thermo_ebm.types import Array, Batch, Params, PRNGKey, check_batch, check_key, make_batch

__all__ = [
    "LikelihoodSettings",
    "MarginalLikelihood",
    "adapted_schedule",
    "bits_per_dim",
    "estimate",
    "log_marginal_likelihood",
]


def log_marginal_likelihood(
    model: LatentEBM,
    params: Params,
    images: Array,
    key: PRNGKey,
    settings: LikelihoodSettings = LikelihoodSettings(),  # noqa: B008 (immutable)
) -> MarginalLikelihood:
    """log p(x) of each image, with a schedule that is adapted to equal barriers.

    Compiled once for a model, settings and shapes. All images are estimated at once.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape], floating-point numbers in [-1, 1].
      key: consumed.
      settings: the estimator.

    Returns:
      Estimates in nats, among them `log_marginal_likelihood` and `stderr`, [num] each.

    Raises:
      ValueError: fewer than 2 chains per image or 2 temperatures, a kernel that is unknown or not
        adjusted, a key that is none, no images, or images that are not floating-point numbers in
        [-1, 1].
    """
    check_key(key)
    batch = make_batch(images)
    key, pilot_key = jax.random.split(key)
    schedule = adapted_schedule(model, params, batch.images, pilot_key, settings)
    return _estimate(model, params, batch, schedule.temperatures, key, settings)


def bits_per_dim(log_marginal_likelihood: Any, dim: int) -> Any:
    """Bits per data value of images with 256 levels in [-1, 1], which are 1 / 127.5 apart.

    Args:
      log_marginal_likelihood: log p(x) in nats, a number or an array.
      dim: values of an image.
    """
    return -log_marginal_likelihood / (dim * math.log(2)) + math.log2(127.5)


def adapted_schedule(
    model: LatentEBM, params: Params, images: Array, key: PRNGKey, settings: LikelihoodSettings
) -> Schedule:
    """The power schedule after `settings.pilots` adaptations to equal rejection rates.

    Arguments and errors are those of `log_marginal_likelihood`.
    """
    schedule = make_schedule("power", settings.num_temperatures, settings.power)
    few = settings._replace(chains_per_image=max(settings.chains_per_image // 4, 2))
    batch = make_batch(images)
    for number in range(settings.pilots):
        pilot_key = jax.random.fold_in(key, number)
        pilot = _estimate(model, params, batch, schedule.temperatures, pilot_key, few)
        schedule = equalised(schedule, jax.device_get(pilot.rejection))
    return Schedule(*map(jnp.asarray, schedule))


def estimate(
    model: LatentEBM,
    params: Params,
    batch: Batch,
    temperatures: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
    axis_name: str | None = None,
) -> MarginalLikelihood:
    """log p(x) of each image along a given schedule; can be jitted.

    Args:
      model: the model.
      params: alpha and beta.
      batch: images with their positions, from which their random numbers come, and the mask.
      temperatures: t_0 = 0 .. t_N = 1, [num_temperatures + 1].
      key: consumed.
      settings: the estimator.
      axis_name: the pmapped axis the images are spread over, if any.

    Raises:
      ValueError: fewer than 2 chains per image or 2 temperatures, or a kernel that is unknown or
        not adjusted.
    """
    check_batch(batch)
    chex.assert_rank(temperatures, 1)
    if settings.chains_per_image < 2 or temperatures.shape[0] < 3:
        raise ValueError("a likelihood needs at least 2 chains_per_image and 2 num_temperatures.")
    if not find_kernel(settings.kernel).adjusted:
        raise ValueError(f"a likelihood needs an adjusted kernel, not {settings.kernel!r}.")
    annealer = Annealer(model, params, settings, batch.position, batch.mask, key, axis_name)
    latents, log_step_size = annealer.prior_latents()
    annealed = annealer.anneal(batch.images, latents, temperatures, log_step_size)
    return summarise(annealer, batch.images, temperatures, annealed)


# Compiled once for a model, settings and shapes, not once per call.
_estimate = jax.jit(estimate, static_argnames=("model", "settings", "axis_name"))
