"""Images from the model: latents from the prior's chains, then the generator's mean (eq. 2)."""

import jax.numpy as jnp

from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import ChainSettings, chain_keys, prior_chains
from thermo_ebm.types import Array, Params, PRNGKey


def sample_latents(
    model: LatentEBM, params: Params, key: PRNGKey, num: int, settings: ChainSettings
) -> Array:
    """Latents of short-run chains from the prior, [num, latent_dim]. The key is consumed."""
    keys = chain_keys(key, jnp.zeros((), jnp.int32), jnp.arange(num))
    return prior_chains(model, params.alpha, keys, settings)


def sample_images(
    model: LatentEBM, params: Params, key: PRNGKey, num: int, settings: ChainSettings
) -> Array:
    """Generated images without the observation noise, [num, *image_shape] in [-1, 1]."""
    return model.generator(params.beta, sample_latents(model, params, key, num, settings))
