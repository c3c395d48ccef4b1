"""One Langevin step by hand; a chain's exact law on Gaussians, its bias included; its gradient."""

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
from sample_moments import standard_errors_off
from scipy.linalg import solve_discrete_lyapunov

from thermo_ebm.randomness import STEP_NOISE, normal
from thermo_ebm.sampling.chains import ChainSettings, run_chain
from thermo_ebm.sampling.kernels import Target, find_kernel, langevin_move

PRECISION = np.array([[2.0, 0.5, 0.0], [0.5, 1.2, -0.3], [0.0, -0.3, 0.8]])
CENTRE = np.array([0.5, -1.0, 2.0])
NUM = 20_000


def score(z):
    return -(z - CENTRE) @ PRECISION


def chain(score, start, keys, step_size, num_steps):
    """Ends of unadjusted chains, of which only the score is evaluated."""

    def never(z):
        raise AssertionError("the values were evaluated")

    target = Target(never, score, jnp.ones(len(start)))
    return run_chain(target, start, keys, ChainSettings(step_size, num_steps)).latents


def run(step_size, num_steps, score=score, start=None, seed=0):
    keys = jax.random.split(jax.random.key(seed), NUM)
    z = jnp.zeros((NUM, 3)) if start is None else start
    return np.asarray(chain(score, z, keys, step_size, num_steps), np.float64)


def test_langevin_step_by_hand():
    z = jnp.array([[1.0, -2.0, 0.5]])
    noise = jnp.array([[0.3, 0.0, -1.0]])
    out = langevin_move(z, -2.0 * z, 0.08, noise)
    np.testing.assert_allclose(out, [[0.84 + 0.12, -1.68, 0.42 - 0.4]], rtol=1e-6)


def test_chain_is_the_sequence_of_its_steps():
    keys = jax.random.split(jax.random.key(0), 4)
    z = start = jnp.arange(12.0).reshape(4, 3)
    for k in (1, 2):
        z = langevin_move(z, score(z), 0.1, normal(keys, STEP_NOISE + k, 3))
    np.testing.assert_allclose(chain(score, start, keys, 0.1, 2), z, rtol=1e-5)
    np.testing.assert_array_equal(chain(score, start, keys, 0.1, 0), start)
    # A step size for each chain.
    sizes = jnp.array([0.1, 0.2, 0.3, 0.1])
    separate = [chain(score, start, keys, float(size), 2)[i] for i, size in enumerate(sizes)]
    np.testing.assert_allclose(chain(score, start, keys, sizes, 2), separate, rtol=1e-5)


@pytest.mark.parametrize("step_size", [0.1, 0.5])
def test_ula_reaches_the_stationary_law_of_its_discretisation(step_size):
    transition = np.eye(3) - step_size * PRECISION
    cov = solve_discrete_lyapunov(transition, 2 * step_size * np.eye(3))
    stationary = lg.Gaussian(CENTRE, cov)
    num_steps = int(np.ceil(np.log(1e-4) / np.log(np.abs(np.linalg.eigvalsh(transition)).max())))
    z = run(step_size, num_steps)
    # 12 moments of 20,000 chains: within 4 standard errors, and far from the unbiased law.
    assert standard_errors_off(z, stationary) < 4
    unbiased = lg.Gaussian(CENTRE, np.linalg.inv(PRECISION))
    assert standard_errors_off(z, unbiased) > 8


@pytest.mark.parametrize("num_steps", [1, 4])
def test_law_of_ula_after_a_few_steps(num_steps):
    rng = np.random.default_rng(0)
    start = jnp.asarray(lg.PRIOR_SIGMA * rng.normal(size=(NUM, 3)), jnp.float32)
    law = lg.chain_law(PRECISION, PRECISION @ CENTRE, 0.15, num_steps)
    assert standard_errors_off(run(0.15, num_steps, start=start), law) < 4


def test_every_step_has_noise_of_its_own():
    # Without drift the variance is 2 s K; one noise used K times over would give 2 s K^2.
    z = run(0.02, 10, jnp.zeros_like)
    assert standard_errors_off(z, lg.Gaussian(np.zeros(3), 0.4 * np.eye(3))) < 4


@pytest.mark.usefixtures("x64")
def test_gradient_through_the_steps_of_a_chain():
    # z_K = sum_k A^k s h + terms without h, for the score h - L z and A = I - s L.
    keys = jax.random.split(jax.random.key(0), 5)

    def last(shift):
        return chain(lambda z: shift - z @ PRECISION, jnp.ones((5, 3)), keys, 0.1, 6)

    transition = np.eye(3) - 0.1 * PRECISION
    expected = 0.1 * sum(np.linalg.matrix_power(transition, k) for k in range(6))
    jacobian = jax.jacrev(last)(jnp.asarray(PRECISION @ CENTRE))
    np.testing.assert_allclose(jacobian, np.broadcast_to(expected, (5, 3, 3)), rtol=1e-10)


def test_gradient_stores_states_and_not_activations():
    width, num, steps = 2048, 8, (10, 60)
    keys = jax.random.split(jax.random.key(0), num)

    def loss(weights, num_steps):
        score = jax.grad(lambda z: jnp.tanh(z @ weights).sum())
        return chain(score, jnp.ones((num, 3)), keys, 0.1, num_steps).sum()

    memory = [
        jax.jit(jax.grad(loss), static_argnums=1)
        .lower(jnp.ones((3, width)), k)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for k in steps
    ]
    # One state more a step is 96 bytes here; one hidden layer more would be 65,536.
    assert (memory[1] - memory[0]) / (steps[1] - steps[0]) < 1000


def test_other_shapes_and_unknown_kernels_are_refused():
    keys = jax.random.split(jax.random.key(0), 4)
    with pytest.raises(AssertionError):
        chain(score, jnp.zeros((5, 3)), keys, 0.1, 1)
    with pytest.raises(AssertionError):
        langevin_move(jnp.zeros((4, 3)), jnp.zeros((4, 3)), 0.1, jnp.zeros((1, 3)))
    with pytest.raises(ValueError, match="kernel must be one of ula, mala, hmc"):
        find_kernel("nuts")
