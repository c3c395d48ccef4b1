"""Gaussians fitted to a batch's latents at each temperature, for the KL terms (eq. 25).

A batch is usually smaller than the latent dimension, so that the sample covariance is singular.
The covariance is shrunk towards the scaled identity, S* = (1 - rho) S + rho (tr S / D) I.
"""

import chex
import jax.numpy as jnp

from thermo_ebm.collectives import all_sum, for_local_use, masked_mean
from thermo_ebm.thermo.integral import Moments
from thermo_ebm.types import Array

# Added to every variance, in units of latent^2: a batch of one example has zero variance.
VARIANCE_FLOOR = 1e-6


def oas(cov: Array, count: Array) -> Array:
    """Oracle-approximating shrinkage (Chen et al. 2010, eq. 23) for Gaussian samples.

    Terms of order 2 / dim are omitted, as in the authors' code and in scikit-learn.

    Args:
      cov: sample covariances [..., dim, dim], normalised by count.
      count: number of examples, a scalar.

    Returns:
      rho in [0, 1], [...]; 1 where all entries of a covariance are equal.
    """
    dim = cov.shape[-1]
    mean_square = jnp.mean(cov**2, axis=(-2, -1))
    scale = jnp.trace(cov, axis1=-2, axis2=-1) / dim
    numerator, denominator = mean_square + scale**2, (count + 1) * (mean_square - scale**2 / dim)
    positive = denominator > 0
    safe = jnp.where(positive, denominator, 1.0)
    return jnp.where(positive, jnp.clip(numerator / safe, 0.0, 1.0), 1.0)


def shrunk_moments(z: Array, mask: Array, axis_name: str | None = None) -> Moments:
    """Means and shrunk covariances over the complete batch, on all devices.

    Args:
      z: latents [num_temperatures + 1, num, latent_dim].
      mask: [num], 1 for an example and 0 for padding.
      axis_name: the pmapped axis the batch is spread over, if any.

    Returns:
      The moments; covariances are positive definite whatever the batch size.
    """
    chex.assert_rank([z, mask], [3, 1])
    chex.assert_equal(z.shape[1], mask.shape[0])
    mean = masked_mean(jnp.moveaxis(z, 1, -1), mask, axis_name)
    centred = (z - for_local_use(mean, axis_name)[:, None]) * mask[:, None]
    products = jnp.einsum("tni,tnj->tij", centred, centred)
    products, count = all_sum((products, mask.sum()), axis_name)
    cov = products / count
    rho = oas(cov, count)[:, None, None]
    identity = jnp.eye(z.shape[-1], dtype=z.dtype)
    trace = jnp.trace(cov, axis1=-2, axis2=-1)[:, None, None]
    # Rounding changes eigenvalues by the order of eps * trace: a singular covariance that is hardly
    # shrunk would have negative eigenvalues.
    floor = VARIANCE_FLOOR + 2 * jnp.finfo(z.dtype).eps * trace
    return Moments(mean, (1 - rho) * cov + (rho * trace / z.shape[-1] + floor) * identity)
