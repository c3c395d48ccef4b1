"""The transposed convolution on a CPU: matrix products with shifted additions; Winograd's form.

XLA's convolutions are slow inside a loop on a CPU, and its matrix products are not.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from thermo_ebm.types import Array


def crop(kernel_size: int, stride: int) -> tuple[int, int]:
    """Pixels that a form crops off its stamped patches before and after, with "same" padding.

    The output is then stride times the input.

    Raises:
      ValueError: if the kernel is smaller than the stride.
    """
    excess = kernel_size - stride
    if excess < 0:
        raise ValueError(f"kernel_size {kernel_size} must be at least the stride {stride}.")
    return excess // 2, excess - excess // 2


def stamped(x: Array, weights: Array, stride: int) -> Array:
    """One matrix product, then shifted additions of the patches.

    Differentiable any number of times in reverse mode; forward mode is not supported.

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


def windowed(image: Array, weights: Array, stride: int) -> Array:
    """The adjoint of `stamped`, a strided convolution: one matrix product with its windows.

    Differentiable like `stamped`.

    Args:
      image: [num, s * height, s * width, c_out].
      weights: [k, k, c_in, c_out], those of the transposed convolution.
      stride: s.

    Returns:
      [num, height, width, c_in].

    Raises:
      ValueError: if k < s.
    """
    chex.assert_rank([image, weights], 4)
    return jnp.einsum("nhwijc,ijdc->nhwd", _windows(image, stride, len(weights)), weights)


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


