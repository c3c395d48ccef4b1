"""The prior's energy f_alpha: D - features - features - 1, leaky ReLU between (table 6)."""

from collections.abc import Callable

import chex
import haiku as hk
import jax

from thermo_ebm.types import Array


def make_prior_network(features: int, leak: float) -> Callable[[Array], Array]:
    """Returns f_alpha as a Haiku function, to be passed to `hk.transform`.

    Args:
      features: width of both hidden layers.
      leak: slope of the leaky ReLU below zero.

    Returns:
      A function from latents [num, latent_dim] to f_alpha(z) [num].
    """

    def prior_network(z: Array) -> Array:
        chex.assert_rank(z, 2)
        hidden = jax.nn.leaky_relu(hk.Linear(features, name="hidden_0")(z), leak)
        hidden = jax.nn.leaky_relu(hk.Linear(features, name="hidden_1")(hidden), leak)
        return hk.Linear(1, name="energy")(hidden)[:, 0]

    return prior_network
