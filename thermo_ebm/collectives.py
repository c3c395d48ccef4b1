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
    # Every device computes the same loss from the sum, so that each already has the
    # complete cotangent: the gradient on a device is the share of its own examples, and the shares
    # add up to the gradient. (The transpose of a psum differs between JAX versions; this one does
    # not.) Where the sum is used on a device's own examples again, see `for_local_use`.
    del axis_name, residual
    return (cotangent,)


_psum.defvjp(_psum_forward, _psum_backward)


def for_local_use(tree: chex.ArrayTree, axis_name: str | None) -> chex.ArrayTree:
    """Identity that marks a sum over devices which each device applies to its own examples.

    The gradient of such a sum is spread over the devices, a share from the examples of each, and is
    summed here; without the mark, each device would use only its own share.
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
    """Mean over the complete batch of the values [..., num] whose mask [num] is 1."""
    chex.assert_equal_shape_suffix([values, mask], 1)
    total, count = all_sum((values @ mask, mask.sum()), axis_name)
    return total / count