def winograd(x: Array, weights: Array, stride: int) -> Array:
    """Fewer products than `stamped`, for 4 x 4 kernels and stride 2.

    Output rows 2 i and 2 i + 1 are two-tap filters of the input's rows,

        out[2 i] = x[i - 1] w[3] + x[i] w[1],    out[2 i + 1] = x[i] w[2] + x[i + 1] w[0],

    and m neighbours of a two-tap filter take m + 1 products instead of 2 m (Winograd 1980; for
    networks Lavin and Gray 2016): the sums of a tile of inputs that `minimal_filter` gives, each
    times a sum of the taps. The columns are treated in the same way, so that a tile of m x m inputs
    takes (2 m + 2)^2 products instead of 16 m^2: nine for every sixteen with m = 2, and 6.25 with
    m = 4, which inputs of more than one such tile take.

    The form is faster on a CPU for many channels, where matrix products dominate the time. Its
    rounding errors are 2 (m = 2) and 7 times (m = 4) those of `stamped`. Differentiable any number
    of times in reverse mode; forward mode is not supported.

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
    m = _tile(x)
    sums = minimal_filter(_POINTS[m])
    columns = _once(partial(_over_rows, sums), _split(x, m))
    inputs = _once(partial(_over_columns, sums), columns)
    kernels = [_kernel_sums(sums, row, 0) for row in _kernel_sums(sums, weights, 0)]
    products = [
        [a.reshape(-1, c_in) @ g for a, g in zip(*row, strict=True)]
        for row in zip(inputs, kernels, strict=True)
    ]
    rows = _once(partial(_outputs, sums), products)
    outputs = _once(partial(_outputs, sums), _transposed(rows))
    tiles = (num, height // m, width // m, weights.shape[3])
    # outputs[j][i] is row i and column j of every tile of the output.
    out = [
        jnp.stack([column[i].reshape(tiles) for column in outputs], axis=3) for i in range(2 * m)
    ]
    return jnp.stack(out, axis=2).reshape(num, 2 * height, 2 * width, tiles[-1])


class MinimalFilter(NamedTuple):
    """The sums of y = outputs @ ((kernel @ g) * (inputs @ d)), y[j] = d[j] g[0] + d[j + 1] g[1]."""

    inputs: np.ndarray  # [m + 1, m + 1]
    kernel: np.ndarray  # [m + 1, 2]
    outputs: np.ndarray  # [m, m + 1]


def minimal_filter(points: Sequence[float]) -> MinimalFilter:
    """Winograd's filter F(m, 2) from m different points.

    It is the transpose of a product of polynomials of degree m - 1 and 1 by their values at the
    points and at infinity (Toom and Cook; Lavin and Gray 2016).
    """
    m = len(points)
    inputs, kernel = np.zeros((m + 1, m + 1)), np.zeros((m + 1, 2))
    outputs = np.zeros((m, m + 1))
    for i, point in enumerate(points):
        rest = np.delete(points, i)
        inputs[i, :m] = np.poly(rest)[::-1]
        kernel[i] = np.array([1, point]) / np.prod(point - rest)
        outputs[:, i] = point ** np.arange(m)
    inputs[m], kernel[m], outputs[m - 1, m] = np.poly(points)[::-1], [0, 1], 1  # at infinity
    return MinimalFilter(inputs, kernel, outputs)


_POINTS = {2: (0.0, 1.0), 4: (0.0, 1.0, -1.0, 2.0)}


def _tile(x: Array) -> int:
    """Side of a tile of inputs. A single tile per image makes products of too few rows, and the
    larger errors of m = 4 are too large for types of 16 bits."""
    height, width = x.shape[1:3]
    large = height % 4 == 0 and width % 4 == 0 and height * width > 16
    return 4 if large and x.dtype.itemsize > 2 else 2


def _once(stage: Callable[[Any], Any], arrays: Any) -> Any:
    """stage(arrays), each of whose results is computed once, as are those of its derivative.

    XLA would fuse a stage into every later sum that takes its results, and compute these again for
    each of them.
    """
    with set_xla_metadata(inlineable="false"):
        return jax.jit(stage)(arrays)


# `_split` and `_merge` are inverses and transposes of each other, so that each is the derivative of
# the other. XLA's own derivative of `_split` adds up padded arrays.


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _split(x: Array, m: int) -> list[list[Array]]:
    """[num, height, width, c] -> pixel i, j of every tile of m x m: [num, height/m, width/m, c]."""
    num, height, width, channels = x.shape
    tiles = x.reshape(num, height // m, m, width // m, m, channels)
    return [[tiles[:, :, i, :, j] for j in range(m)] for i in range(m)]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _merge(pixels: list[list[Array]], m: int) -> Array:
    """The inverse of `_split`."""
    num, height, width, channels = pixels[0][0].shape
    tiles = jnp.stack([jnp.stack(row, axis=3) for row in pixels], axis=2)
    return tiles.reshape(num, m * height, m * width, channels)


_split.defvjp(lambda x, m: (_split(x, m), None), lambda m, _, cotangent: (_merge(cotangent, m),))
_merge.defvjp(lambda x, m: (_merge(x, m), None), lambda m, _, cotangent: (_split(cotangent, m),))


def _over_rows(sums: MinimalFilter, pixels: list[list[Array]]) -> list[list[Array]]:
    """For every column of a tile the sums over its rows."""
    return [_input_sums(sums, column, 1) for column in _transposed(pixels)]


def _over_columns(sums: MinimalFilter, columns: list[list[Array]]) -> list[list[Array]]:
    """For every sum over rows the sums over columns."""
    return [_input_sums(sums, row, 2) for row in _transposed(columns)]


def _input_sums(sums: MinimalFilter, lines: list[Array], axis: int) -> list[Array]:
    """What the products take of lines m i - 1 .. m i + m: even outputs of all but the last, odd
    outputs of all but the first.

    Args:
      sums: of F(m, 2).
      lines: m i .. m i + m - 1, each an array over the tiles.
      axis: along which the lines' tiles are neighbours.
    """
    window = [_shifted(lines[-1], 1, axis), *lines, _shifted(lines[0], -1, axis)]
    return [*_combined(sums.inputs, window[:-1]), *_combined(sums.inputs, window[1:])]


def _shifted(x: Array, by: int, axis: int) -> Array:
    """x[i - by], and zero outside."""
    config = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def _kernel_sums(sums: MinimalFilter, weights: Array, axis: int) -> list[Array]:
    """The factors of `_input_sums`, from the four taps along an axis."""
    w = [jax.lax.index_in_dim(weights, tap, axis, keepdims=False) for tap in range(4)]
    return [*_combined(sums.kernel, [w[3], w[1]]), *_combined(sums.kernel, [w[2], w[0]])]


def _outputs(sums: MinimalFilter, products: list[list[Array]]) -> list[list[Array]]:
    """For every row of products the lines 2 m i .. 2 m i + 2 m - 1 of the output."""
    half = len(sums.inputs)
    parities = [
        (_combined(sums.outputs, row[:half]), _combined(sums.outputs, row[half:]))
        for row in products
    ]
    return [[line for pair in zip(*row, strict=True) for line in pair] for row in parities]


def _combined(factors: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """factors @ arrays, without the terms that are zero."""
    return [
        reduce(
            operator.add,
            (
                array if factor == 1 else float(factor) * array
                for factor, array in zip(row, arrays, strict=True)
                if factor
            ),
        )
        for row in factors
    ]


def _transposed(rows: list[list[Array]]) -> list[list[Array]]:
    return [list(column) for column in zip(*rows, strict=True)]
