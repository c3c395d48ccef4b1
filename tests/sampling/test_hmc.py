"""Hamiltonian trajectories in a metric against another library's, on a Gaussian and a banana."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thermo_ebm.sampling.kernels import Point, Target, leapfrog

PRECISION = np.array([[4.0, 1.0], [1.0, 0.5]])
METRIC = np.array([[3.0, 0.5], [0.5, 1.0]])
NUM, STEP_SIZE, NUM_LEAPFROG = 30, 0.4, 5


def gaussian(z):
    return -z @ jnp.asarray(PRECISION) @ z / 2


def banana(z):
    return -(z[0] ** 2) / 2 - 4 * (z[1] - z[0] ** 2 + 1) ** 2 / 2


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")  # the other library's own
@pytest.mark.parametrize("log_density", [gaussian, banana])
def test_trajectories_against_blackjax(log_density):
    blackjax = pytest.importorskip("blackjax")
    integrators, metrics = blackjax.mcmc.integrators, blackjax.mcmc.metrics
    rng = np.random.default_rng(0)
    z, whitened = jnp.asarray(rng.normal(size=(2, NUM, 2)))
    factor = np.linalg.cholesky(METRIC)

    def evaluate(z):
        values, gradients = jax.vmap(jax.value_and_grad(log_density))(z)
        return Point(z, 0 * values, 0 * z, values, gradients)

    factors = jnp.asarray(np.linalg.inv(factor))[None]
    target = Target(evaluate, lambda z: evaluate(z).grad_log_reference, jnp.ones(NUM), factors)
    sizes = jnp.full(NUM, STEP_SIZE)
    end, log_ratio = leapfrog(target, evaluate(z), sizes, whitened, NUM_LEAPFROG)

    metric = metrics.default_metric(jnp.asarray(np.linalg.inv(METRIC)))
    step = integrators.velocity_verlet(log_density, metric.kinetic_energy)

    def theirs(z, momentum):
        first = state = integrators.new_integrator_state(log_density, z, momentum)
        for _ in range(NUM_LEAPFROG):
            state = step(state, STEP_SIZE)
        energies = [metric.kinetic_energy(s.momentum) - s.logdensity for s in (first, state)]
        return state.position, energies[0] - energies[1]

    expected, expected_ratio = jax.vmap(theirs)(z, whitened @ factor.T)
    np.testing.assert_allclose(end.z, expected, rtol=1e-9)
    np.testing.assert_allclose(log_ratio, expected_ratio, rtol=1e-7, atol=1e-10)
    assert np.min(log_ratio) < -0.05  # energies change: the test does not compare zeros
