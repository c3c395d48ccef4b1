"""Functions over a leading axis, a chunk of entries at a time, which bounds their memory."""

from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.types import Array


def map_in_chunks(
    fn: Callable[[chex.ArrayTree], chex.ArrayTree], arrays: chex.ArrayTree, chunk: int
) -> chex.ArrayTree:
    """fn over the leading axis, `chunk` entries at a time, one chunk after another.

    Args:
      fn: maps arrays [m, ...] of any m to arrays [m, ...] with independent entries.
      arrays: a tree of arrays [num, ...].
      chunk: number of entries at once; 0 is all.

    Returns:
      Arrays [num, ...], equal to fn(arrays).
    """
    num = jax.tree.leaves(arrays)[0].shape[0]
    if chunk == 0 or chunk >= num:
        return fn(arrays)
    full = num // chunk * chunk
    head = jax.tree.map(lambda a: a[:full].reshape(-1, chunk, *a.shape[1:]), arrays)
    out = jax.lax.map(fn, head)
    out = jax.tree.map(lambda a: a.reshape(full, *a.shape[2:]), out)
    if full == num:
        return out
    rest = fn(jax.tree.map(lambda a: a[full:], arrays))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), out, rest)


Bind = Callable[[Callable[..., chex.ArrayTree]], Callable[[Array], chex.ArrayTree]]


def bind_in_chunks(fixed: tuple[Array, ...], chunk: int) -> Bind:
    """Returns `bind` with bind(fn)(z) = fn(*fixed, z), at most `chunk` rows at a time, for TPUs.

    All chunks have one size: rows are repeated where the last chunk would be smaller, since a
    smaller rest would cost as much as a full chunk. `fixed` is divided once, and not in every step
    of a loop over z. This has been compiled for TPUs but never run on one.

    Args:
      fixed: the first arguments of functions fn, which map arrays [m, ...] of any m to arrays
        [m, ...] with independent entries; [num, ...] each.
      chunk: number of rows at once; 0 is all.
    """
    num = fixed[0].shape[0]
    if chunk == 0 or chunk >= num:
        return lambda fn: partial(fn, *fixed)
    count = -(-num // chunk)
    rest = -num % count

    def divide(array: Array) -> Array:
        full = jnp.pad(array, [(0, rest), *[(0, 0)] * (array.ndim - 1)], mode="edge")
        return full.reshape(count, -1, *array.shape[1:])

    # Without the barrier XLA repeats and rearranges images in every step of a loop over z.
    divided = jax.lax.optimization_barrier(tuple(map(divide, fixed)))

    def bind(fn: Callable[..., chex.ArrayTree]) -> Callable[[Array], chex.ArrayTree]:
        def mapped(z: Array) -> chex.ArrayTree:
            out = jax.lax.map(lambda arrays: fn(*arrays), (*divided, divide(z)))
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:num], out)

        return mapped

    return bind


def tile(x: Array, times: int) -> Array:
    """[num, ...] -> [times * num, ...], the complete batch repeated for each temperature."""
    return jnp.broadcast_to(x, (times, *x.shape)).reshape(-1, *x.shape[1:])
