"""Mean and variance over the entries of one gradient vector: the paper's "Train Grad Var"."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, Params


class GradientStatistics(NamedTuple):
    """Mean and variance over the *entries* of one gradient vector, each a scalar."""

    mean: Array
    var: Array  # over the entries of alpha and beta together: the paper's "Train Grad Var"
    var_prior: Array  # over those of alpha alone; nan without any
    var_generator: Array  # over those of beta alone
    var_encoder: Array  # over those of phi alone; nan without an encoder


def gradient_statistics(grads: Params) -> GradientStatistics:
    """Mean and population variance over the entries of a gradient.

    >>> grads = {"prior": jnp.array([1.0, 3.0]), "generator": jnp.array([-2.0, -2.0])}
    >>> statistics = gradient_statistics(grads)
    >>> float(statistics.mean), float(statistics.var), float(statistics.var_prior)
    (0.0, 4.5, 1.0)

    Args:
      grads: the gradient by group of parameters.

    Returns:
      The statistics, in the gradient's own type.
    """
    mean, var = _mean_and_var(grads)
    of_groups = (grads.get(name, {}) for name in ("prior", "generator", "encoder"))
    return GradientStatistics(mean, var, *(_mean_and_var(part)[1] for part in of_groups))


def _mean_and_var(tree: Params) -> tuple[Array, Array]:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return jnp.full((), jnp.nan), jnp.full((), jnp.nan)
    size = sum(leaf.size for leaf in leaves)
    mean = jnp.sum(jnp.stack([leaf.sum() for leaf in leaves])) / size
    # Relative to the mean: a difference of two large sums would lose the variance in float32.
    squares = jnp.stack([jnp.sum((leaf - mean) ** 2) for leaf in leaves])
    return mean, jnp.sum(squares) / size
