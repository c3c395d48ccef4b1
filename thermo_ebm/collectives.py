"""Sums and means over a batch whose examples are spread over devices."""

from functools import partial

import chex
import jax

from thermo_ebm.types import Array


def all_sum(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """Sums a tree over the devices of a pmapped axis; unchanged where there is no axis."""
    return tree if axis_name is None else _psum(tree, axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _psum(tree: chex.ArrayTree, axis_name: str) -> chex.ArrayTree:
    return jax.lax.psum(tree, axis_name)


def _psum_forward(tree: chex.ArrayTree, axis_name: str) -> tuple[chex.ArrayTree, None]:
    return _psum(tree, axis_name), None


def _psum_backward(axis_name: str, residual: None, cotangent: chex.ArrayTree) -> tuple:
    # Every device computes the same loss from the sum, so each already holds the whole
    # cotangent: a device's gradient is then its own examples' share, and the shares add up to
    # the gradient. (The transpose of a psum differs between JAX versions; this one does not.)
    # Where the sum is used on a device's own examples again, see `for_local_use`.
    del axis_name, residual
    return (cotangent,)


_psum.defvjp(_psum_forward, _psum_backward)


def for_local_use(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """Unchanged: marks a sum over devices that each device now applies to its own examples.

    Its gradient is then spread over the devices too, a share from each one's examples, and is
    summed here; without the mark each device would go on with its own share alone.
    """
    return tree if axis_name is None else _identity(tree, axis_name)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _identity(tree: chex.ArrayTree, axis_name: str) -> chex.ArrayTree:
    del axis_name
    return tree


def _identity_forward(tree: chex.ArrayTree, axis_name: str) -> tuple[chex.ArrayTree, None]:
    return _identity(tree, axis_name), None


def _identity_backward(axis_name: str, residual: None, cotangent: chex.ArrayTree) -> tuple:
    del residual
    return (jax.lax.psum(cotangent, axis_name),)


_identity.defvjp(_identity_forward, _identity_backward)


def masked_mean(values: Array, mask: Array, axis_name: str | None) -> Array:
    """Mean over the whole batch of values [..., num] whose mask [num] is 1."""
    chex.assert_equal_shape_suffix([values, mask], 1)
    total, count = all_sum((values @ mask, mask.sum()), axis_name)
    return total / count
