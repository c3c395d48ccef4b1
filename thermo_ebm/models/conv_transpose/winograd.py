"""The transposed convolution by Winograd's minimal filters: fewer products on a CPU."""

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.types import Array


def winograd(x: Array, weights: Array, stride: int) -> Array:
    """Nine products for every sixteen of `stamped`, for 4 x 4 kernels and stride 2.

    Output rows 2 i and 2 i + 1 are two-tap filters of the input's rows,

        out[2 i] = x[i] w[1] + x[i - 1] w[3],    out[2 i + 1] = x[i] w[2] + x[i + 1] w[0],

    and two neighbours of a two-tap filter take three products instead of four (Winograd 1980; for
    networks Lavin and Gray 2016): d0 g0 + d1 g1 and d1 g0 + d2 g1 are p + q and q + r with

        p = (d0 - d1) g0,    q = d1 (g0 + g1),    r = (d2 - d1) g1.

    The columns are treated in the same way. All factors are 1 and -1, so that rounding is that of a
    sum. The form is faster on a CPU for many channels, where matrix products dominate the time.
    Differentiable any number of times in reverse mode; forward mode is not supported.

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
    (even_even, even_odd), (odd_even, odd_odd) = _quarters(x)
    even_columns = _input_terms(even_even, odd_even, 1)
    odd_columns = _input_terms(even_odd, odd_odd, 1)
    inputs = [_input_terms(*rows, 2) for rows in zip(even_columns, odd_columns, strict=True)]
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


Quarters = tuple[tuple[Array, Array], tuple[Array, Array]]  # by parity of the row and the column


# `_quarters` and `_whole` are inverses and transposes of each other, so that each is the derivative
# of the other. XLA's own derivative of `_quarters` adds up padded arrays.


@jax.custom_vjp
def _quarters(x: Array) -> Quarters:
    """[num, height, width, c] -> the pixels of each parity, [num, height / 2, width / 2, c]."""
    num, height, width, channels = x.shape
    pairs = x.reshape(num, height // 2, 2, width // 2, 2, channels)
    first, second = ((pairs[:, :, row, :, 0], pairs[:, :, row, :, 1]) for row in range(2))
    return first, second


@jax.custom_vjp
def _whole(quarters: Quarters) -> Array:
    """The inverse of `_quarters`."""
    num, height, width, channels = quarters[0][0].shape
    pairs = jnp.stack([jnp.stack(row, axis=3) for row in quarters], axis=2)
    return pairs.reshape(num, 2 * height, 2 * width, channels)


_quarters.defvjp(lambda x: (_quarters(x), None), lambda _, cotangent: (_whole(cotangent),))
_whole.defvjp(
    lambda quarters: (_whole(quarters), None), lambda _, cotangent: (_quarters(cotangent),)
)


def _input_terms(even: Array, odd: Array, axis: int) -> list[Array]:
    """What each product takes of the rows 2 m - 1 .. 2 m + 2, for both filters of a tile m."""
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
