"""Names shared by every module: parameters, batches and the callables of a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
PRNGKey = jax.Array
PyTree = Any

TiltFn = Callable[[PyTree, Array], Array]  # (alpha, z [num, latent_dim]) -> f_alpha(z) [num]
GeneratorFn = Callable[[PyTree, Array], Array]  # (beta, z [num, latent_dim]) -> [num, *image_shape]


# The learnt parameters theta by group: "prior" (alpha, of the tilt) and "generator" (beta).
Params = dict[str, PyTree]


class Batch(NamedTuple):
    """One device's share of a batch, padded to the same size on every device.

    `position` is the position of each example in the complete batch. The random numbers of an
    example are derived from its position, so that its chains do not depend on the number of
    devices that share the batch.
    """

    images: Array  # [num, *image_shape], in [-1, 1]
    position: Array  # [num] int32
    mask: Array  # [num] float, 1 for an example and 0 for padding


def make_batch(images: Array | np.ndarray) -> Batch:
    """A batch on a single device: every image counts, and positions are 0 .. num - 1.

    >>> make_batch(np.zeros((2, 8, 8, 1), np.float32)).position
    Array([0, 1], dtype=int32)

    Args:
      images: [num, *image_shape], floating-point numbers in [-1, 1].

    Raises:
      ValueError: there is no image, or the images are not floating-point numbers.
    """
    images = jnp.asarray(images)
    if images.ndim < 2 or images.shape[0] == 0:
        raise ValueError(f"images have shape {images.shape}, must be [num, *image_shape], num >= 1")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images are {images.dtype}, must be floating-point numbers in [-1, 1]; "
            "thermo_ebm.data.to_unit maps uint8 images there"
        )
    num = images.shape[0]
    return Batch(images, jnp.arange(num, dtype=jnp.int32), jnp.ones(num, images.dtype))


def check_batch(batch: Batch) -> None:
    """Asserts a batch's shapes and types."""
    num = batch.images.shape[0]
    chex.assert_shape([batch.position, batch.mask], (num,))
    chex.assert_type([batch.images, batch.mask], float)


LossFn = Callable[[Params, Batch, PRNGKey], tuple[Array, Any]]  # -> loss over the batch, its parts
