"""Derivatives of the transposed convolution, for the forms that are convolutions of XLA."""

from collections.abc import Callable
from typing import Any

import jax

from thermo_ebm.models.conv_transpose.cropping import crop
from thermo_ebm.types import Array

_Form = Callable[[Array, Array, int, int], Array]  # x, weights, stride, kernel size


def with_derivatives(form: _Form) -> _Form:
    """A form with the derivatives as convolutions of the cotangent, taps in their own order.

    From a form's own derivative XLA would make that of the weights by turning all activations.
    """

    def forward(x: Any, weights: Any, stride: int, k: int) -> tuple[Array, tuple]:
        """The result, and of both factors those a derivative takes: chains have fixed weights."""
        kept = (x.value if weights.perturbed else None, weights.value if x.perturbed else None)
        return form(x.value, weights.value, stride, k), kept

    def backward(stride: int, k: int, kept: tuple, cotangent: Array) -> tuple:
        x, weights = kept
        return (
            None if weights is None else _input_gradient(cotangent, weights, stride, k),
            None if x is None else _weights_gradient(cotangent, x, stride, k),
        )

    own = jax.custom_vjp(form, nondiff_argnums=(2, 3))
    own.defvjp(forward, backward, symbolic_zeros=True)
    return own


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
