"""The same losses, gradients and statistics on any number of devices, padding or not."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import losses_on_devices
import numpy as np
import pytest
import quick
from patience import PATIENCE

from thermo_ebm.collectives import all_sum, for_local_use, masked_mean

SCRIPT = Path(losses_on_devices.__file__)
QUICK = ("reweighted",)
CASES = [
    pytest.param(case, marks=() if case in QUICK else pytest.mark.slow)
    for case in losses_on_devices.CASES
]


def results(case, path):
    """{number of devices: [leaf of the result, ...]}, from a process with 8 devices."""
    root = SCRIPT.parents[2]
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count=8 {quick.XLA_FLAGS}",
        "JAX_PLATFORMS": "cpu",
        "NPROC": "32",  # more threads than devices: fewer hang while they wait for each other
        "PYTHONPATH": os.pathsep.join([str(root), str(SCRIPT.parent)]),
    }
    command = [sys.executable, str(SCRIPT), str(path), case]
    subprocess.run(command, env=environment, timeout=PATIENCE, check=True)
    found: dict = {}
    with np.load(path) as arrays:
        for name in sorted(arrays, key=lambda name: int(name.rsplit("/", 1)[1])):
            found.setdefault(int(name.split("/")[0]), []).append(arrays[name])
    return found


@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_same_on_every_number_of_devices(case, tmp_path):
    found = results(case, tmp_path / "results.npz")
    alone = found[losses_on_devices.NO_AXIS]
    for num in losses_on_devices.CASES[case].devices:
        leaves = found[num]
        assert len(leaves) == len(alone) > 10
        for expected, spread in zip(alone, leaves, strict=True):
            # Every device holds the whole; float64, so that nothing hides in the rounding.
            assert spread.shape == (num, *expected.shape)
            np.testing.assert_allclose(
                spread, np.broadcast_to(expected, spread.shape), rtol=1e-9, atol=1e-12
            )


def test_masked_mean_leaves_padding_out():
    values = jnp.array([[1.0, 2.0, 6.0, 1e6], [0.0, 4.0, 2.0, -1e6]])
    mask = jnp.array([1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(masked_mean(values, mask, None), [3.0, 2.0])
    np.testing.assert_allclose(masked_mean(values[0], mask, None), 3.0)
    with pytest.raises(AssertionError):
        masked_mean(values, mask[:3], None)


def test_one_device_needs_no_axis():
    tree = {"a": jnp.arange(3.0)}
    assert all_sum(tree, None) is tree
    assert for_local_use(tree, None) is tree


def test_gradient_of_sums_over_an_axis():
    # vmap's axis stands for devices. Each computes L = S^2 + sum_i (x_i S)^2 with S = sum_i x_i,
    # and its gradient with respect to its own x_i must be the whole derivative dL / dx_i.
    x = jnp.array([1.0, -2.0, 4.0])

    def local_loss(x):
        total = all_sum(x, "i")
        product = x * for_local_use(total, "i")
        return total**2 + all_sum(product**2, "i")

    def whole_loss(x):
        return x.sum() ** 2 + ((x * x.sum()) ** 2).sum()

    gradients = jax.vmap(jax.grad(local_loss), axis_name="i")(x)
    np.testing.assert_allclose(gradients, jax.grad(whole_loss)(x), rtol=1e-6)
