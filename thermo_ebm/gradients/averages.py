"""The exponential moving average of the parameters (Polyak & Juditsky 1992; Kingma & Ba 2015, 7.2).

With the decay d, the average after k updates is

    a_k = (1 - d) / (1 - d^k) sum_j d^(k - j) theta_j,    j = 1 .. k,

the mean of the parameters after each update, with weights that fall by d from one to the one before
and sum to 1. The parameters before the first update have no weight.
"""

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array, PyTree


def update_average(average: PyTree, params: PyTree, decay: float, updates: Array) -> PyTree:
    """a_k from a_(k-1) and theta_k.

    >>> import jax.numpy as jnp
    >>> print(update_average(jnp.array([8.0]), jnp.array([2.0]), 0.9, jnp.array(1)))  # a_1
    [2.]

    Args:
      average: a_(k-1); of any finite value for k = 1.
      params: theta_k, in the same structure.
      decay: d, in (0, 1).
      updates: k, at least 1, a scalar.
    """
    log_decay = jnp.log(jnp.float32(decay))
    weight = jnp.expm1(log_decay) / jnp.expm1(updates * log_decay)  # (1 - d) / (1 - d^k)
    return jax.tree.map(lambda a, theta: a + weight * (theta - a), average, params)
