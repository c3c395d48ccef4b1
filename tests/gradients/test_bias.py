"""The meter of bias: unbiased, with errors that hold, and 0 for chains that have arrived."""

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest

from thermo_ebm.gradients.bias import gradient_bias
from thermo_ebm.sampling.arrival import Rounds, continue_chains
from thermo_ebm.sampling.chains import Latents
from thermo_ebm.types import Batch

NUM_BATCHES, SIZE, REPEATS = 8, 200, 2000


@pytest.mark.parametrize("bias", [0.0, 0.1, 0.6])
def test_its_error_covers_the_bias(bias):
    """h = mean + bias + noise, a = mean + other noise; in units of a batch's gradient."""
    rng = np.random.default_rng(0)
    mean = np.full(SIZE, 0.3 / SIZE**0.5)
    direction = np.zeros(SIZE)
    direction[0] = bias
    shape = (REPEATS, NUM_BATCHES, SIZE)
    noise = rng.normal(size=shape) / SIZE**0.5
    arrived = mean + noise
    used = mean + direction + 0.8 * noise + 0.6 * rng.normal(size=shape) / SIZE**0.5
    measured = jax.jit(jax.vmap(gradient_bias))(jnp.float32(used), jnp.float32(arrived))
    scale = np.sqrt((used**2).sum(axis=2).mean())
    squares = np.sign(measured.bias) * np.float64(measured.bias) ** 2
    # The square is unbiased: 4 standard errors of the mean of 2,000 repeats.
    error = squares.std() / np.sqrt(REPEATS)
    assert abs(squares.mean() - (bias / scale) ** 2) < 4 * error + 1e-4
    inside = np.abs(np.float64(measured.bias) - bias / scale) < 1.96 * np.float64(measured.stderr)
    # Near 0 the distribution is not normal and the interval of the root is wide.
    assert (0.88 < inside.mean() <= 1.0) if bias else (0.8 < inside.mean() <= 1.0)


def test_groups_of_several_arrays_count_as_one_vector():
    rng = np.random.default_rng(1)
    used, arrived = rng.normal(size=(2, 5, 12)).astype(np.float32)
    split = [{"a": g[:, :7].reshape(5, 7, 1), "b": g[:, 7:]} for g in (used, arrived)]
    for one, other in zip(gradient_bias(used, arrived), gradient_bias(*split), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_continued_chains_arrive_and_stay():
    """From p0, and from exact draws, both ends have the moments of prior and posterior."""
    params, num, per_image = lg.parameters(), 500, 4
    x = np.clip(lg.observation(), -1, 1)
    images = jnp.broadcast_to(jnp.float32(x), (num, lg.DATA_DIM))
    batch = Batch(images, jnp.arange(num), jnp.ones(num))
    laws = [lg.power_posterior(params, x, t) for t in (0.0, 1.0)]
    rng = np.random.default_rng(2)
    shape = (per_image, num)
    exact = [jnp.float32(rng.multivariate_normal(*law, size=shape)) for law in laws]
    far = [jnp.float32(3 * rng.normal(size=(*shape, lg.LATENT_DIM)))] * 2

    @jax.jit
    def run(prior, posterior):
        ends = continue_chains(
            lg.make_model(),
            jax.tree.map(jnp.float32, params),
            batch,
            Latents(posterior[None], prior[None]),
            jax.random.key(0),
            Rounds(posterior=30, prior=30),
        )
        return ends.prior, ends.ladder

    for start in (exact, far):
        for ends, law in zip(run(*start), laws, strict=True):
            z = np.float64(ends).reshape(-1, lg.LATENT_DIM)
            sd = np.sqrt(np.diag(law.cov))
            # 2,000 independent chains; 12 means and 12 variances are compared.
            assert (np.abs(z.mean(0) - law.mean) < 4 * sd / np.sqrt(len(z))).all()
            assert (np.abs(z.var(0) / sd**2 - 1) < 4 * np.sqrt(2 / len(z))).all()
