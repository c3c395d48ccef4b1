"""The transposed convolution with stride 1 whose channels are several rows of few channels.

A TPU's matrix unit computes 128 or 256 channels at once, so that the three of an image leave it
almost idle. With R rows of the result as R times as many channels it does fewer passes: for a
kernel of k x k, k (k + R - 1) taps for R pixels in place of k^2 R.
"""

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.models.conv_transpose.cropping import padding
from thermo_ebm.models.conv_transpose.derivatives import with_derivatives
from thermo_ebm.types import Array

ROWS = 4  # R: by the compiler's estimate faster than 2 and than 8


def row_blocks(x: Array, weights: Array, stride: int) -> Array:
    """`dilated` with stride 1, for inputs whose height is a multiple of `ROWS`."""
    chex.assert_rank([x, weights], 4)
    chex.assert_equal(stride, 1)
    chex.assert_is_divisible(x.shape[1], ROWS)
    return _row_blocks(x, weights, stride, weights.shape[0])


@with_derivatives
def _row_blocks(x: Array, weights: Array, stride: int, k: int) -> Array:
    pad = padding(k, stride)
    # Row r of a block takes the same taps r pixels further down.
    shifted = [
        jnp.pad(weights[::-1, ::-1], [(r, ROWS - 1 - r), *[(0, 0)] * 3]) for r in range(ROWS)
    ]
    blocks = jax.lax.conv_general_dilated(
        x,
        jnp.concatenate(shifted, axis=-1),
        window_strides=(ROWS, 1),
        padding=(pad, pad),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    num, height, width, channels = x.shape[0], x.shape[1], x.shape[2], weights.shape[-1]
    # Without the axis of length 1 XLA takes the rows apart by slices and puts them together, which
    # by the compiler's estimate takes six times as long as a transposition.
    apart = blocks.reshape(num, height // ROWS, width, 1, ROWS, channels)
    return jnp.transpose(apart, (0, 1, 4, 2, 3, 5)).reshape(num, height, width, channels)
