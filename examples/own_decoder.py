"""log p(x) of a decoder that is not ours: that of a VAE of binary digits, beside its ELBO.

It takes a function, its parameters and the likelihood; the encoder is not needed.
Run it with: python -m examples.own_decoder [number of images] [updates of the VAE]
"""

import sys

import jax
import jax.numpy as jnp
import optax
from sklearn.datasets import load_digits

import thermo_ebm as te
from thermo_ebm.models.likelihoods import bernoulli

NUM = int(sys.argv[1]) if len(sys.argv) > 1 else 50
UPDATES = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
x = jnp.where(jnp.asarray(load_digits().data) > 7.5, 1.0, -1.0)  # [1797, 64] of -1 and 1
held_out, train = x[:NUM], x[NUM:]


def mlp(weights: list, inputs: jax.Array) -> jax.Array:
    """Two layers; the decoder's outputs are logits."""
    return jnp.tanh(inputs @ weights[0] + weights[1]) @ weights[2]


def elbo(params: dict, x: jax.Array, key: jax.Array) -> jax.Array:
    """A lower bound of log p(x) for each image, [num]."""
    mean, log_sigma = jnp.split(mlp(params["encoder"], x), 2, axis=-1)
    z = mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape)
    divergence = ((mean**2 + jnp.exp(2 * log_sigma) - 1) / 2 - log_sigma).sum(axis=-1)
    return bernoulli().log_density(x, mlp(params["decoder"], z)) - divergence


def init(key: jax.Array, *sizes: int) -> list:
    """Weights of an `mlp`."""
    first, last = (jax.random.normal(jax.random.fold_in(key, i), sizes[i : i + 2]) for i in (0, 1))
    return [first / sizes[0] ** 0.5, jnp.zeros(sizes[1]), last / sizes[1]]


def update(carry: tuple, key: jax.Array) -> tuple:
    """One step of Adam on a batch of 100."""
    (params, state), keys = carry, jax.random.split(key)
    batch = jax.random.choice(keys[0], train, (100,))
    grads = jax.grad(lambda params: -elbo(params, batch, keys[1]).mean())(params)
    updates, state = optimiser.update(grads, state)
    return (optax.apply_updates(params, updates), state), None


optimiser, keys = optax.adam(3e-3), jax.random.split(jax.random.key(0), UPDATES + 3)
params = {"encoder": init(keys[-1], 64, 100, 8), "decoder": init(keys[-2], 4, 100, 64)}
(params, _), _ = jax.lax.scan(update, (params, optimiser.init(params)), keys[:UPDATES])
bound = jnp.mean(jax.vmap(lambda key: elbo(params, held_out, key))(keys[:100]))
model = te.from_decoder(mlp, 4, bernoulli())
parameters = {"prior": (), "generator": params["decoder"]}
result = te.log_marginal_likelihood(model, parameters, held_out, keys[-3])
value, error = result.log_marginal_likelihood.mean(), result.mean_stderr
print(f"{NUM} images: log p(x) {value:.3f} +- {error:.3f} nats, ELBO {bound:.3f} nats")
print(result.verdict.sentence())
