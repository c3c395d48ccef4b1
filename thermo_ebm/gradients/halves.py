"""The gradient from the two halves of a batch: the mean, and a difference that is pure noise.

Images are divided into two halves by their position in the complete batch. With g_A and g_B the
gradients of the halves and n_A + n_B = n,

    g = (n_A g_A + n_B g_B) / n,    d = sqrt(n_A n_B) / n (g_A - g_B),    E d = 0,
    E |d|^2 = tr Cov(g),

so that every step measures the noise of its own gradient without further arithmetic, and
|g|^2 - |d|^2 measures the signal (McCandlish et al. 2018).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum
from thermo_ebm.sampling.chains import Latents
from thermo_ebm.types import Array, Batch, Params

# (params, images [num, ...], latents) -> (each image's share of a loss [num], whose
# mean is differentiated, and terms with the images along their last axis)
Surrogate = Callable[[Params, Array, Latents], tuple[Array, Any]]


class HalvedSums(NamedTuple):
    """Sums over the images of each half on this device, which can be added over batches."""

    grads: Params  # gradients of the surrogate, [2, ...] each
    images: Array  # number of images, [2]


def halves_of(num: int, first: Array) -> tuple[Array, Array]:
    """The rows of a device in each half: even and odd positions in the complete batch.

    Args:
      num: rows on this device.
      first: position of the first row in the complete batch; the others follow it.

    Returns:
      Row numbers [2, ceil(num / 2)], and a mask of this shape: 1 for a row that exists, else 0.
    """
    first_row = (jnp.arange(2) - first) % 2  # of each half: 0 or 1
    rows = first_row[:, None] + 2 * jnp.arange(-(-num // 2))
    return jnp.minimum(rows, num - 1), (rows < num).astype(jnp.float32)


def halved_sums(
    surrogate: Surrogate, params: Params, batch: Batch, latents: Latents, together: bool = True
) -> tuple[HalvedSums, Any]:
    """Gradients of the surrogate summed over each half of this device's images, and its terms.

    Args:
      surrogate: see `Surrogate`, such as an objective's on a ladder; images are independent of
        each other.
      params: the parameters by group.
      batch: this device's share.
      latents: those of the same images.
      together: whether the gradients of both halves are computed at once, or one after the other,
        which takes half of the memory.
    """
    num = batch.images.shape[0]
    rows, exists = halves_of(num, batch.position[0])

    def of_half(rows: Array, mask: Array) -> tuple[Params, Any]:
        images, z = (
            batch.images[rows],
            jax.tree.map(partial(jnp.take, indices=rows, axis=2), latents),
        )

        def total(params: Params) -> tuple[Array, Any]:
            values, terms = surrogate(params, images, z)
            return jnp.sum(mask * values), terms

        return jax.grad(total, has_aux=True)(params)

    mask = exists * batch.mask[rows]
    if together:
        grads, terms = jax.vmap(of_half)(rows, mask)
    else:
        grads, terms = jax.lax.map(lambda half: of_half(*half), (rows, mask))
    half, place = (batch.position[0] + jnp.arange(num)) % 2, jnp.arange(num) // 2

    def in_order(leaf: Array) -> Array:
        """[2, ..., ceil(num / 2)] of both halves -> [..., num] in the order of the rows."""
        return jnp.moveaxis(jnp.moveaxis(leaf, -1, 1)[half, place], 0, -1)

    return HalvedSums(grads, mask.sum(axis=1)), jax.tree.map(in_order, terms)


def combine(sums: HalvedSums, axis_name: str | None) -> tuple[Params, Params]:
    """g and d from the sums of both halves, on all devices.

    Args:
      sums: those of this device, for one batch or added over several.
      axis_name: the pmapped axis the batch is spread over, if any.
    """
    grads, count = all_sum(sums, axis_name)
    num = count.sum()
    # sqrt(n_A n_B) / n (S_A / n_A - S_B / n_B), with the sums S of the halves.
    scale = jnp.sqrt(count[0] * count[1]) / num
    mean = jax.tree.map(lambda leaf: (leaf[0] + leaf[1]) / num, grads)
    difference = jax.tree.map(lambda leaf: scale * (leaf[0] / count[0] - leaf[1] / count[1]), grads)
    return mean, difference


def square(tree: Any) -> Array:
    """The squared norm of a gradient, a scalar."""
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def size(tree: Any) -> int:
    """Number of entries of a gradient."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
