"""Priors over latents, and the networks of their tilts; `PRIORS` has them by name.

    p_alpha(z) ~ exp(f_alpha(z)) p0(z)                                    eq. 1

    mlp           f_alpha is a network of all latent dimensions, the paper's
    gaussian      f_alpha = 0
    factorized    f_alpha(z) = sum_d f_d(z_d)

f_alpha is the tilt, the negative energy; p0 is the reference prior, from which chains start. The
last two have exact draws and an exact log Z_alpha: the density at t = 0 needs no chain.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import chex
import haiku as hk
import jax
import jax.numpy as jnp

from thermo_ebm.randomness import STEP_NOISE, normal, uniform
from thermo_ebm.types import Array, PRNGKey, PyTree, TiltFn

# (alpha, z [num, latent_dim]) -> f_d(z_d), [num, latent_dim]
Tilts = Callable[[PyTree, Array], Array]


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


GRID_POINTS = 513  # of each latent dimension of a factorised prior
GRID_SIGMAS = 8.0  # on either side; beyond, the prior must have no mass


def factorized(tilts: Tilts, tilt: TiltFn, latent_dim: int, sigma: float) -> Prior:
    """A product of one-dimensional densities exp(f_d(z_d)) N(z_d; 0, sigma^2).

    Z_alpha is a product of trapezium sums over a grid, which converge faster than any power of its
    spacing for smooth f_d. Draws invert the distribution function of the density that is linear
    between grid points (the latent prior of KAEM, Raj 2025); draws are differentiable in alpha.

    Args:
      tilts: f_d(z_d), (alpha, z [num, latent_dim]) -> [num, latent_dim].
      tilt: their sum over d, perhaps in another precision.
      latent_dim: D.
      sigma: sigma_0.
    """
    base = tilted_gaussian(tilt, latent_dim, sigma)
    grid = sigma * jnp.linspace(-GRID_SIGMAS, GRID_SIGMAS, GRID_POINTS)
    spacing = 2 * GRID_SIGMAS * sigma / (GRID_POINTS - 1)

    def log_densities(alpha: PyTree) -> Array:
        """Of each dimension on the grid, [D, GRID_POINTS]."""
        points = jnp.broadcast_to(grid[:, None], (GRID_POINTS, latent_dim))
        return (tilts(alpha, points) - points**2 / (2 * sigma**2)).T

    def log_normalizer(alpha: PyTree) -> Array:
        return jnp.sum(jax.nn.logsumexp(log_densities(alpha), axis=1) + math.log(spacing))

    def exact_sample(alpha: PyTree, keys: PRNGKey) -> Array:
        values = log_densities(alpha)
        density = jnp.exp(values - values.max(axis=1, keepdims=True))
        draws = jax.vmap(_inverse_transform)(density, uniform(keys, STEP_NOISE, latent_dim).T)
        return grid[0] + spacing * draws.T

    return base._replace(exact_sample=exact_sample, log_normalizer=log_normalizer)


def _inverse_transform(density: Array, uniforms: Array) -> Array:
    """Where the distribution function of a piecewise linear density has these values.

    Args:
      density: at equally spaced points, unnormalised, [num_points].
      uniforms: in (0, 1), [num].

    Returns:
      Places in units of the spacing, from the first point, [num].
    """
    cumulative = jnp.cumsum((density[:-1] + density[1:]) / 2)
    mass = uniforms * cumulative[-1]
    cell = jnp.minimum(jnp.searchsorted(cumulative, mass), len(cumulative) - 1)
    left, rise = density[cell], density[cell + 1] - density[cell]
    rest = mass - jnp.where(cell > 0, cumulative[cell - 1], 0.0)
    # The root s in [0, 1] of left s + rise s^2 / 2 = rest, without cancellation.
    tiny = jnp.finfo(density.dtype).tiny
    root = jnp.sqrt(jnp.maximum(left**2 + 2 * rise * rest, tiny))
    return cell + jnp.clip(2 * rest / (left + root), 0.0, 1.0)


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
    activate = _activation(leak, activation)

    def prior_network(z: Array) -> Array:
        chex.assert_rank(z, 2)
        hidden = activate(hk.Linear(features, name="hidden_0")(z))
        hidden = activate(hk.Linear(features, name="hidden_1")(hidden))
        return hk.Linear(1, name="tilt")(hidden)[:, 0]

    return prior_network


def make_factorized_network(
    features: int, leak: float, activation: str = "leaky_relu"
) -> Callable[[Array], Array]:
    """Returns the tilts f_d of all dimensions as a Haiku function, each with one hidden layer.

    Args:
      features: width of each dimension's hidden layer.
      leak: slope of the leaky ReLU below zero.
      activation: of the hidden layers, one of `ACTIVATIONS`.

    Returns:
      A function from latents [num, latent_dim] to f_d(z_d) [num, latent_dim].

    Raises:
      ValueError: for an unknown activation.
    """
    activate = _activation(leak, activation)

    def factorized_network(z: Array) -> Array:
        chex.assert_rank(z, 2)
        shape = (z.shape[1], features)
        normal_init = hk.initializers.TruncatedNormal
        # Biases too: with a bias of zero all units of a dimension would change sign at z_d = 0.
        slope = hk.get_parameter("slope", shape, init=normal_init(1.0))
        bias = hk.get_parameter("bias", shape, init=normal_init(1.0))
        height = hk.get_parameter("height", shape, init=normal_init(math.prod(shape) ** -0.5))
        hidden = activate(z[:, :, None] * slope + bias)
        return jnp.einsum("ndh,dh->nd", hidden, height)

    return factorized_network


def _activation(leak: float, name: str) -> Callable[[Array], Array]:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, not {name!r}.")
    return jax.nn.gelu if name == "gelu" else lambda x: jax.nn.leaky_relu(x, leak)


class PriorSettings(NamedTuple):
    """The fields of `config.model` that priors use."""

    latent_dim: int
    features: int
    leak: float
    activation: str


class PriorParts(NamedTuple):
    """What a prior adds to a model."""

    init: Callable[[PRNGKey], PyTree]  # -> alpha
    tilt: TiltFn  # f_alpha
    make_prior: Callable[[TiltFn, int, float], Prior]  # (tilt, latent_dim, sigma_0) -> the prior


def _mlp(settings: PriorSettings) -> PriorParts:
    init, tilt = _transform(make_prior_network, settings)
    return PriorParts(init, tilt, tilted_gaussian)


def _gaussian(settings: PriorSettings) -> PriorParts:
    del settings
    return PriorParts(
        init=lambda key: {}, tilt=lambda alpha, z: jnp.zeros(len(z)), make_prior=standard_gaussian
    )


def _factorized(settings: PriorSettings) -> PriorParts:
    init, tilts = _transform(make_factorized_network, settings)
    return PriorParts(
        init, lambda alpha, z: tilts(alpha, z).sum(axis=-1), partial(factorized, tilts)
    )


def _transform(
    make_network: Callable[[int, float, str], Callable[[Array], Array]], settings: PriorSettings
) -> tuple[Callable[[PRNGKey], PyTree], Callable[[PyTree, Array], Array]]:
    """The first parameters of a network and its values, as pure functions."""
    network = make_network(settings.features, settings.leak, settings.activation)
    pure = cast(hk.Transformed, hk.without_apply_rng(hk.transform(network)))
    return lambda key: pure.init(key, jnp.zeros((1, settings.latent_dim))), pure.apply


# By the names of `model.prior.name`.
PRIORS: dict[str, Callable[[PriorSettings], PriorParts]] = {
    "mlp": _mlp,
    "gaussian": _gaussian,
    "factorized": _factorized,
}
