"""Both networks evaluated at the ends of chains, for all images, chains and temperatures."""

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.models.latent_ebm import LatentEBM, log_likelihood
from thermo_ebm.sampling.chains import map_in_chunks, tile
from thermo_ebm.types import Array


def log_likelihoods(
    model: LatentEBM, beta: chex.ArrayTree, images: Array, latents: Array, image_chunk: int
) -> Array:
    """l = log p_beta(x | z) of every chain.

    Args:
      model: the model.
      beta: the generator's parameters.
      images: [num, *image_shape].
      latents: [T, M, num, latent_dim].
      image_chunk: images evaluated at once; 0 is all. Chunks bound the memory of the gradient too.

    Returns:
      [T, M, num], in nats.
    """
    chex.assert_equal(latents.shape[2], images.shape[0])

    def chunk(arrays: tuple[Array, Array]) -> Array:
        x, z = arrays[0], jnp.swapaxes(arrays[1], 0, 2)
        times = z.shape[0] * z.shape[1]
        values = log_likelihood(model, beta, tile(x, times), z.reshape(-1, z.shape[-1]))
        return jnp.swapaxes(values.reshape(z.shape[:3]), 0, 2)

    # Recomputed in the backward pass, so that chunks bound the memory of the gradient as well.
    fn = jax.checkpoint(chunk) if 0 < image_chunk < images.shape[0] else chunk
    values = map_in_chunks(fn, (images, jnp.swapaxes(latents, 0, 2)), image_chunk)
    return jnp.swapaxes(values, 0, 2)


def tilts(model: LatentEBM, alpha: chex.ArrayTree, latents: Array) -> Array:
    """f_alpha(z) of latents [..., latent_dim] -> [...]."""
    flat = latents.reshape(-1, latents.shape[-1])
    return model.tilt(alpha, flat).reshape(latents.shape[:-1])
