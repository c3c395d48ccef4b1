"""The transposed convolution on GPUs and TPUs: convolutions of XLA, with explicit derivatives."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.models.conv_transpose.cpu import crop
from thermo_ebm.types import Array

ROWS = 4  # of a block in `row_blocks`: by the compiler's estimate faster than 2 and than 8

_Form = Callable[[Array, Array, int, int], Array]  # x, weights, stride, kernel size


def with_derivatives(form: _Form) -> _Form:
    """A form with the derivatives as convolutions of the cotangent, taps in their own order.

    XLA would compute the gradient of the weights from a form's automatic derivative by transposing
    all activations.
    """

    def forward(x: Any, weights: Any, stride: int, k: int) -> tuple[Array, tuple]:
        """Returns the result and the residuals: only the factors whose gradient is needed.

        Chains never differentiate the weights.
        """
        residuals = x.value if weights.perturbed else None, weights.value if x.perturbed else None
        return form(x.value, weights.value, stride, k), residuals

    def backward(stride: int, k: int, residuals: tuple, cotangent: Array) -> tuple:
        x, weights = residuals
        return (
            None if weights is None else _input_gradient(cotangent, weights, stride, k),
            None if x is None else _weights_gradient(cotangent, x, stride, k),
        )

    differentiable = jax.custom_vjp(form, nondiff_argnums=(2, 3))
    differentiable.defvjp(forward, backward, symbolic_zeros=True)
    return differentiable


def _input_gradient(cotangent: Array, weights: Array, stride: int, k: int) -> Array:
    """dx[i] = sum over taps k of cotangent[s i + k - before] weights[k]."""
    pad = crop(k, stride)
    return jax.lax.conv_general_dilated(
        cotangent,
        weights,
        window_strides=(stride, stride),
        padding=(pad, pad),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def strided(image: Array, weights: Array, stride: int) -> Array:
    """The adjoint of `dilated`, a strided convolution. Arguments of `windowed`."""
    chex.assert_rank([image, weights], 4)
    return _input_gradient(image, weights, stride, weights.shape[0])


def _weights_gradient(cotangent: Array, x: Array, stride: int, k: int) -> Array:
    """dweights[k] = sum over pixels i of cotangent[s i + k - before] x[i]."""
    pad = crop(k, stride)
    return jax.lax.conv_general_dilated(
        cotangent,
        x,
        window_strides=(1, 1),
        padding=(pad, pad),
        rhs_dilation=(stride, stride),
        dimension_numbers=("CHWN", "IHWO", "HWCN"),
    )


def padding(kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels of padding, before and after, of the equivalent convolution of the dilated input."""
    before, after = crop(kernel_size, stride)
    return kernel_size - 1 - before, kernel_size - 1 - after


def dilated(x: Array, weights: Array, stride: int) -> Array:
    """XLA's convolution with a dilated input. Arguments of `stamped`.

    The form for GPUs, and on TPUs for all layers except the last. Differentiable any number of
    times in reverse mode; forward mode is not supported.
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


def row_blocks(x: Array, weights: Array, stride: int) -> Array:
    """`dilated` with stride 1, for few channels and inputs whose height is a multiple of `ROWS`.

    A TPU's matrix unit computes 128 or 256 channels at once, so that the three of an image leave it
    almost idle. With R rows of the result as R times as many channels it does fewer passes: for a
    kernel of k x k, k (k + R - 1) taps for R pixels instead of k^2 R. The form has been compiled
    for TPUs but never run on one; times are the compiler's estimates.
    """
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
    # Without the axis of length 1 XLA separates the rows by slices and concatenates them, which by
    # the compiler's estimate takes six times as long as a transposition.
    separate = blocks.reshape(num, height // ROWS, width, 1, ROWS, channels)
    return jnp.transpose(separate, (0, 1, 4, 2, 3, 5)).reshape(num, height, width, channels)
