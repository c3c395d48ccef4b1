"""Cholesky factor and its inverse by elimination in plain operations."""

import jax
import jax.numpy as jnp

from thermo_ebm.types import Array


@jax.custom_jvp
def cholesky_and_inverse(cov: Array) -> tuple[Array, Array]:
    """Cholesky factor L of a positive definite [dim, dim], and L^-1.

    Computed by elimination in plain operations instead of LAPACK: XLA spreads a batch of LAPACK
    calls over the same threads that wait for the calls, which can hang with few cores.
    """
    dim = cov.shape[-1]

    def eliminate(rest: Array, i: Array) -> tuple[Array, Array]:
        row = rest[i] * jax.lax.rsqrt(rest[i, i])
        below = jnp.where(jnp.arange(dim) > i, row[:dim], 0.0)
        return rest - jnp.outer(below, row), row

    beside = jnp.concatenate([cov, jnp.eye(dim, dtype=cov.dtype)], axis=1)
    _, rows = jax.lax.scan(eliminate, beside, jnp.arange(dim))
    return jnp.triu(rows[:, :dim]).T, rows[:, dim:]


@cholesky_and_inverse.defjvp
def _jvp(primals: tuple, tangents: tuple) -> tuple:
    """dL = L Phi and dL^-1 = -Phi L^-1, Phi the lower half of L^-1 dS L^-T (Murray 2016)."""
    chol, inverse = cholesky_and_inverse(*primals)
    whitened = inverse @ tangents[0] @ inverse.T
    half = jnp.tril(whitened) - jnp.diag(jnp.diag(whitened)) / 2
    return (chol, inverse), (chol @ half, -half @ inverse)
