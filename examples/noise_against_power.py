"""Measures the noise tr Cov(g) / |E g|^2 of a gradient over batches and chains, by the power p.

Run it with: python -m examples.noise_against_power [number of draws] [p ...]
"""

import sys

import jax
from jax.flatten_util import ravel_pytree

import thermo_ebm as te
from thermo_ebm import data
from thermo_ebm.config.build import sampler_settings
from thermo_ebm.configs import digits_small

DRAWS = int(sys.argv[1]) if len(sys.argv) > 1 else 20
config = digits_small.get_config()
images = data.to_unit(jax.numpy.asarray(data.load(config.data).train))
model, sampler = te.make_model(config), sampler_settings(config)
params = model.init(jax.random.key(0))


def noise(power: float) -> jax.Array:
    """Relative noise of the gradient for one power."""
    settings = te.LossSettings(4, power=power, correction="none")

    def gradient(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key)
        batch = te.make_batch(jax.random.choice(keys[0], images, (75,), replace=False))
        args = model, params, batch, keys[1], sampler, settings
        return ravel_pytree(jax.grad(te.thermodynamic_loss, 1, has_aux=True)(*args)[0])[0]

    draws = jax.lax.map(gradient, jax.random.split(jax.random.key(1), DRAWS))
    variance, norm = draws.var(axis=0, ddof=1).sum(), (draws.mean(axis=0) ** 2).sum()
    return variance / (norm - variance / DRAWS)  # the noise of the mean is subtracted


for power in [float(p) for p in sys.argv[2:]] or (0.1, 1.0, 6.0):
    print(f"p = {power:<4}  noise = {jax.jit(noise, static_argnums=0)(power):.4f}")
