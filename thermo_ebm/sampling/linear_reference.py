"""A reference that knows the image: the linear estimate of z from x, learned from the model itself.

Of pairs simulated from the model, z ~ p_alpha and x = g_beta(z) + sigma_l epsilon (or a draw of
another likelihood with the mean g), the linear minimum mean square error estimate of z is

    m(x) = mu_z + W (x - mu_g),    W = P^-1 J^T / s^2,    P = Cov(z)^-1 + J^T J / s^2,
    J = Cov(g, z) Cov(z)^-1,       s^2 = sigma_l^2 + the mean residual variance of g,

and q(z | x) = N(m(x), C) with C the covariance of the errors z - m(x) of pairs that were not used
for W (Evensen 1994 uses the same estimate for ensembles). No array is larger than [d, D] for images
of d numbers and latents of D. On a linear-Gaussian model q is the posterior.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from thermo_ebm.cholesky import cholesky_and_inverse
from thermo_ebm.types import Array

LEAST_WEIGHT = 0.02  # of a step's pairs in the running moments
# The least variance of q in any direction, as a fraction of sigma_0^2.
LEAST_VARIANCE = 0.005
_POWER_ITERATIONS = 20


class PairMoments(NamedTuple):
    """Running moments of simulated pairs, in which newer pairs weigh more."""

    updates: Array  # int32, how many batches of pairs they have
    mean_z: Array  # mu_z, [D]
    mean_image: Array  # mu_g, [d]
    latent_products: Array  # E[z z^T], [D, D]
    image_products: Array  # E[g z^T], [d, D]
    # E[|g|^2], and the variance of x given z above the least one of every data value; a scalar
    image_square: Array
    error_products: Array  # E[e e^T] of the errors e = z - m(x), [D, D]


class PairSums(NamedTuple):
    """Sums over new pairs, which can be added over devices."""

    num_pairs: Array
    z: Array
    image: Array
    latent_products: Array
    image_products: Array
    image_square: Array
    error_products: Array


class Pairs(NamedTuple):
    """Latents of the prior with images that the model makes of them."""

    z: Array  # [num, D]
    mean: Array  # g, the mean of x given z, [num, d]
    excess: Array  # sum over data values of the variance of x given z above the least, [num]
    x: Array  # a draw given z, [num, d]


class LinearReference(NamedTuple):
    """q(z | x) = N(m(x), C)."""

    mean_z: Array  # mu_z, [D]
    mean_image: Array  # mu_g, [d]
    gain: Array  # W, [D, d]
    root: Array  # the Cholesky factor of C, [D, D]
    precision: Array  # C^-1, [D, D]
    log_det: Array  # log det C, a scalar


def prior_moments(latent_dim: int, image_dim: int, prior_sigma: float) -> PairMoments:
    """The moments before any pair: q is p0 = N(0, sigma_0^2 I), whatever the image.

    Args:
      latent_dim: D.
      image_dim: d, numbers of an image.
      prior_sigma: sigma_0.
    """
    covariance = prior_sigma**2 * jnp.eye(latent_dim)
    return PairMoments(
        updates=jnp.zeros((), jnp.int32),
        mean_z=jnp.zeros(latent_dim),
        mean_image=jnp.zeros(image_dim),
        latent_products=covariance,
        image_products=jnp.zeros((image_dim, latent_dim)),
        image_square=jnp.zeros(()),
        error_products=covariance,
    )


def fit(
    moments: PairMoments,
    prior_sigma: float,
    least_variance: float,
    num_observed: Array | None = None,
) -> LinearReference:
    """q of the present moments.

    Args:
      moments: of pairs of the model.
      prior_sigma: sigma_0.
      least_variance: of a data value given z; sigma_l^2 of the Gaussian likelihood.
      num_observed: data values that are observed; in the pairs the others are 0, and then q does
        not depend on them. None: all.
    """
    num_values = len(moments.mean_image) if num_observed is None else num_observed
    mean_z, mean_image = moments.mean_z, moments.mean_image
    cov_z = moments.latent_products - jnp.outer(mean_z, mean_z)
    cov_image = moments.image_products - jnp.outer(mean_image, mean_z)
    precision_z = _inverse(cov_z)
    jacobian = cov_image @ precision_z
    total = moments.image_square - jnp.sum(mean_image**2)
    residual = jnp.maximum(total - jnp.sum(jacobian * cov_image), 0.0) / num_values
    variance = least_variance + residual
    precision = precision_z + jacobian.T @ jacobian / variance
    gain = _inverse(precision) @ jacobian.T / variance
    root, whitening = cholesky_and_inverse(
        _with_least_variance(moments.error_products, LEAST_VARIANCE * prior_sigma**2)
    )
    return LinearReference(
        mean_z=mean_z,
        mean_image=mean_image,
        gain=gain,
        root=root,
        precision=whitening.T @ whitening,
        log_det=2 * jnp.sum(jnp.log(jnp.diagonal(root))),
    )


def _inverse(covariance: Array) -> Array:
    _, whitening = cholesky_and_inverse(covariance)
    return whitening.T @ whitening


def _with_least_variance(covariance: Array, least: float) -> Array:
    """Adds a multiple of I if a variance in some direction is smaller than `least`.

    The smallest variance is found by power iteration on the inverse: an eigendecomposition would
    call LAPACK, see `cholesky_and_inverse`.
    """
    identity = jnp.eye(len(covariance))
    tiny = 1e-3 * least * identity
    inverse = _inverse(covariance + tiny)

    def multiply(direction: Array, _: None) -> tuple[Array, None]:
        product = inverse @ direction
        return product / jnp.linalg.norm(product), None

    # A direction with a component along every axis, of different sizes.
    first = 1.0 + jnp.arange(len(covariance)) / len(covariance)
    direction, _ = jax.lax.scan(multiply, first, None, length=_POWER_ITERATIONS)
    smallest = direction @ covariance @ direction
    return covariance + jnp.maximum(least - smallest, 0.0) * identity


def mean(reference: LinearReference, x: Array) -> Array:
    """m(x) of images [num, *image_shape]: [num, D]."""
    flat = x.reshape(x.shape[0], -1)
    chex.assert_axis_dimension(flat, 1, reference.mean_image.shape[0])
    return reference.mean_z + (flat - reference.mean_image) @ reference.gain.T


def log_density(reference: LinearReference, center: Array, z: Array) -> Array:
    """log q(z | x), normalised, in nats.

    Args:
      reference: q.
      center: m(x) of each latent's image, [num, D].
      z: latents [num, D].

    Returns:
      [num].
    """
    chex.assert_equal_shape([center, z])
    error = z - center
    square = jnp.sum(error * (error @ reference.precision), axis=-1)
    return -(square + reference.log_det + z.shape[-1] * math.log(2 * math.pi)) / 2


def draw(reference: LinearReference, center: Array, noise: Array) -> Array:
    """z ~ q(z | x) of standard normal numbers [num, D] and m(x) [num, D]: [num, D]."""
    return center + noise @ reference.root.T


def pair_sums(reference: LinearReference, pairs: Pairs, weights: Array) -> PairSums:
    """Sums over new pairs; the errors are those of `reference`, which has not seen the pairs.

    Args:
      reference: q before these pairs.
      pairs: simulated from the model.
      weights: 1 for a pair that counts, 0 for padding, [num].
    """
    z, g = pairs.z, pairs.mean
    error = z - mean(reference, pairs.x)
    weighted_z = weights[:, None] * z
    return PairSums(
        num_pairs=weights.sum(),
        z=weighted_z.sum(axis=0),
        image=weights @ g,
        latent_products=weighted_z.T @ z,
        image_products=g.T @ weighted_z,
        image_square=weights @ (jnp.sum(g**2, axis=-1) + pairs.excess),
        error_products=(weights[:, None] * error).T @ error,
    )


def updated(
    moments: PairMoments, sums: PairSums, least_weight: float = LEAST_WEIGHT
) -> PairMoments:
    """The moments with new pairs, whose weight is max(least_weight, 1 / (updates + 2)).

    The moments before any pair count like a batch of pairs, so that Cov(z) stays invertible when
    there are fewer pairs than latent dimensions.
    """
    weight = jnp.maximum(least_weight, 1.0 / (moments.updates + 2))
    means = jax.tree.map(lambda leaf: leaf / sums.num_pairs, sums[1:])
    averages = jax.tree.map(lambda a, b: (1 - weight) * a + weight * b, moments[1:], tuple(means))
    return PairMoments(moments.updates + 1, *averages)
