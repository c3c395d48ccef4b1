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
