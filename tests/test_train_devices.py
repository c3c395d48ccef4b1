"""One run on 1, 2, 4 and 8 virtual devices: the same figures, and checkpoints for each other."""

import numpy as np
import pytest
import tiny_training as tiny
from train_processes import finish, start

# 75 images on 8 devices: seven shares of ten images and one of five.
CHANGES = {
    "batch_size": 75,
    "data__num_train": 151,
    "data__num_val": 79,
    "num_epochs": 2,
    "steps_per_dispatch": 1,
    "checkpoint__every_steps": 0,
}
# Sums in another order: a few units of float32's last place, 6e-8, grown over 4 steps.
TOLERANCE = 1e-5
pytestmark = pytest.mark.timeout(900)


def train(num_devices, *runs):
    return finish(start(runs, CHANGES, num_devices))


def assert_same_figures(workdir, reference, what=""):
    for row, wanted in zip(tiny.rows(workdir), tiny.rows(reference), strict=True):
        for name, value in wanted.items():
            if value is not None and name != "train_grad_mean":  # a mean of parts that cancel
                assert row[name] == pytest.approx(value, rel=TOLERANCE), (what, name)
    made = tiny.config(**CHANGES)
    state, wanted = tiny.end_state(made, workdir), tiny.end_state(made, reference)
    for name, leaf in wanted.items():
        if leaf.dtype.kind != "f":
            np.testing.assert_array_equal(state[name], leaf, err_msg=name)
        elif ".mu." in name or name.startswith("params"):  # the gradients, and what they made
            atol = TOLERANCE * np.abs(leaf).max()
            np.testing.assert_allclose(state[name], leaf, rtol=0, atol=atol, err_msg=f"{what} {name}")


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    """The whole run, and one stopped in its second epoch, on one device."""
    folder = tmp_path_factory.mktemp("on_one")
    train(1, (folder / "whole", None), (folder / "begun", 3))
    return folder


def test_eight_devices_and_back(on_one, tmp_path):
    """The same on 8; a checkpoint of 1 continued on 8; one of 8 continued on 1."""
    outcomes = train(
        8, (tmp_path / "whole", None), (tmp_path / "begun", 3), (on_one / "begun", None)
    )
    assert outcomes == ["DONE", "INTERRUPTED", "DONE"]
    assert_same_figures(tmp_path / "whole", on_one / "whole", "8 devices")
    assert_same_figures(on_one / "begun", on_one / "whole", "begun on 1, ended on 8")
    train(1, (tmp_path / "begun", None))
    assert_same_figures(tmp_path / "begun", on_one / "whole", "begun on 8, ended on 1")


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
def test_two_and_four_devices(on_one, tmp_path, num_devices):
    train(num_devices, (tmp_path, None))
    assert_same_figures(tmp_path, on_one / "whole", f"{num_devices} devices")
