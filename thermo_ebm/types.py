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


# The learnt parameters theta by group: "prior" (alpha, of the tilt), "generator" (beta) and, with
# an encoder, "encoder" (phi).
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
      ValueError: see `check_images`.
    """
    images = check_images(images)
    num = images.shape[0]
    return Batch(images, jnp.arange(num, dtype=jnp.int32), jnp.ones(num, images.dtype))


def check_images(images: Array | np.ndarray) -> Array:
    """Images as an array on the device, after a check of their shape, type and range.

    Values are checked only where they are known: under `jit` the shape and the type alone.

    Args:
      images: [num, *image_shape], floating-point numbers in [-1, 1]. Vectors [num, dim], the data
        of a model that is not one of images, may have any range.

    Raises:
      ValueError: there is no image, or the images are not floating-point numbers in [-1, 1].
    """
    if isinstance(images, Batch):
        raise ValueError("images are a Batch, must be an array; pass its field `images`")
    shape, dtype = np.shape(images), jnp.result_type(images)
    if len(shape) < 2 or shape[0] == 0:
        raise ValueError(f"images have shape {shape}, must be [num, *image_shape], num >= 1")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"images are {dtype}, must be floating-point numbers in [-1, 1]; {_CONVERSION}"
        )
    if len(shape) > 2 and not isinstance(images, jax.core.Tracer):
        values = np.asarray(images)
        low, high = float(values.min()), float(values.max())
        if not (low >= -1 - _ROUNDING and high <= 1 + _ROUNDING):
            raise ValueError(
                f"images have values from {low:.4g} to {high:.4g}, must be in [-1, 1]; "
                f"{_CONVERSION}"
            )
    return jnp.asarray(images)


_CONVERSION = "thermo_ebm.data.to_unit maps pixels 0 .. 255 there"
_ROUNDING = 1e-2  # by which bfloat16 images may exceed the range


def check_batch(batch: Batch) -> None:
    """Checks that a batch is one, and the images' type; asserts the shapes of the other fields.

    Raises:
      ValueError: it is no `Batch`, or its images are not floating-point numbers in [-1, 1].
    """
    if not isinstance(batch, Batch):
        raise ValueError(
            f"batch is {_described(batch)}, must be a Batch; thermo_ebm.make_batch(images) makes it"
        )
    check_images(batch.images)
    chex.assert_shape([batch.position, batch.mask], (batch.images.shape[0],))
    chex.assert_type(batch.mask, float)


def check_key(key: PRNGKey) -> None:
    """Refuses integers, old-style uint32 keys and arrays of keys in place of a key.

    >>> check_key(jax.random.PRNGKey(0))
    Traceback (most recent call last):
    ...
    ValueError: key is uint32[2], must be one typed key; jax.random.key(seed) makes it

    Raises:
      ValueError: it is not a single typed key.
    """
    is_typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_typed or key.shape != ():
        raise ValueError(
            f"key is {_described(key)}, must be one typed key; jax.random.key(seed) makes it"
        )


def _described(value: Any) -> str:
    """The type and shape of an array, such as float32[3,8,8,1], or the name of another type."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    return f"of type {type(value).__name__}"


LossFn = Callable[[Params, Batch, PRNGKey], tuple[Array, Any]]  # -> loss over the batch, its parts
