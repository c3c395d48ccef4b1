"""Runs stopped after any step and resumed end like uninterrupted ones, bit for bit."""

import errno
import os

import pytest
import tiny_training as tiny

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.train import checkpoints, events
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.rundir import repetition_dir


@pytest.fixture(scope="module", autouse=True)
def _compile_once():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.compile_once(monkeypatch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert tiny.train(tiny.config(num_repetitions=3), workdir) is Outcome.DONE
    return workdir


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_uninterrupted_run_has_a_row_an_epoch(whole):
    for number in range(3):
        steps = [(row["epoch"], row["step"]) for row in tiny.rows(whole, number)]
        assert steps == [(1, 10), (2, 20), (3, 30)]
        assert tiny.end_state(tiny.config(), whole, number)["step"] == 30
    losses = {tiny.rows(whole, number)[-1]["train_loss"] for number in range(3)}
    assert len(losses) == 3, "repetitions have seeds of their own"


def test_stops_after_any_step_change_nothing(whole, tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1)
    # Before the first step; on and off checkpoints; just before, at and after an epoch's end.
    for steps in (0, 1, 2, 1, 5, 1, 1, 8, 1):
        assert tiny.train(one_by_one, tmp_path, dispatches=steps) is Outcome.INTERRUPTED
    assert len(tiny.rows(tmp_path)) == 2
    assert tiny.train(tiny.config(), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_other_dispatches_and_checkpoints_change_nothing(whole, tmp_path):
    changes = {"steps_per_dispatch": 3, "checkpoint__every_steps": 0, "checkpoint__every_epochs": 2}
    assert tiny.train(tiny.config(**changes), tmp_path) is Outcome.DONE
    assert tiny.rows(whole) == tiny.rows(tmp_path)
    # Not the sums of an epoch that has just begun, but all else is the same.
    tiny.assert_equal_runs(whole, tmp_path)


def test_a_longer_run_goes_on_from_a_shorter_one(whole, tmp_path):
    assert tiny.train(tiny.config(num_epochs=1), tmp_path) is Outcome.DONE
    assert tiny.train(tiny.config(), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_done_repetitions_are_skipped_and_started_ones_go_on(whole, tmp_path, capsys):
    three = tiny.config(num_repetitions=3, steps_per_dispatch=20)
    # Epochs of 4 + 4 + 2 steps: the first repetition, and half of the second.
    assert tiny.train(three, tmp_path, dispatches=14) is Outcome.INTERRUPTED
    done = snapshot(repetition_dir(tmp_path, 0))
    assert 0 < len(tiny.rows(tmp_path, 1)) < 3
    assert not repetition_dir(tmp_path, 2).exists()
    capsys.readouterr()
    assert tiny.train(three, tmp_path) is Outcome.DONE
    assert "repetition 0 is done: skipped" in capsys.readouterr().err
    assert snapshot(repetition_dir(tmp_path, 0)) == done
    for number in range(3):
        tiny.assert_equal_runs(whole, tmp_path, number)


def test_a_finished_run_changes_nothing(whole):
    before = snapshot(repetition_dir(whole, 1))
    assert tiny.train(tiny.config(num_repetitions=3), whole) is Outcome.DONE
    assert snapshot(repetition_dir(whole, 1)) == before


def test_what_was_written_after_the_newest_checkpoint_is_written_once(whole, tmp_path, monkeypatch):
    """Killed after an epoch's readings, before its checkpoint."""
    save = checkpoints.save

    def killed(opened, state, seconds):
        if int(state.step) == 20:
            raise KeyboardInterrupt
        save(opened, state, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(tiny.config(logging__pictures_every_epochs=1), tmp_path)
    assert len(tiny.rows(tmp_path)) == 2
    assert tiny.train(tiny.config(logging__pictures_every_epochs=1), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


@pytest.mark.parametrize("what", ["readings", "events", "pictures"])
def test_a_full_disk_ends_the_run_and_loses_nothing(whole, tmp_path, monkeypatch, what):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def full_for(path, content):
        return full(path) if str(path).endswith(suffix) else write_bytes(path, content)

    suffix = {"readings": "readings.csv", "pictures": ".png"}.get(what, "")
    write_bytes = files.write_bytes
    made = tiny.config(logging__pictures_every_epochs=2, logging__tensorboard=True)
    assert tiny.train(made, tmp_path, dispatches=4) is Outcome.INTERRUPTED
    with monkeypatch.context() as patch:
        if what == "events":
            patch.setattr(events, "write_scalars", full)
        else:
            patch.setattr(files, "write_bytes", full_for)
        with pytest.raises(UserError, match="No space left on device"):
            tiny.train(made, tmp_path)
    assert tiny.train(made, tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)
