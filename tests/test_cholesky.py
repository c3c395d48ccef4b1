"""The factorisation behind the divergences of neighbours: LAPACK's figures, and no waiting."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from patience import PATIENCE

from thermo_ebm.cholesky import cholesky_and_inverse

DIM = 7

MANY = """
import jax
import jax.numpy as jnp
from thermo_ebm.thermo.integral import Moments, neighbour_kl

def divergences(key):
    half = jax.random.normal(key, (11, 100, 100))
    cov = half @ jnp.swapaxes(half, -1, -2) / 100 + jnp.eye(100)
    return neighbour_kl(Moments(jax.random.normal(key, (11, 100)), cov))

both = jax.jit(jax.vmap(divergences))
for seed in range(3):
    jax.block_until_ready(both(jax.random.split(jax.random.key(seed), 16)))
"""


def covariance(seed):
    half = jax.random.normal(jax.random.key(seed), (DIM, DIM + 2))
    return half @ half.T


def test_cholesky_factor_and_its_inverse(x64):
    cov = covariance(0)
    chol, inverse = cholesky_and_inverse(cov)
    np.testing.assert_allclose(chol, np.linalg.cholesky(cov), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(inverse @ chol, np.eye(DIM), atol=1e-11)


def test_gradients_of_the_cholesky_factor_are_lapacks(x64):
    cov, weights = covariance(1), covariance(2)

    def by_lapack(cov):
        chol = jnp.linalg.cholesky(cov)
        inverse = jax.scipy.linalg.solve_triangular(chol, jnp.eye(DIM), lower=True)
        return jnp.sum(weights * chol) + jnp.sum(jnp.sin(inverse) * weights)

    def by_elimination(cov):
        chol, inverse = cholesky_and_inverse(cov)
        return jnp.sum(weights * chol) + jnp.sum(jnp.sin(inverse) * weights)

    gradient, reference = jax.grad(by_elimination)(cov), jax.grad(by_lapack)(cov)
    # Of a symmetric matrix only the symmetric part of the gradient is determined.
    np.testing.assert_allclose(
        gradient + gradient.T, reference + reference.T, rtol=1e-9, atol=1e-11
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_many_repetitions_do_not_hang_on_few_cores():
    """With LAPACK's batched calls this hung at its first call, every time, on two cores."""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    environment.pop("NPROC", None)
    subprocess.run([sys.executable, "-c", MANY], env=environment, check=True, timeout=PATIENCE)
