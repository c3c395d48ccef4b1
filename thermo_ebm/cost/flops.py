"""Counts the arithmetic of a traced function, including loops.

A compiler's cost analysis counts a loop's body once, whatever its trip count. Here the jaxpr is
walked instead, and a body counts as often as it runs.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.scopes import LOSS_AND_GRADIENT, part_of
from thermo_ebm.types import Batch, LossFn, Params, PRNGKey


class FlopCount(NamedTuple):
    """Operations of one call; a multiply-add is two."""

    matmul: int  # of matrix products and convolutions, including recomputed ones
    recomputed: int  # the part of `matmul` that `jax.checkpoint` recomputes
    elementwise: int  # results of arithmetic primitives, plus arguments of reductions

    @property
    def useful(self) -> int:
        """Of matrix products and convolutions, without what is recomputed."""
        return self.matmul - self.recomputed


class _Place(NamedTuple):
    """Where an equation stands."""

    part: str  # of the step
    recomputing: bool  # whether `jax.checkpoint` computes the equation for the second time


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
# JAX's name, in an equation's name stack, for what `jax.checkpoint` computes again.
_RECOMPUTED = "rematted_computation"


def count_flops(
    fn: Callable[..., Any], *args: Any, while_trip_count: int | None = None
) -> FlopCount:
    """Counts the operations of fn(*args) from its jaxpr.

    - The body of a scan (`lax.map`, a `fori_loop` of known length) counts as often as it runs.
    - How often a `while_loop` runs depends on its data. If its body has no matrix product, the body
      counts once; otherwise `while_trip_count` must say how often all such loops run.
    - Of the branches of a conditional, the branch with the most matrix arithmetic counts.
    - A function that is mapped over devices counts once per device.
    - A convolution counts kernel elements times outputs, including padding, without the zeros
      inserted by input dilation: a transposed convolution counts as much as the matrix product of
      its input's pixels with all of its taps.

    Args:
      fn: the function.
      args: its arguments: arrays or `jax.ShapeDtypeStruct`s.
      while_trip_count: how often the body of a `while_loop` with matrix products runs.

    Returns:
      The count, without factorisations and triangular solves.

    Raises:
      ValueError: a `while_loop` has matrix products and there is no `while_trip_count`.
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

    Operations without the name of a part count as loss and gradient.
    """
    return _count(gradient_jaxpr(loss, model, batch_size, image_shape), None, _START)


def _count(jaxpr: Jaxpr, while_trip_count: int | None, place: _Place) -> _Counts:
    """The count of a jaxpr at a place, by part."""
    return _sum_by_part(_count_equation(eqn, while_trip_count, place) for eqn in jaxpr.eqns)


def _count_equation(eqn: JaxprEqn, while_trip_count: int | None, outer: _Place) -> _Counts:
    name, path = eqn.primitive.name, str(eqn.source_info.name_stack)
    place = _Place(part_of(path, outer.part), outer.recomputing or _RECOMPUTED in path)
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
    body = _sum_by_part(inner)
    trips = _trip_count(eqn, _total(body), while_trip_count)
    return {part: FlopCount(*(trips * n for n in count)) for part, count in body.items()}


def _sum_by_part(terms: Iterable[_Counts]) -> _Counts:
    sums: _Counts = {}
    for counts in terms:
        for part, count in counts.items():
            sums[part] = _plus(sums.get(part, _ZERO), count)
    return sums


def _total(counts: _Counts) -> FlopCount:
    return reduce(_plus, counts.values(), _ZERO)


def _trip_count(eqn: JaxprEqn, inner: FlopCount, while_trip_count: int | None) -> int:
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


def gradient_jaxpr(
    loss: LossFn, model: LatentEBM, batch_size: int, image_shape: tuple[int, ...]
) -> Jaxpr:
    """The jaxpr of a loss and its gradient on one batch; nothing is computed.

    Args:
      loss: (params, batch, key) -> loss and its parts, without a device axis.
      model: the model.
      batch_size: examples of the batch.
      image_shape: [height, width, channels].

    Returns:
      The jaxpr, of parameters, batch and key.
    """
    return batch_jaxpr(jax.value_and_grad(loss, has_aux=True), model, batch_size, image_shape)


def batch_jaxpr(
    fn: Callable[[Params, Batch, PRNGKey], Any],
    model: LatentEBM,
    batch_size: int,
    image_shape: tuple[int, ...],
) -> Jaxpr:
    """The jaxpr of a function of parameters, batch and key. Arguments as for `gradient_jaxpr`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    specs = [((batch_size, *image_shape), "float32"), ((batch_size,), "int32")]
    specs.append(((batch_size,), "float32"))
    batch: Any = Batch(*(jax.ShapeDtypeStruct(*spec) for spec in specs))  # type: ignore[arg-type]
    params = jax.eval_shape(model.init, key)
    return jax.make_jaxpr(fn)(params, batch, key).jaxpr


def inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters: of loops, branches, jit, checkpoint, ..."""
    for value in eqn.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def shape(variable: Any) -> tuple[int, ...]:
    """The shape of a variable or a literal."""
    return variable.aval.shape


def size(variable: Any) -> int:
    """Number of entries of a variable or a literal."""
    return math.prod(shape(variable))


def num_bytes(variable: Any) -> int:
    """Bytes of a variable's buffer; 0 for a type without a fixed size."""
    return size(variable) * getattr(variable.aval.dtype, "itemsize", 0)
