"""Mirror images of training images.

Whether an image is mirrored in a step depends on the key of the step and the number of the image in
the data set alone: neither on its place in the batch, nor on the number of devices, nor on what was
read before. Chains that continued from an earlier step of the same image would begin at the latents
of another image; all chains of images therefore begin anew at every step.
"""

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, PRNGKey


def flip(images: Array, numbers: Array, key: PRNGKey) -> Array:
    """Each image or its horizontal mirror image, with probability 1/2 each.

    Args:
      images: [..., height, width, channels].
      numbers: of the images in the data set, int [...].
      key: of the step.
    """
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers.ravel())
    is_flipped = jax.vmap(jax.random.bernoulli)(keys).reshape(*numbers.shape, 1, 1, 1)
    return jnp.where(is_flipped, images[..., ::-1, :], images)
