"""How far the mean gradient is from that of chains that have arrived.

Of each of J batches, h_j is the gradient as a step computes it and a_j that over the same chains
continued until they have arrived (`sampling/arrival.py`). With d_j = h_j - a_j and independent
images and chains in each batch, the squared norm of the bias b = E d has the unbiased estimate

    |b|^2 ~ sum over j != k of d_j . d_k / (J (J - 1)),

whose standard error comes from leaving out one batch at a time. The bias is stated relative to the
root mean square of a step's gradient, E |h|^2, which does not vanish when training ends, and to the
norm of the mean gradient |E a|.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, PyTree


class GradientBias(NamedTuple):
    """Of one group of parameters; negative values are estimates of a squared norm below zero."""

    bias: Array  # |b| / sqrt(E |h|^2), with the sign of the estimate of |b|^2
    stderr: Array  # its standard error
    of_mean: Array  # |b| / |E a|, inf if that norm is not resolved


def gradient_bias(used: PyTree, arrived: PyTree) -> GradientBias:
    """The bias of one group of parameters.

    Args:
      used: h_j, gradients as a step computes them, [J, ...] each, J at least 3.
      arrived: a_j, of the same images and the chains' continuations, [J, ...] each.
    """
    difference = jax.tree.map(jnp.subtract, used, arrived)
    products = _products(difference)
    square, stderr = _squared_mean(products)
    mean_square, mean_stderr = _squared_mean(_products(arrived))
    scale = jnp.sqrt(jnp.trace(_products(used)) / len(products))
    size = jnp.sqrt(jnp.abs(square))
    # Near 0 the error of a square root is that of the root of the error.
    error = stderr / (2 * jnp.maximum(size, jnp.sqrt(stderr)))
    is_known = mean_square > 2 * mean_stderr
    mean_norm = jnp.sqrt(jnp.where(is_known, mean_square, 1.0))
    return GradientBias(
        bias=jnp.sign(square) * size / scale,
        stderr=error / scale,
        of_mean=jnp.where(is_known, size / mean_norm, jnp.inf),
    )


def _products(gradients: PyTree) -> Array:
    """d_j . d_k, [J, J]."""
    flat = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(gradients)]
    return sum((leaf @ leaf.T for leaf in flat), start=jnp.zeros(()))


def _squared_mean(products: Array) -> tuple[Array, Array]:
    """|E d|^2 without bias, and its jackknife standard error, from d_j . d_k."""
    num = products.shape[0]
    total = products.sum() - jnp.trace(products)
    estimate = total / (num * (num - 1))
    without = total - 2 * (products.sum(axis=1) - jnp.diagonal(products))
    left_out = without / ((num - 1) * (num - 2))
    variance = (num - 1) / num * jnp.sum((left_out - left_out.mean()) ** 2)
    return estimate, jnp.sqrt(variance)
