"""A tiny nonlinear model without kinks, so that central differences of its losses converge."""

import jax
import jax.numpy as jnp
import numpy as np

from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.types import Batch

LATENT_DIM = 3
IMAGE_SHAPE = (2, 2, 1)

SAMPLER = SamplerSettings(
    prior=ChainSettings(0.1, 4), posterior=ChainSettings(0.05, 3), chains_per_image=1
)


def tilt(alpha, z):
    return jnp.tanh(z @ alpha["hidden"]) @ alpha["out"] - z**2 @ alpha["scale"]


def generator(beta, z):
    return jnp.tanh(z @ beta["weights"] + beta["bias"]).reshape(-1, *IMAGE_SHAPE)


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    alpha = {
        "hidden": rng.normal(size=(3, 4)),
        "out": rng.normal(size=4),
        "scale": np.array([0.1, 0.6, 2.5]),
    }
    beta = {"weights": rng.normal(size=(3, 4)) / 2, "bias": rng.normal(size=4) / 3}
    return jax.tree.map(jnp.asarray, {"prior": alpha, "generator": beta})


def make_model():
    return LatentEBM(tilt, generator, lambda key: parameters(), LATENT_DIM, 1.1, 0.4)


def make_batch(num=5, padding=0, seed=1):
    """`num` images, then `padding` rows of other images with mask 0."""
    images = np.random.default_rng(seed).uniform(-1, 1, size=(num + padding, *IMAGE_SHAPE))
    mask = np.arange(num + padding) < num
    return Batch(
        jnp.asarray(images), jnp.arange(num + padding), jnp.asarray(mask, jnp.asarray(images).dtype)
    )
