"""The prior's tilt f_alpha, the negative energy: D - features - features - 1 (table 6)."""

from collections.abc import Callable

import chex
import haiku as hk
import jax

from thermo_ebm.types import Array

# The paper's tilt has leaky ReLUs. Its score jumps where a unit changes sign, and a derivative
# through the steps of a chain ("langevin" gradients) ignores the jumps; a smooth unit has none.
ACTIVATIONS = ("leaky_relu", "gelu")


def make_prior_network(
    features: int, leak: float, activation: str = "leaky_relu"
) -> Callable[[Array], Array]:
    """Returns f_alpha as a Haiku function, to be passed to `hk.transform`.

    Args:
      features: width of both hidden layers.
      leak: slope of the leaky ReLU below zero.
      activation: of both hidden layers, one of `ACTIVATIONS`.

    Returns:
      A function from latents [num, latent_dim] to f_alpha(z) [num].

    Raises:
      ValueError: for an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {activation!r}.")

    def activate(x: Array) -> Array:
        return jax.nn.gelu(x) if activation == "gelu" else jax.nn.leaky_relu(x, leak)

    def prior_network(z: Array) -> Array:
        chex.assert_rank(z, 2)
        hidden = activate(hk.Linear(features, name="hidden_0")(z))
        hidden = activate(hk.Linear(features, name="hidden_1")(hidden))
        return hk.Linear(1, name="tilt")(hidden)[:, 0]

    return prior_network
