"""Trains an MLP decoder on digits, in plain JAX; these two commands do the same:
python -m examples.mlp_decoder RUN [number of epochs]
python -m launch.train --config=digits --workdir=RUN --model=examples.mlp_decoder:networks
"""

import math
import sys

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import thermo_ebm as te
from thermo_ebm.configs import digits
from thermo_ebm.run import tables


def networks(config: ConfigDict) -> te.Networks:
    """The factory: a hidden layer of 128 units; the prior is the configuration's."""
    shape = (config.data.image_size, config.data.image_size, config.data.channels)

    def init(key: jax.Array, z: jax.Array) -> dict[str, jax.Array]:
        keys, dim, pixels = jax.random.split(key), z.shape[1], math.prod(shape)
        hidden = jax.random.normal(keys[0], (dim, 128)) / dim**0.5
        return {"hidden": hidden, "pixels": jax.random.normal(keys[1], (128, pixels)) / 128**0.5}

    def apply(weights: dict[str, jax.Array], z: jax.Array) -> jax.Array:
        return (jnp.tanh(z @ weights["hidden"]) @ weights["pixels"]).reshape(-1, *shape)

    return te.Networks(generator=(init, apply))


if __name__ == "__main__":
    config = digits.get_config()
    config.model.factory = "examples.mlp_decoder:networks"
    config.num_epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    run = te.train_run(config, sys.argv[1])
    last = tables.read(run.workdir / "rep_00/readings.csv")[-1]
    print(f"held-out log p(x): {last['val_log_marginal_likelihood']:.2f} nats per image")
