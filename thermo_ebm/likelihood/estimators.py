"""log p(x), its standard error and scores from the record of annealed chains."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import masked_mean
from thermo_ebm.likelihood.annealing import Annealed, Annealer
from thermo_ebm.models.latent_ebm import LatentEBM, log_prior
from thermo_ebm.sampling.exchange import swap_rejection
from thermo_ebm.thermo import ratios
from thermo_ebm.types import Array, Params

_MBAR_ITERATIONS = 12


class Scores(NamedTuple):
    """Means over an image's chains at t = 1, which sample its posterior; [num] each."""

    reconstruction: Array  # |x - g(z)|^2 / (2 sigma_l^2)
    tilt: Array  # f_alpha(z)
    norm: Array  # f_alpha(z) - log p_alpha(z), up to a constant: |z|^2 / (2 sigma_0^2)


class MarginalLikelihood(NamedTuple):
    """Estimates for each image, in nats."""

    log_marginal_likelihood: Array  # log p(x) by MBAR, [num]
    stderr: Array  # its standard error, [num]
    annealed: Array  # log mean w, a stochastic lower bound, [num]
    annealed_stderr: Array  # [num]
    effective_sample_size: Array  # of the M weights, [num]
    rejection: Array  # of an exchange between neighbours, mean over images, [num_temperatures]
    acceptance: Array  # of the moves at t_1 .. t_N, [num_temperatures]
    scores: Scores  # of the latents at t = 1


def summarise(
    annealer: Annealer, images: Array, temperatures: Array, annealed: Annealed
) -> MarginalLikelihood:
    """Estimates for each image from chains annealed from the prior to the posterior.

    Args:
      annealer: which annealed the chains.
      images: [num, *image_shape].
      temperatures: t_0 = 0 .. t_N = 1, [num_temperatures + 1].
      annealed: from `Annealer.anneal`.
    """
    by_image = jnp.moveaxis(annealed.log_likelihood, 2, 0)  # [num, num_temperatures + 1, M]
    value, stderr = mbar_with_error(temperatures, by_image)
    log_weights = forward_log_weights(temperatures, annealed.log_likelihood)
    bound, bound_stderr, size = log_mean_exp(log_weights)
    rejection = swap_rejection(temperatures, annealed.log_likelihood).mean(axis=1)
    return MarginalLikelihood(
        log_marginal_likelihood=value,
        stderr=stderr,
        annealed=bound,
        annealed_stderr=bound_stderr,
        effective_sample_size=size,
        rejection=masked_mean(rejection, annealer.mask, annealer.axis_name),
        acceptance=annealed.acceptance,
        scores=posterior_scores(annealer.model, annealer.params, images, annealed),
    )


def posterior_scores(model: LatentEBM, params: Params, images: Array, annealed: Annealed) -> Scores:
    """Scores of images [num, *image_shape] from their chains at t = 1."""
    z = annealed.latents.reshape(-1, model.latent_dim)
    tilt, density = model.tilt(params["prior"], z), log_prior(model, params["prior"], z)
    constant = math.prod(images.shape[1:]) / 2 * math.log(2 * math.pi * model.likelihood_sigma**2)
    return Scores(
        reconstruction=-annealed.log_likelihood[-1].mean(axis=0) - constant,
        tilt=tilt.reshape(-1, images.shape[0]).mean(axis=0),
        norm=(tilt - density).reshape(-1, images.shape[0]).mean(axis=0),
    )


def mbar_with_error(temperatures: Array, log_likelihoods: Array) -> tuple[Array, Array]:
    """log Z_1 / Z_0 and its standard error by a jackknife over the chains.

    Args:
      temperatures: t_0 = 0 .. t_N = 1.
      log_likelihoods: [num, num_temperatures + 1, M], with each chain at the same index throughout.

    Returns:
      [num] each.
    """
    per_image = log_likelihoods.shape[-1]
    value = ratios.mbar(temperatures, log_likelihoods, _MBAR_ITERATIONS)[..., -1]

    def without(m: Array) -> Array:
        rest = (m + 1 + jnp.arange(per_image - 1)) % per_image
        return ratios.mbar(temperatures, log_likelihoods[..., rest], _MBAR_ITERATIONS)[..., -1]

    left_out = jax.lax.map(without, jnp.arange(per_image))
    spread = jnp.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0)
    variance = (per_image - 1) / per_image * spread
    # With few chains the variance is itself uncertain: the variance of Student's t, not a normal's.
    return value, jnp.sqrt(variance * (per_image - 1) / max(per_image - 3, 1))


def forward_log_weights(temperatures: Array, log_likelihood: Array) -> Array:
    """log w of each chain (see the package), [num_temperatures + 1, M, num] -> [M, num]."""
    return jnp.einsum("t,tmn->mn", jnp.diff(temperatures), log_likelihood[:-1])


def log_mean_exp(log_weights: Array) -> tuple[Array, Array, Array]:
    """log of the mean weight, its standard error (delta method) and the effective sample size.

    Args:
      log_weights: [M, num].

    Returns:
      [num] each.
    """
    per_image = log_weights.shape[0]
    value = jax.nn.logsumexp(log_weights, axis=0) - jnp.log(per_image)
    relative = jnp.exp(log_weights - value)
    variance = jnp.sum((relative - 1) ** 2, axis=0) / (per_image - 1) / per_image
    size = jnp.sum(relative, axis=0) ** 2 / jnp.sum(relative**2, axis=0)
    return value, jnp.sqrt(variance), size
