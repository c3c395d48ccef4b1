"""Held-out log-likelihood: annealed importance sampling and MBAR, with Metropolis-adjusted moves.

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

from functools import partial

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.likelihood.annealing import LikelihoodSettings, anneal, prior_latents
from thermo_ebm.likelihood.estimators import Likelihood, rejection_rates, summarise
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.thermo.schedule import Schedule, equalised, make_schedule
from thermo_ebm.types import Array, Params, PRNGKey

__all__ = ["Likelihood", "LikelihoodSettings", "adapted_schedule", "estimate", "log_likelihood"]


def log_likelihood(
    model: LatentEBM,
    params: Params,
    images: Array,
    key: PRNGKey,
    settings: LikelihoodSettings = LikelihoodSettings(),  # noqa: B008 (immutable)
) -> Likelihood:
    """log p(x) of each image, with a schedule that is adapted to equal barriers.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape], in [-1, 1].
      key: consumed.
      settings: the estimator.

    Raises:
      ValueError: fewer than 2 chains per image or 2 temperatures.
    """
    chex.assert_rank(images, {2, 4})
    key, pilot_key = jax.random.split(key)
    schedule = adapted_schedule(model, params, images, pilot_key, settings)
    positions = jnp.arange(images.shape[0])
    run = jax.jit(partial(estimate, model, settings=settings))
    return run(params, images, positions, schedule.temperatures, key)


def adapted_schedule(
    model: LatentEBM, params: Params, images: Array, key: PRNGKey, settings: LikelihoodSettings
) -> Schedule:
    """The power schedule after `settings.pilots` adaptations to equal rejection rates."""
    schedule = make_schedule("power", settings.num_temperatures, settings.power)
    few = settings._replace(chains_per_image=max(settings.chains_per_image // 4, 2))
    positions, mask = jnp.arange(images.shape[0]), jnp.ones(images.shape[0])

    @jax.jit
    def pilot(params: Params, images: Array, temperatures: Array, key: PRNGKey) -> Array:
        z, log_step = prior_latents(model, params, positions, key, few, mask)
        seen = anneal(model, params, images, positions, z, temperatures, key, few, log_step, mask)
        return rejection_rates(temperatures, seen.log_likelihood, mask)

    for number in range(settings.pilots):
        found = pilot(params, images, schedule.temperatures, jax.random.fold_in(key, number))
        schedule = equalised(schedule, jax.device_get(found))
    return Schedule(*map(jnp.asarray, schedule))


def estimate(
    model: LatentEBM,
    params: Params,
    images: Array,
    positions: Array,
    temperatures: Array,
    key: PRNGKey,
    settings: LikelihoodSettings,
    mask: Array | None = None,
    axis_name: str | None = None,
) -> Likelihood:
    """log p(x) of each image along a given schedule; can be jitted.

    Args:
      model: the model.
      params: alpha and beta.
      images: [num, *image_shape].
      positions: [num], from which each image's random numbers come.
      temperatures: t_0 = 0 .. t_N = 1, [num_temperatures + 1].
      key: consumed.
      settings: the estimator.
      mask: [num], 0 for padding images; by default all images count.
      axis_name: the pmapped axis the images are spread over, if any.

    Raises:
      ValueError: fewer than 2 chains per image or 2 temperatures.
    """
    if settings.chains_per_image < 2 or temperatures.shape[0] < 3:
        raise ValueError("a likelihood needs at least 2 chains_per_image and 2 num_temperatures.")
    mask = jnp.ones(images.shape[0]) if mask is None else mask
    z, log_step = prior_latents(model, params, positions, key, settings, mask, axis_name)
    seen = anneal(
        model, params, images, positions, z, temperatures, key, settings, log_step, mask, axis_name
    )
    return summarise(model, images, temperatures, seen, mask, axis_name)
