"""The transposed convolution as XLA's convolution of a dilated input: the form for accelerators."""

import chex
import jax

from thermo_ebm.models.conv_transpose.cropping import padding
from thermo_ebm.models.conv_transpose.derivatives import with_derivatives
from thermo_ebm.types import Array


def dilated(x: Array, weights: Array, stride: int) -> Array:
    """XLA's convolution with a dilated input. Arguments of `stamped`.

    The form for GPUs, and on TPUs for all layers but the last. Differentiable any number of times
    in reverse mode; forward mode is not supported.
    """
    chex.assert_rank([x, weights], 4)
    return _dilated(x, weights, stride, weights.shape[0])


@with_derivatives
def _dilated(x: Array, weights: Array, stride: int, k: int) -> Array:
    pad = padding(k, stride)
    return jax.lax.conv_general_dilated(
        x,
        weights[::-1, ::-1],
        window_strides=(1, 1),
        padding=(pad, pad),
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
