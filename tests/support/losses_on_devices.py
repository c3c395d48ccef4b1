"""Losses, gradients and statistics of one batch on several numbers of virtual devices.

Run by `test_collectives.py` in a process of its own, whose environment sets the number of devices:
python losses_on_devices.py OUTPUT.npz
"""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smooth_network as tiny

from thermo_ebm.gradients.statistics import gradient_statistics
from thermo_ebm.losses import LossSettings, thermodynamic_loss, vanilla_loss
from thermo_ebm.types import Batch

NUM = 5  # does not divide by 2 or by 8; of 8 devices three have padding alone
NO_AXIS = 0  # stands for a plain call, outside pmap and without padding


class Case(NamedTuple):
    settings: LossSettings | None  # None is the vanilla loss
    devices: tuple[int, ...]


CASES = {
    "vanilla": Case(None, (1, 8)),
    "exact": Case(LossSettings(3, generator_gradient="posterior"), (8,)),
    # Gradients through the moments of the whole batch: the statistics that devices share.
    "langevin": Case(
        LossSettings(
            3,
            power=2.0,
            quadrature="left",
            kl_shrinkage="ledoit_wolf",
            prior_gradient="langevin",
            generator_gradient="langevin",
        ),
        (2, 8),
    ),
}


def spread(batch, num_devices):
    """Each leaf [num, ...] to [num_devices, share, ...]; padding is wild, and masked out."""
    share = -(-NUM // num_devices)
    padding = share * num_devices - NUM

    def pad(leaf, value):
        filler = jnp.full((padding, *leaf.shape[1:]), value, leaf.dtype)
        return jnp.concatenate([leaf, filler]).reshape(num_devices, share, *leaf.shape[1:])

    return Batch(pad(batch.images, 7.0), pad(batch.position, 0), pad(batch.mask, 0.0))


def step(settings, axis_name, params, batch, key):
    """The loss and what is made of it, as a training step does."""

    def loss(params):
        model = tiny.make_model()
        if settings is None:
            return vanilla_loss(model, params, batch, key, tiny.SAMPLER, axis_name)
        return thermodynamic_loss(model, params, batch, key, tiny.SAMPLER, settings, axis_name)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    if axis_name is not None:
        grads = jax.lax.psum(grads, axis_name)
    return value, aux, grads, gradient_statistics(grads)


def run(settings, num_devices):
    batch, params, key = tiny.make_batch(NUM), tiny.parameters(), jax.random.key(3)
    if num_devices == NO_AXIS:
        return jax.jit(partial(step, settings, None))(params, batch, key)
    pmapped = jax.pmap(
        partial(step, settings, "devices"),
        axis_name="devices",
        in_axes=(None, 0, None),
        devices=jax.devices()[:num_devices],
    )
    # Blocked at once: virtual devices that run ahead of each other can hang.
    return jax.block_until_ready(pmapped(params, spread(batch, num_devices), key))


def main():
    jax.config.update("jax_enable_x64", True)
    out = {}
    for name, case in CASES.items():
        for num in (NO_AXIS, *case.devices):
            for i, leaf in enumerate(jax.tree.leaves(run(case.settings, num))):
                out[f"{name}/{num}/{i}"] = np.asarray(leaf)
    np.savez(sys.argv[1], **out)


if __name__ == "__main__":
    main()
