"""The transposed convolution as one matrix product and shifted additions: the form for a CPU."""

from functools import partial

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.models.conv_transpose.cropping import crop
from thermo_ebm.types import Array


def stamped(x: Array, weights: Array, stride: int) -> Array:
    """One matrix product, then shifted additions of the patches.

    The form for a CPU, where XLA's convolutions are slow inside a loop and its matrix products
    are not. Differentiable any number of times in reverse mode; forward mode is not supported.

    Args:
      x: [num, height, width, c_in].
      weights: [k, k, c_in, c_out].
      stride: s.

    Returns:
      [num, s * height, s * width, c_out].

    Raises:
      ValueError: if k < s.
    """
    chex.assert_rank([x, weights], 4)
    num, height, width, c_in = x.shape
    k, _, _, c_out = weights.shape
    taps = weights.transpose(2, 0, 1, 3).reshape(c_in, k * k * c_out)
    patches = (x.reshape(-1, c_in) @ taps).reshape(num, height, width, k, k, c_out)
    return _stamp(patches, stride, k)


# `_stamp` and `_windows` are transposes of each other, so that each is the derivative of the other.
# XLA's own derivative of `_stamp` adds up padded arrays, whereas `_windows` copies slices.


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _stamp(patches: Array, stride: int, k: int) -> Array:
    """The image that is the sum of all patches: [num, h, w, k, k, c] -> [num, s h, s w, c]."""
    num, height, width, _, _, channels = patches.shape
    before, _ = crop(k, stride)
    # Tap s q + r of a pixel lands q blocks further on, at place r of the s x s block.
    blocks = -(-k // stride)
    patches = jnp.pad(patches, [(0, 0)] * 3 + [(0, blocks * stride - k)] * 2 + [(0, 0)])
    patches = patches.reshape(num, height, width, blocks, stride, blocks, stride, channels)
    size = (num, height + blocks - 1, width + blocks - 1, stride, stride, channels)
    out = jnp.zeros(size, patches.dtype)
    for row in range(blocks):
        for column in range(blocks):
            shift = ((0, 0), (row, blocks - 1 - row), (column, blocks - 1 - column))
            out += jnp.pad(patches[:, :, :, row, :, column], (*shift, (0, 0), (0, 0), (0, 0)))
    out = out.transpose(0, 1, 3, 2, 4, 5)
    out = out.reshape(num, out.shape[1] * stride, out.shape[3] * stride, channels)
    rows, columns = stride * height, stride * width
    return out[:, before : before + rows, before : before + columns]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _windows(image: Array, stride: int, k: int) -> Array:
    """The pixels under each patch of an image: [num, s h, s w, c] -> [num, h, w, k, k, c]."""
    num, rows, columns, channels = image.shape
    pad = crop(k, stride)
    image = jnp.pad(image, ((0, 0), pad, pad, (0, 0)))

    def tap(row: int, column: int) -> Array:
        end = (num, row + rows - stride + 1, column + columns - stride + 1, channels)
        return jax.lax.slice(image, (0, row, column, 0), end, (1, stride, stride, 1))

    taps = [jnp.stack([tap(row, column) for column in range(k)], axis=3) for row in range(k)]
    return jnp.stack(taps, axis=3)


_stamp.defvjp(
    lambda patches, stride, k: (_stamp(patches, stride, k), None),
    lambda stride, k, _, cotangent: (_windows(cotangent, stride, k),),
)
_windows.defvjp(
    lambda image, stride, k: (_windows(image, stride, k), None),
    lambda stride, k, _, cotangent: (_stamp(cotangent, stride, k),),
)
