"""One run on 1, 2, 4 and 8 virtual devices: the same figures, and checkpoints for each other."""

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
pytestmark = pytest.mark.timeout(900)


def train(num_devices, *runs):
    return finish(start(runs, CHANGES, num_devices))


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
    tiny.assert_close_runs(tmp_path / "whole", on_one / "whole", CHANGES, "8 devices")
    tiny.assert_close_runs(on_one / "begun", on_one / "whole", CHANGES, "begun on 1, ended on 8")
    train(1, (tmp_path / "begun", None))
    tiny.assert_close_runs(tmp_path / "begun", on_one / "whole", CHANGES, "begun on 8, ended on 1")


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [2, 4])
def test_two_and_four_devices(on_one, tmp_path, num_devices):
    train(num_devices, (tmp_path, None))
    tiny.assert_close_runs(tmp_path, on_one / "whole", CHANGES, f"{num_devices} devices")
