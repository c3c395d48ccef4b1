"""Repetitions trained in one program or one by one: the same figures, resumable either way."""

import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.train import checkpoints
from thermo_ebm.train.loop import Outcome

NUM = 3
# With this seed no activation lies so near zero that rounding turns the slope of its leaky ReLU,
# which changes gradients by a percent.
CHANGES = {"num_repetitions": NUM, "num_epochs": 2, "checkpoint__every_steps": 4, "seed": 3}
# A few units of float32's last place, 6e-8, grown over 20 steps: 5e-7 was measured.
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one_by_one")
    assert tiny.train(tiny.config(**CHANGES), workdir) is Outcome.DONE
    return workdir


@pytest.fixture(scope="module")
def in_pairs(tmp_path_factory):
    """The first two together, then the third."""
    workdir = tmp_path_factory.mktemp("in_pairs")
    made = tiny.config(parallel_repetitions=2, **CHANGES)
    assert tiny.train(made, workdir) is Outcome.DONE
    return workdir


def assert_close(one, other):
    for number in range(NUM):
        for row, same in zip(tiny.rows(one, number), tiny.rows(other, number), strict=True):
            for name in row:
                # The gradient's mean is one of parts that cancel.
                if name not in ("train_grad_mean", "group_size") and row[name] is not None:
                    assert row[name] == pytest.approx(same[name], rel=TOLERANCE), (number, name)
        made = tiny.config(**CHANGES)
        state, wanted = tiny.end_state(made, one, number), tiny.end_state(made, other, number)
        for name, leaf in state.items():
            if leaf.dtype.kind != "f":
                np.testing.assert_array_equal(leaf, wanted[name], err_msg=name)
            elif name.startswith("params"):
                scale = np.abs(wanted[name]).max()
                np.testing.assert_allclose(leaf, wanted[name], atol=TOLERANCE * scale, rtol=0)


@pytest.mark.slow
def test_repetitions_train_together_as_one_by_one(one_by_one, in_pairs):
    assert_close(in_pairs, one_by_one)
    tiny.assert_equal_runs(in_pairs, one_by_one, number=2)


@pytest.mark.slow
def test_repetitions_begun_together_continue_one_by_one(one_by_one, tmp_path):
    made = tiny.config(parallel_repetitions=2, **CHANGES)
    assert tiny.train(made, tmp_path, dispatches=5) is Outcome.INTERRUPTED
    assert len(tiny.rows(tmp_path, 0)) == len(tiny.rows(tmp_path, 1)) == 1
    assert tiny.train(tiny.config(**CHANGES), tmp_path) is Outcome.DONE
    assert_close(tmp_path, one_by_one)


@pytest.mark.slow
def test_repetitions_killed_between_their_last_checkpoints_go_on(in_pairs, tmp_path, monkeypatch):
    """The finished repetition stays unchanged; the figures of the other are the same bits."""
    save = checkpoints.save

    def killed(opened, state, seconds):
        if "rep_01" in str(opened.folder) and int(state.step) == 20:
            raise KeyboardInterrupt
        save(opened, state, seconds)

    made = tiny.config(parallel_repetitions=2, **CHANGES)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(made, tmp_path)
    assert tiny.train(made, tmp_path) is Outcome.DONE
    for number in range(3):
        tiny.assert_equal_runs(in_pairs, tmp_path, number)


@pytest.mark.slow
def test_repetitions_begun_one_by_one_continue_together(one_by_one, tmp_path):
    """When they are joined, the first is in its second epoch and the second at its beginning."""
    assert tiny.train(tiny.config(**CHANGES), tmp_path, dispatches=4) is Outcome.INTERRUPTED
    made = tiny.config(parallel_repetitions=2, **CHANGES)
    assert tiny.train(made, tmp_path) is Outcome.DONE
    assert_close(tmp_path, one_by_one)


@pytest.mark.slow
def test_repetitions_stop_and_resume_together_bit_for_bit(in_pairs, tmp_path):
    made = tiny.config(parallel_repetitions=2, steps_per_dispatch=3, **CHANGES)
    for dispatches in (1, 2, 1):
        assert tiny.train(made, tmp_path, dispatches=dispatches) is Outcome.INTERRUPTED
    assert tiny.train(made, tmp_path) is Outcome.DONE
    for number in range(NUM):
        tiny.assert_equal_runs(in_pairs, tmp_path, number)
