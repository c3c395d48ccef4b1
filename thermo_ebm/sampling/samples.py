"""Images from the model: latents from chains, then the likelihood's mean (eq. 2)."""

import chex
import jax.numpy as jnp

from thermo_ebm.models import encoder
from thermo_ebm.models.latent_ebm import LatentEBM, mean_images
from thermo_ebm.randomness import STEP_NOISE, chain_keys, normal
from thermo_ebm.sampling.arrival import PRIOR_STEPS_FROM_P0, posterior_latents
from thermo_ebm.sampling.chains import ChainSettings, posterior_chains, prior_chains
from thermo_ebm.types import Array, Params, PRNGKey


def sample_latents(
    model: LatentEBM,
    params: Params,
    key: PRNGKey,
    num: int,
    settings: ChainSettings,
    first: int | Array = 0,
) -> Array:
    """Latents of chains from the reference prior towards p_alpha, [num, latent_dim].

    Chains that persist in training run until they have arrived.

    Latent i depends only on the key and on first + i, so that many latents can be drawn in batches
    of any size.
    """
    keys = chain_keys(key, 0, first + jnp.arange(num))
    if settings.persistent:
        settings = settings._replace(num_steps=max(settings.num_steps, PRIOR_STEPS_FROM_P0))
    return prior_chains(model, params["prior"], keys, settings).latents


def sample_images(
    model: LatentEBM,
    params: Params,
    key: PRNGKey,
    num: int,
    settings: ChainSettings,
    first: int | Array = 0,
) -> Array:
    """Generated images without the observation noise, [num, *image_shape] in [-1, 1].

    Arguments as for `sample_latents`.
    """
    z = sample_latents(model, params, key, num, settings, first)
    return mean_images(model, params["generator"], z)


def reconstruct(
    model: LatentEBM, params: Params, x: Array, key: PRNGKey, settings: ChainSettings
) -> Array:
    """Images of the posterior's latents: chains from p0 towards p(z | x), then the generator.

    A model with an encoder has draws of q(z | x) in place of chains. With adapted step sizes, whose
    chains start elsewhere in training and are short, the chains run until they have arrived
    (`arrival.posterior_latents`).

    Args:
      model: the model.
      params: alpha and beta.
      x: images [num, *image_shape] in [-1, 1].
      key: consumed.
      settings: the posterior's chains.

    Returns:
      [num, *image_shape] in [-1, 1].
    """
    if model.encoder is not None:
        keys = chain_keys(key, 1, jnp.arange(x.shape[0]))
        noise = normal(keys, STEP_NOISE, model.latent_dim)
        encoding = model.encoder(params["encoder"], x)
        return mean_images(model, params["generator"], encoder.draw(encoding, noise))
    if settings.adapt:
        return mean_images(model, params["generator"], posterior_latents(model, params, x, key))
    keys = chain_keys(key, 1, jnp.arange(x.shape[0]))
    z = posterior_chains(model, params, x, jnp.ones(x.shape[0]), keys, settings).latents
    return mean_images(model, params["generator"], z)


def interpolate(model: LatentEBM, params: Params, ends: Array, num_steps: int) -> Array:
    """Images along great circles between pairs of latents (slerp, Shoemake 1985).

    Straight lines between Gaussian latents pass through norms that are very unlikely under the
    prior.

    Args:
      model: the model.
      params: alpha and beta.
      ends: [num_pairs, 2, latent_dim].
      num_steps: images per pair, including both ends, at least 2.

    Returns:
      [num_pairs, num_steps, *image_shape] in [-1, 1]; the first and last belong to the ends.

    Raises:
      ValueError: fewer than two steps.
    """
    chex.assert_shape(ends, (None, 2, model.latent_dim))
    if num_steps < 2:
        raise ValueError(f"num_steps is {num_steps}, must be at least 2")
    first, last = ends[:, None, 0], ends[:, None, 1]
    norms = jnp.linalg.norm(ends, axis=-1).prod(axis=-1)[:, None, None]
    cosine = jnp.sum(first * last, axis=-1, keepdims=True) / jnp.maximum(norms, 1e-12)
    # Kept away from 0 and pi, where the circle is undefined and its weights become those of a line.
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    along = jnp.linspace(0.0, 1.0, num_steps)[None, :, None]
    z = (jnp.sin((1 - along) * angle) * first + jnp.sin(along * angle) * last) / jnp.sin(angle)
    z = jnp.where(along == 0, first, jnp.where(along == 1, last, z))  # to the bit
    images = mean_images(model, params["generator"], z.reshape(-1, model.latent_dim))
    return images.reshape(ends.shape[0], num_steps, *images.shape[1:])
