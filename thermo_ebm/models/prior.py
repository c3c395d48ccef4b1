"""Priors over latents, and the network of the paper's tilt.

    p_alpha(z) ~ exp(f_alpha(z)) p0(z)                                    eq. 1

f_alpha is the tilt, the negative energy; p0 is the reference prior, from which chains start.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from thermo_ebm.randomness import STEP_NOISE, normal
from thermo_ebm.types import Array, PRNGKey, PyTree, TiltFn


class Prior(NamedTuple):
    """A density over latents with parameters alpha."""

    # (alpha, z [num, latent_dim]) -> log p_alpha(z) up to a constant, [num]
    log_density: Callable[[PyTree, Array], Array]
    # keys of chains [num] -> z_0 ~ p0, [num, latent_dim]
    sample_reference: Callable[[PRNGKey], Array]
    # (alpha, keys [num]) -> z ~ p_alpha, [num, latent_dim]; None where only chains sample it
    exact_sample: Callable[[PyTree, PRNGKey], Array] | None = None
    # alpha -> log of the integral of exp(log_density), a scalar; None where it is unknown
    log_normalizer: Callable[[PyTree], Array] | None = None
    # log_density less this constant is f_alpha + log p0 with a normalised p0
    log_constant: float = 0.0


def tilted_gaussian(tilt: TiltFn, latent_dim: int, sigma: float) -> Prior:
    """The paper's prior, with the reference p0 = N(0, sigma_0^2 I).

    Args:
      tilt: f_alpha, (alpha, z [num, latent_dim]) -> [num].
      latent_dim: D.
      sigma: sigma_0.
    """

    def log_density(alpha: PyTree, z: Array) -> Array:
        return tilt(alpha, z) - jnp.sum(z**2, axis=-1) / (2 * sigma**2)

    def sample_reference(keys: PRNGKey) -> Array:
        return sigma * normal(keys, STEP_NOISE, latent_dim)

    log_constant = latent_dim / 2 * math.log(2 * math.pi * sigma**2)
    return Prior(log_density, sample_reference, log_constant=log_constant)


def standard_gaussian(tilt: TiltFn, latent_dim: int, sigma: float) -> Prior:
    """N(0, sigma^2 I) without a tilt: exact draws, and no constant to estimate.

    Args:
      tilt: zero everywhere; not used.
      latent_dim: D.
      sigma: sigma_0.
    """
    del tilt

    def log_density(alpha: PyTree, z: Array) -> Array:
        return -jnp.sum(z**2, axis=-1) / (2 * sigma**2)

    def sample(keys: PRNGKey) -> Array:
        return sigma * normal(keys, STEP_NOISE, latent_dim)

    log_constant = latent_dim / 2 * math.log(2 * math.pi * sigma**2)
    return Prior(
        log_density,
        sample_reference=sample,
        exact_sample=lambda alpha, keys: sample(keys),
        log_normalizer=lambda alpha: jnp.float32(log_constant),
        log_constant=log_constant,
    )


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
