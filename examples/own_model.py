"""A model made of your own callables: its thermodynamic estimate and its exact likelihood.

With a linear generator and no tilt, x = W z + noise is Gaussian, so log p(x) has a closed form.
Run it with: python -m examples.own_model [number of images]
"""

import sys

import jax
import jax.numpy as jnp

import thermo_ebm as te

LATENT_DIM, DATA_DIM, SIGMA = 3, 12, 0.5
NUM = int(sys.argv[1]) if len(sys.argv) > 1 else 100

model = te.LatentEBM(
    tilt=lambda alpha, z: jnp.zeros(z.shape[0]),
    generator=lambda beta, z: z @ beta.T,
    init=lambda key: {"prior": (), "generator": jax.random.normal(key, (DATA_DIM, LATENT_DIM)) / 2},
    latent_dim=LATENT_DIM,
    prior_sigma=1.0,
    likelihood_sigma=SIGMA,
)
key_params, key_z, key_noise, key_chains = jax.random.split(jax.random.key(0), 4)
params = model.init(key_params)
z = jax.random.normal(key_z, (NUM, LATENT_DIM))
x = model.generator(params["generator"], z) + SIGMA * jax.random.normal(key_noise, (NUM, DATA_DIM))
cov = params["generator"] @ params["generator"].T + SIGMA**2 * jnp.eye(DATA_DIM)
exact = jax.scipy.stats.multivariate_normal.logpdf(x, jnp.zeros(DATA_DIM), cov).mean()

schedule = te.make_schedule("power", 20, 3.0)  # t_i = (i / N_t)^p
chains = te.SamplerSettings(te.ChainSettings(0.2, 100, "mala"), te.ChainSettings(0.05, 200, "mala"))
batch = te.make_batch(x)
drawn = te.tempered_chains(model, params, batch, te.Ladder(schedule), key_chains, chains)
log_likelihood = jax.vmap(lambda z: te.log_likelihood(model, params["generator"], x, z))
expected = log_likelihood(drawn.latents[:, 0]).mean(axis=-1)  # E_i, [21]
estimate = te.quadrature_weights("warped_trapezium", schedule) @ expected
print(f"mean log p(x) of {NUM} images: exact {exact:.3f}, estimated {estimate:.3f} nats")
