"""Transposed convolution in three forms that agree to rounding, and the choice between them.

With a kernel of k x k, stride s and "same" padding, an input [num, h, w, c] gives an output
[num, s h, s w, c_out]: every input pixel stamps its k x k patch on the output with stride s, and
(k - s) / 2 pixels are cropped all round.

Weights are [k, k, c_in, c_out].
"""

from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.types import Array

ConvTranspose = Callable[[Array, Array, int], Array]


def _crop(kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels cropped before and after, so that the output is stride times the input."""
    excess = kernel_size - stride
    if excess < 0:
        raise ValueError(f"kernel_size {kernel_size} must be at least the stride {stride}.")
    return excess // 2, excess - excess // 2


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


# `_stamp` and `_windows` are transposes of each other, which is all that their derivatives say.
# XLA's own derivative of `_stamp` adds up padded arrays, where `_windows` copies slices.


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _stamp(patches: Array, stride: int, k: int) -> Array:
    """The image that all patches add up to: [num, h, w, k, k, c] -> [num, s h, s w, c]."""
    num, height, width, _, _, channels = patches.shape
    before, _ = _crop(k, stride)
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
    """What lies under each patch of an image: [num, s h, s w, c] -> [num, h, w, k, k, c]."""
    num, rows, columns, channels = image.shape
    pad = _crop(k, stride)
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


def winograd(x: Array, weights: Array, stride: int) -> Array:
    """Nine products for every sixteen of `stamped`, for 4 x 4 kernels and stride 2.

    Output rows 2 i and 2 i + 1 are two-tap filters of the input's rows,

        out[2 i] = x[i] w[1] + x[i - 1] w[3],    out[2 i + 1] = x[i] w[2] + x[i + 1] w[0],

    and two neighbours of a two-tap filter take three products instead of four (Winograd 1980; for
    networks Lavin and Gray 2016): d0 g0 + d1 g1 and d1 g0 + d2 g1 are p + q and q + r with

        p = (d0 - d1) g0,    q = d1 (g0 + g1),    r = (d2 - d1) g1.

    The same along the columns. All factors are 1 and -1, so rounding stays that of a sum. A CPU
    gains where channels are many; there the matrix products are the time.

    Args:
      x: [num, height, width, c_in], height and width even.
      weights: [4, 4, c_in, c_out].
      stride: 2.

    Returns:
      [num, 2 * height, 2 * width, c_out].

    Raises:
      ValueError: for any other shape.
    """
    chex.assert_rank([x, weights], 4)
    num, height, width, c_in = x.shape
    if stride != 2 or weights.shape[:2] != (4, 4) or height % 2 or width % 2:
        raise ValueError(
            f"winograd takes 4 x 4 kernels, stride 2 and an even height and width, not weights "
            f"{weights.shape}, stride {stride} and an input {x.shape}."
        )
    inputs = [_input_terms(rows, 2) for rows in _input_terms(x, 1)]
    kernels = [_kernel_terms(rows, 0) for rows in _kernel_terms(weights, 0)]
    products = [
        [a.reshape(-1, c_in) @ g for a, g in zip(*pair, strict=True)]
        for pair in zip(inputs, kernels, strict=True)
    ]
    columns = [_output_terms(row) for row in products]
    outputs = [_output_terms([row[j] for row in columns]) for j in range(4)]
    tile = (num, height // 2, width // 2, weights.shape[3])
    out = [jnp.stack([outputs[j][i].reshape(tile) for j in range(4)], axis=3) for i in range(4)]
    return jnp.stack(out, axis=2).reshape(num, 2 * height, 2 * width, tile[-1])


def _input_terms(x: Array, axis: int) -> list[Array]:
    """What each product takes of the rows 2 m - 1 .. 2 m + 2, for both filters of a tile m."""
    even, odd = (jax.lax.slice_in_dim(x, start, None, 2, axis) for start in range(2))
    between = odd - even
    return [
        _shifted(odd, 1, axis) - even,
        even,
        between,
        between,
        odd,
        _shifted(even, -1, axis) - odd,
    ]


def _shifted(x: Array, by: int, axis: int) -> Array:
    """x[i - by], and zero outside."""
    config = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def _kernel_terms(weights: Array, axis: int) -> list[Array]:
    w = [jax.lax.index_in_dim(weights, tap, axis, keepdims=False) for tap in range(4)]
    return [w[3], w[3] + w[1], w[1], -w[2], w[2] + w[0], w[0]]


def _output_terms(p: list[Array]) -> list[Array]:
    """Rows 4 m .. 4 m + 3 of the output."""
    return [p[0] + p[1], p[3] + p[4], p[1] + p[2], p[4] + p[5]]


def dilated(x: Array, weights: Array, stride: int) -> Array:
    """XLA's convolution with a dilated input: the form for accelerators. Arguments of `stamped`."""
    chex.assert_rank([x, weights], 4)
    k = weights.shape[0]
    before, after = _crop(k, stride)
    pad = (k - 1 - before, k - 1 - after)
    return jax.lax.conv_general_dilated(
        x,
        weights[::-1, ::-1],
        window_strides=(1, 1),
        padding=(pad, pad),
        lhs_dilation=(stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


# Channels of the input from which on `winograd` is faster than `stamped`, measured on a CPU.
_MANY_CHANNELS = 128


def on_cpu(x: Array, weights: Array, stride: int) -> Array:
    """`winograd` where it can be had and pays, else `stamped`, whose arguments it takes."""
    possible = (
        stride == 2 and weights.shape[:2] == (4, 4) and not (x.shape[1] % 2 or x.shape[2] % 2)
    )
    pays = x.shape[-1] >= _MANY_CHANNELS
    return (winograd if possible and pays else stamped)(x, weights, stride)


def for_backend(backend: str) -> ConvTranspose:
    """Returns the form that is fastest on a backend (`jax.default_backend()`)."""
    return on_cpu if backend == "cpu" else dilated
