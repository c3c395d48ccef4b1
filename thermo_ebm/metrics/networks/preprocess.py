"""Prepares uint8 images for a feature network.

There are four ways to resize, because published figures use them all:

- `bilinear`: half-pixel centres, corners not aligned, no antialiasing; what pytorch-fid does with
  `interpolate(mode="bilinear", align_corners=False)`. The field's reference, and the default.
- `antialias`: bicubic (Keys, a = -0.5) with its support widened by the scale when shrinking, each
  channel in floating point, clipped to [0, 255] and not rounded; what clean-fid does (Parmar et
  al. 2022, "On aliased resizing and surprising subtleties in GAN evaluation").
- `pillow`: the same in whole numbers, as Pillow resizes images of 8 bits: first along the width,
  rounded, then along the height, rounded; what dgm-eval and DINOv2's own evaluation do.
- `tensorflow`: bilinear with the corner of the first pixel at the corner of the image and no half
  pixels, as in the graph of the original FID (TTUR) and in torch-fidelity.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

Resize = Literal["bilinear", "antialias", "pillow", "tensorflow"]


class Scale(NamedTuple):
    """The affine map (value - mean) / std from [0, 255] to a network's input.

    Either is one number for all channels or a number for each of red, green and blue.
    """

    mean: float | tuple[float, float, float]
    std: float | tuple[float, float, float]


def check_images(images: np.ndarray | jax.Array) -> None:
    """Raises ValueError unless `images` is uint8 [num, height, width, 3] with num > 0."""
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 [num, height, width, 3], not {images.dtype} {images.shape}"
        )


def check_resize(method: str) -> None:
    """Raises ValueError unless `method` names a way to resize."""
    if method not in get_args(Resize):
        raise ValueError(f"resize must be one of {get_args(Resize)}, not {method!r}")


def to_rgb(images: np.ndarray) -> np.ndarray:
    """Repeats grey images [num, height, width, 1] to three channels; returns RGB images as is."""
    return np.repeat(images, 3, axis=-1) if images.ndim == 4 and images.shape[-1] == 1 else images


def resize(images: jax.Array, size: int, method: Resize) -> jax.Array:
    """Resizes images to size x size.

    Args:
      images: [num, height, width, channels], values in [0, 255].
      size: new height and width.
      method: see the top of this file.

    Returns:
      float32 [num, size, size, channels], values in [0, 255], not rounded.

    Raises:
      ValueError: for an unknown method.
    """
    check_resize(method)
    shape = (images.shape[0], size, size, images.shape[3])
    values = images.astype(jnp.float32)
    if method == "bilinear":
        return jax.image.resize(values, shape, "bilinear", antialias=False)
    if method == "tensorflow":
        rows, columns = (_tensorflow_weights(length, size) for length in images.shape[1:3])
        return jnp.einsum("iy,jx,nyxc->nijc", rows, columns, values, precision="highest")
    if method == "pillow":
        wide = (*images.shape[:2], size, images.shape[3])
        for new_shape in (wide, shape):
            values = jax.image.resize(values, new_shape, "cubic", antialias=True)
            values = jnp.floor(jnp.clip(values, 0.0, 255.0) + 0.5)
        return values
    return jnp.clip(jax.image.resize(values, shape, "cubic", antialias=True), 0.0, 255.0)


def _tensorflow_weights(length: int, size: int) -> np.ndarray:
    """The weights of pixels in `size` new ones, float32 [size, length]."""
    places = np.arange(size, dtype=np.float32) * np.float32(length / size)
    first = np.floor(places).astype(int)
    share = places - first
    weights = np.zeros((size, length), np.float32)
    np.add.at(weights, (np.arange(size), first), 1 - share)
    np.add.at(weights, (np.arange(size), np.minimum(first + 1, length - 1)), share)
    return weights


def scaled(images: jax.Array, scale: Scale) -> jax.Array:
    """Returns images [..., 3] with values in [0, 255] scaled to a network's input, float32."""
    mean, std = (jnp.asarray(values, jnp.float32) for values in scale)
    return (images - mean) / std


def in_batches(
    apply: Callable[[jax.Array], tuple[jax.Array, ...]], images: np.ndarray, batch_size: int
) -> tuple[np.ndarray, ...]:
    """Applies a function to images batch by batch, so that any number fits in memory.

    Args:
      apply: maps a batch [batch, ...] to a tuple of arrays [batch, ...].
      images: [num, ...]; the last batch is filled up with zeros, so that one shape is compiled.
      batch_size: images at once.

    Returns:
      The outputs, each [num, ...], on the host.

    Raises:
      ValueError: if the batch size is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be positive, not {batch_size}")
    size = min(batch_size, len(images))
    outputs = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        missing = [(0, size - len(batch))] + [(0, 0)] * (images.ndim - 1)
        results = apply(jnp.asarray(np.pad(batch, missing)))
        outputs.append([np.asarray(array) for array in results])
    return tuple(np.concatenate(parts)[: len(images)] for parts in zip(*outputs, strict=True))
