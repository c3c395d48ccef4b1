"""What counting operations and counting bytes share: the step's jaxpr, and how to walk one."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.types import Array, Batch, Params, PRNGKey

LossFn = Callable[[Params, Batch, PRNGKey], tuple[Array, Any]]


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
    """The jaxpr of any function of parameters, batch and key. Arguments as `gradient_jaxpr`."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    specs = [((batch_size, *image_shape), "float32"), ((batch_size,), "int32")]
    specs.append(((batch_size,), "float32"))
    batch: Any = Batch(*(jax.ShapeDtypeStruct(*spec) for spec in specs))  # type: ignore[arg-type]
    params = jax.eval_shape(model.init, key)
    return jax.make_jaxpr(fn)(params, batch, key).jaxpr


def inner_jaxprs(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """Every jaxpr among an equation's parameters: of loops, branches, jit, checkpoint, ..."""
    for value in eqn.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if isinstance(one, ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, Jaxpr):
                yield one


def shape(variable: Any) -> tuple[int, ...]:
    """Of a variable or a literal."""
    return variable.aval.shape


def size(variable: Any) -> int:
    """Number of entries."""
    return math.prod(shape(variable))


def num_bytes(variable: Any) -> int:
    """Bytes of its buffer; none for what has no type of fixed size."""
    return size(variable) * getattr(variable.aval.dtype, "itemsize", 0)
