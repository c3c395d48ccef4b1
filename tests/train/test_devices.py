"""One run on 1, 2, 4 and 8 virtual devices: the same figures, and checkpoints for each other."""

import subprocess
import sys
import textwrap

import pytest
import tiny_training as tiny
from patience import PATIENCE
from train_processes import UNEVEN, environment, finish, start

CHANGES = UNEVEN
pytestmark = pytest.mark.timeout(900)


def train(num_devices, *runs, **changes):
    return finish(start(runs, CHANGES | changes, num_devices))


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    """The whole run on one device."""
    folder = tmp_path_factory.mktemp("on_one")
    train(1, (folder / "whole", None))
    return folder


@pytest.mark.slow
def test_eight_devices_train_what_one_does(on_one, tmp_path):
    assert train(8, (tmp_path / "whole", None)) == ["DONE"]
    tiny.assert_close_runs(tmp_path / "whole", on_one / "whole", CHANGES, "8 devices")


@pytest.mark.slow
def test_run_moves_from_one_to_eight_devices_and_back(on_one, tmp_path):
    """A run stopped in its second epoch on 1 device and continued on 8, and the reverse."""
    one, eight = tmp_path / "one", tmp_path / "eight"
    train(1, (one, 3))
    assert train(8, (eight, 3), (one, None)) == ["INTERRUPTED", "DONE"]
    tiny.assert_close_runs(one, on_one / "whole", CHANGES, "begun on 1, ended on 8")
    train(1, (eight, None))
    tiny.assert_close_runs(eight, on_one / "whole", CHANGES, "begun on 8, ended on 1")


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
def test_two_and_four_devices_train_what_one_does(on_one, tmp_path, num_devices):
    train(num_devices, (tmp_path, None))
    tiny.assert_close_runs(tmp_path, on_one / "whole", CHANGES, f"{num_devices} devices")


@pytest.mark.slow
def test_shard_map_trains_what_pmap_does_and_continues_its_runs(on_one, tmp_path):
    """On 8 devices to its end, and on 2 from a checkpoint that pmap has written."""
    assert train(8, (tmp_path / "whole", None), device_mapping="shard_map") == ["DONE"]
    tiny.assert_close_runs(tmp_path / "whole", on_one / "whole", CHANGES, "shard_map")
    train(2, (tmp_path / "begun", 3))
    assert train(2, (tmp_path / "begun", None), device_mapping="shard_map") == ["DONE"]
    tiny.assert_close_runs(tmp_path / "begun", on_one / "whole", CHANGES, "pmap, then shard_map")


def test_both_mappings_spread_a_gradient_over_eight_devices():
    code = """
        import jax
        import jax.numpy as jnp
        import numpy as np
        from thermo_ebm.collectives import all_sum
        from thermo_ebm.train.programs import DEVICE_MAPPINGS, spread
        from thermo_ebm.train.task import AXIS

        images = np.random.default_rng(0).normal(size=(8, 3, 5)).astype(np.float32)

        def loss(weights, images, axis):
            return jnp.sqrt(all_sum(jnp.sum((images @ weights) ** 2), axis))

        def gradient(weights, images):
            return all_sum(jax.grad(loss)(weights, images, AXIS), AXIS)

        weights = np.arange(1.0, 6.0, dtype=np.float32)
        expected = jax.grad(loss)(weights, images.reshape(24, 5), None)
        assert set(DEVICE_MAPPINGS) == {"pmap", "shard_map"}
        for over_devices in DEVICE_MAPPINGS.values():
            result = over_devices(gradient, (None, 0))(weights, spread(images))
            assert len(result.sharding.device_set) == 8 and result.is_fully_replicated
            np.testing.assert_allclose(result, expected, rtol=1e-6)
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, env=environment(8), check=True, timeout=PATIENCE)
