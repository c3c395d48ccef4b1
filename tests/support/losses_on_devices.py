"""Losses, gradients and statistics of one batch on several numbers of virtual devices.

Run by `test_collectives.py` in a process of its own, whose environment sets the number of devices:
python losses_on_devices.py OUTPUT.npz CASE
"""

import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import smooth_network as tiny

from thermo_ebm.gradients import halves
from thermo_ebm.gradients.statistics import gradient_statistics
from thermo_ebm.losses import LossSettings, make_objective, vanilla_objective
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.sampling.path import Ladder
from thermo_ebm.thermo.schedule import make_schedule
from thermo_ebm.types import Batch

NUM = 5  # does not divide by 2 or by 8; of 8 devices three have padding alone
NO_AXIS = 0  # stands for a plain call, outside pmap and without padding


class Case(NamedTuple):
    settings: LossSettings | None  # None is the vanilla loss
    devices: tuple[int, ...]
    sampler: SamplerSettings = tiny.SAMPLER


# Two chains per image that decide and exchange; the halves' difference is in the result too.
REWEIGHTED = Case(
    LossSettings(3, correction="ratio"),
    (8,),
    tiny.SAMPLER._replace(
        posterior=ChainSettings(0.05, 3, "mala"), chains_per_image=2, exchange_every=1
    ),
)
CASES = {
    "vanilla": Case(None, (8,)),
    "exact": Case(
        LossSettings(3, correction="pooled_gaussian", generator_gradient="posterior"), (8,)
    ),
    "reweighted": REWEIGHTED,
    "reweighted_on_two": REWEIGHTED._replace(devices=(2,)),
    # Gradients through the moments of the whole batch: the statistics that devices share.
    "langevin": Case(
        LossSettings(
            3,
            power=2.0,
            quadrature="left",
            correction="pooled_gaussian",
            prior_gradient="langevin",
            generator_gradient="langevin",
        ),
        (8,),
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


def step(case, axis_name, params, batch, key):
    """The loss and what is made of it, as a training step does."""
    model = tiny.make_model()
    if case.settings is None:
        objective = vanilla_objective(model, case.sampler, axis_name)
    else:
        objective = make_objective(model, case.sampler, case.settings, axis_name)
    ladder = Ladder(make_schedule("power", 1, 1.0))
    if case.settings is not None:
        ladder = Ladder(make_schedule("power", 3, case.settings.power))

    def loss(params):
        return objective.loss(params, batch, key, ladder)

    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
    if axis_name is not None:
        grads = jax.lax.psum(grads, axis_name)
    result = value, aux, grads, gradient_statistics(grads)
    if objective.differentiated:
        return result
    chains = objective.draw(params, batch, key, ladder)
    surrogate = partial(objective.surrogate, ladder)
    sums, _ = halves.halved_sums(surrogate, params, batch, chains.states)
    return result, halves.combine(sums, axis_name)


def run(case, num_devices):
    batch, params, key = tiny.make_batch(NUM), tiny.parameters(), jax.random.key(3)
    if num_devices == NO_AXIS:
        return jax.jit(partial(step, case, None))(params, batch, key)
    pmapped = jax.pmap(
        partial(step, case, "devices"),
        axis_name="devices",
        in_axes=(None, 0, None),
        devices=jax.devices()[:num_devices],
    )
    # Blocked at once: virtual devices that run ahead of each other can hang.
    return jax.block_until_ready(pmapped(params, spread(batch, num_devices), key))


def main():
    jax.config.update("jax_enable_x64", True)
    path, name = sys.argv[1:]
    case, out = CASES[name], {}
    for num in (NO_AXIS, *case.devices):
        for i, leaf in enumerate(jax.tree.leaves(run(case, num))):
            out[f"{num}/{i}"] = np.asarray(leaf)
    np.savez(path, **out)


if __name__ == "__main__":
    main()
