"""Counts the arithmetic of a traced function, loops included.

A compiler's cost analysis counts a loop's body once, whatever its trip count. Here the jaxpr is
walked instead, and a body counts as often as it runs.
"""

import math
from collections.abc import Callable, Iterable
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, JaxprEqn

from thermo_ebm.cost.jaxprs import gradient_jaxpr, inner_jaxprs, shape, size
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.scopes import LOSS_AND_GRADIENT, part_of
from thermo_ebm.types import LossFn


class FlopCount(NamedTuple):
    """Operations of one call; a multiply-add is two."""

    matmul: int  # of matrix products and convolutions, recomputed ones included
    recomputed: int  # the part of `matmul` that `jax.checkpoint` recomputes
    elementwise: int  # one for each element an arithmetic primitive gives, or a reduction takes

    @property
    def useful(self) -> int:
        """Of matrix products and convolutions, each counted once however often it is done."""
        return self.matmul - self.recomputed


class _Place(NamedTuple):
    """Where an equation stands."""

    part: str  # of the step
    recomputing: bool  # whether all of it is done for the second time


_Counts = dict[str, FlopCount]  # by part
_ZERO = FlopCount(0, 0, 0)
_START = _Place(LOSS_AND_GRADIENT, False)

# fmt: off
_ELEMENTWISE = frozenset((
    "abs", "acos", "acosh", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "cbrt",
    "ceil", "clamp", "cos", "cosh", "digamma", "div", "erf", "erf_inv", "erfc", "exp", "exp2",
    "expm1", "floor", "integer_pow", "lgamma", "log", "log1p", "logistic", "max", "min", "mul",
    "neg", "nextafter", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sinh", "sqrt",
    "square", "sub", "tan", "tanh",
))
_REDUCTIONS = frozenset((
    "argmax", "argmin", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "reduce_max",
    "reduce_min", "reduce_prod", "reduce_sum",
))
# fmt: on
# How JAX names, in an equation's name stack, what `jax.checkpoint` computes again on the way back.
_RECOMPUTED = "rematted_computation"


def count_flops(
    fn: Callable[..., Any], *args: Any, while_trip_count: int | None = None
) -> FlopCount:
    """Counts the operations of fn(*args) from its jaxpr.

    - The body of a scan (`lax.map`, a `fori_loop` of known length) counts as often as it runs.
    - A `while_loop` runs as often as its data say. Its body must do no matrix product, and then
      counts once, or `while_trip_count` must say how often every such loop runs.
    - Of the branches of a conditional, the one with the most matrix arithmetic counts.
    - A function spread over devices counts once for each of them.
    - A convolution counts kernel elements times outputs, padding included, without the zeros that a
      dilated input is spread with: a transposed convolution comes to the same as the matrix
      product of its input's pixels with all of its taps.

    Args:
      fn: the function.
      args: its arguments: arrays, or `jax.ShapeDtypeStruct`s in their place.
      while_trip_count: how often the body of a `while_loop` with matrix products runs.

    Returns:
      The count. Factorisations and triangular solves are not counted.

    Raises:
      ValueError: for a `while_loop` with matrix products and no `while_trip_count`.
    """
    return _total(_count(jax.make_jaxpr(fn)(*args).jaxpr, while_trip_count, _START))


def gradient_flops(
    loss: LossFn, model: LatentEBM, batch_size: int, image_shape: tuple[int, ...]
) -> FlopCount:
    """Counts the loss and its gradient on one batch, chains included. See `gradient_jaxpr`.

    Returns:
      The count of one training step without the optimisers, which compute no matrix product.
    """
    return _total(gradient_flops_by_part(loss, model, batch_size, image_shape))


def gradient_flops_by_part(
    loss: LossFn, model: LatentEBM, batch_size: int, image_shape: tuple[int, ...]
) -> dict[str, FlopCount]:
    """As `gradient_flops`, for each of the parts in `scopes.PARTS` that has any operation.

    What carries the name of no part counts as part of loss and gradient.
    """
    return _count(gradient_jaxpr(loss, model, batch_size, image_shape), None, _START)


def _count(jaxpr: Jaxpr, while_trip_count: int | None, place: _Place) -> _Counts:
    """The count of a jaxpr at a place, by part."""
    return _merged(
        _count_equation(eqn, while_trip_count, _inside(eqn, place)) for eqn in jaxpr.eqns
    )


def _inside(eqn: JaxprEqn, place: _Place) -> _Place:
    path = str(eqn.source_info.name_stack)
    return _Place(part_of(path, place.part), place.recomputing or _RECOMPUTED in path)


def _count_equation(eqn: JaxprEqn, while_trip_count: int | None, place: _Place) -> _Counts:
    name = eqn.primitive.name
    if name in ("dot_general", "conv_general_dilated"):
        flops = _dot_flops(eqn) if name == "dot_general" else _convolution_flops(eqn)
        return {place.part: FlopCount(flops, flops if place.recomputing else 0, 0)}
    if name in _ELEMENTWISE:
        return {place.part: _ZERO._replace(elementwise=sum(size(v) for v in eqn.outvars))}
    if name in _REDUCTIONS:
        return {place.part: _ZERO._replace(elementwise=sum(size(v) for v in eqn.invars))}
    inner = [_count(j, while_trip_count, place) for j in inner_jaxprs(eqn)]
    if name == "cond":
        return max(inner, key=_total)
    together = _merged(inner)
    times = _times(eqn, _total(together), while_trip_count)
    return {part: FlopCount(*(times * n for n in count)) for part, count in together.items()}


def _merged(every: Iterable[_Counts]) -> _Counts:
    """Sums, part by part."""
    merged: _Counts = {}
    for counts in every:
        for part, count in counts.items():
            merged[part] = _plus(merged.get(part, _ZERO), count)
    return merged


def _total(counts: _Counts) -> FlopCount:
    return reduce(_plus, counts.values(), _ZERO)


def _times(eqn: JaxprEqn, inner: FlopCount, while_trip_count: int | None) -> int:
    """How often the inner jaxprs of an equation run, over all devices."""
    match eqn.primitive.name:
        case "scan":
            return eqn.params["length"]
        case "while" if inner.matmul:
            if while_trip_count is None:
                raise ValueError("a while_loop with matrix products needs while_trip_count.")
            return while_trip_count
        case "shard_map":
            mesh, axes = eqn.params["mesh"], eqn.params["manual_axes"]
            return math.prod(mesh.shape[axis] for axis in axes)
        case _:
            return 1


def _dot_flops(eqn: JaxprEqn) -> int:
    (contracting, _), _ = eqn.params["dimension_numbers"]
    contracted = shape(eqn.invars[0])
    return 2 * size(eqn.outvars[0]) * math.prod(contracted[axis] for axis in contracting)


def _convolution_flops(eqn: JaxprEqn) -> int:
    kernel = shape(eqn.invars[1])
    outputs = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    taps = math.prod(kernel) // outputs  # kernel pixels times the input channels of a group
    holes = math.prod(eqn.params["lhs_dilation"])
    return 2 * size(eqn.outvars[0]) * taps // holes


def _plus(a: FlopCount, b: FlopCount) -> FlopCount:
    return FlopCount(*map(add, a, b))
