"""Runs stopped after any step and resumed end like uninterrupted ones, bit for bit."""

import errno
import functools
import itertools
import os

import numpy as np
import pytest
import tiny_training as tiny
import trained_run

from thermo_ebm import files
from thermo_ebm.errors import UserError
from thermo_ebm.run import configuration, events, layout
from thermo_ebm.run.layout import repetition_dir
from thermo_ebm.train import checkpoints, loop
from thermo_ebm.train.loop import Outcome

FEW = {"checkpoint__every_steps": 0, "checkpoint__every_epochs": 3}  # checkpoints


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert tiny.train(tiny.config(num_repetitions=3, **FEW), workdir) is Outcome.DONE
    return workdir


def test_images_that_are_not_there_or_others_change_nothing(tmp_path):
    """Nothing is trained with such images, and nothing is recorded."""
    rng = np.random.default_rng(0)
    ours, others = rng.integers(0, 256, (2, 190, 8, 8), np.uint8)
    named = {"ours": ours, "moved": ours, "others": others, "mirrored": ours[:, :, ::-1]}
    for name, images in named.items():
        np.savez(tmp_path / f"{name}.npz", images=images)

    def made(name, **changes):
        path = str(tmp_path / f"{name}.npz")
        return tiny.config(data__name="npz", data__data_dir=path, **changes)

    run = tmp_path / "run"
    assert tiny.train(made("ours"), run, dispatches=1) is Outcome.INTERRUPTED
    before = snapshot(run)
    another = "not those that the run was started with"
    for name, message in (("nosuch", "no file"), ("others", another), ("mirrored", another)):
        with pytest.raises(UserError, match=message):
            tiny.train(made(name, logging__pictures_every_epochs=7), run)
    assert snapshot(run) == before | {run / ".lock": (run / ".lock").stat().st_mtime_ns}
    assert tiny.train(made("moved", num_epochs=1), run) is Outcome.DONE
    assert configuration.read_config(run)["data"]["data_dir"] == str(tmp_path / "moved.npz")


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_uninterrupted_run_has_a_row_per_epoch(whole):
    for number in range(3):
        steps = [(row["epoch"], row["step"]) for row in tiny.rows(whole, number)]
        assert steps == [(1, 10), (2, 20), (3, 30)]
        assert tiny.end_state(tiny.config(), whole, number)["step"] == 30
    losses = {tiny.rows(whole, number)[-1]["train_loss"] for number in range(3)}
    assert len(losses) == 3, "repetitions have seeds of their own"


def test_stops_after_any_step_change_nothing(whole, tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1)
    # Before the first step; on and off checkpoints; just before, at and after an epoch's end, whose
    # readings are left to the next start; at the very end.
    for steps in (0, 1, 2, 1, 5, 1, 0, 1, 8, 1, 0, 10, 0):
        assert tiny.train(one_by_one, tmp_path, dispatches=steps) is Outcome.INTERRUPTED
    assert len(tiny.rows(tmp_path)) == 2
    assert tiny.train(tiny.config(**FEW), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_a_damaged_checkpoint_of_a_signal_costs_the_steps_since_the_one_before(whole, tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1)
    assert tiny.train(one_by_one, tmp_path, dispatches=7) is Outcome.INTERRUPTED
    folder = repetition_dir(tmp_path, 0)
    assert [path.name for path in (folder / checkpoints.INTERRUPTED).iterdir()] == ["7"]
    trained_run.damage(folder / checkpoints.INTERRUPTED)
    assert tiny.train(one_by_one, tmp_path, dispatches=1) is Outcome.INTERRUPTED
    assert [path.name for path in (folder / checkpoints.DAMAGED).iterdir()] == ["7"]
    assert [path.name for path in (folder / checkpoints.INTERRUPTED).iterdir()] == ["5"]
    assert tiny.train(tiny.config(**FEW), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_kill_after_the_readings_of_an_epoch_is_survived(whole, tmp_path, monkeypatch):
    """The row is written again, not twice."""
    one_by_one = tiny.config(steps_per_dispatch=1)
    assert tiny.train(one_by_one, tmp_path, dispatches=10) is Outcome.INTERRUPTED
    assert tiny.rows(tmp_path) == []

    def killed(opened, state, seconds):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.train(one_by_one, tmp_path)
    assert len(tiny.rows(tmp_path)) == 1
    assert tiny.train(tiny.config(**FEW), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_a_start_that_fails_later_leaves_the_configuration_as_it_was(tmp_path):
    assert tiny.train(tiny.config(), tmp_path, dispatches=4) is Outcome.INTERRUPTED
    config = (tmp_path / layout.CONFIG).read_bytes()
    table = repetition_dir(tmp_path, 0) / "readings.csv"
    table.write_text("odd\n")
    with pytest.raises(UserError, match=r"readings\.csv"):
        tiny.train(tiny.config(loss__power=5.0), tmp_path, allow=["loss.power"])
    assert (tmp_path / layout.CONFIG).read_bytes() == config


def test_fewer_epochs_than_are_done_lose_nothing(whole, tmp_path):
    made = tiny.config(steps_per_dispatch=1, **FEW)
    assert tiny.train(made, tmp_path, dispatches=25) is Outcome.INTERRUPTED
    assert tiny.train(tiny.config(num_epochs=2, **FEW), tmp_path) is Outcome.DONE
    assert tiny.end_state(tiny.config(), tmp_path)["step"] == 25
    assert len(tiny.rows(tmp_path)) == 2
    assert tiny.train(tiny.config(**FEW), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_events_of_an_epoch_that_is_written_again_replace_the_first(tmp_path, monkeypatch):
    opened, open_events = [], events.open_events

    def record(folder, resumed_step):
        opened.append(resumed_step)
        return open_events(folder, resumed_step)

    monkeypatch.setattr(events, "open_events", record)
    made = tiny.config(num_epochs=1, logging__writers=("csv", "tensorboard"), steps_per_dispatch=1)
    assert tiny.train(made, tmp_path, dispatches=10) is Outcome.INTERRUPTED
    assert tiny.train(made, tmp_path) is Outcome.DONE
    assert opened == [0, 9]  # an epoch's events are at its last step, 10


def test_slow_steps_are_dispatched_a_few_at_a_time(whole, tmp_path, monkeypatch):
    """So that a signal need not wait for the largest number of dispatched steps."""
    limits = []

    clock = itertools.count()
    made = tiny.config(**FEW)
    recorded = functools.partial(
        tiny.prepare_recorded, lambda state, stop, limit: limits.append(int(limit))
    )
    with monkeypatch.context() as patch:
        patch.setattr(loop.time, "perf_counter", lambda: 0.9 * next(clock))
        assert tiny.train(made, tmp_path, prepare=recorded) is Outcome.DONE
    # None to compile; one step, which seems to take 0.9 s; two, that long together; and so on.
    assert limits[:5] == [0, 1, 2, 4, 8]
    tiny.assert_equal_runs(whole, tmp_path)


@pytest.mark.slow
def test_other_dispatches_and_checkpoints_change_nothing(whole, tmp_path):
    made = tiny.config(steps_per_dispatch=1, **FEW | {"checkpoint__every_epochs": 2})
    assert tiny.train(made, tmp_path, prepare=tiny.prepare_as_configured) is Outcome.DONE
    assert tiny.rows(whole) == tiny.rows(tmp_path)
    # Not the sums of an epoch that has just begun, but all else is the same.
    tiny.assert_equal_runs(whole, tmp_path)


def test_a_longer_run_continues_a_shorter_one(whole, tmp_path):
    assert tiny.train(tiny.config(num_epochs=1), tmp_path) is Outcome.DONE
    assert tiny.train(tiny.config(**FEW), tmp_path) is Outcome.DONE
    tiny.assert_equal_runs(whole, tmp_path)


def test_done_repetitions_are_skipped_and_started_ones_continue(whole, tmp_path, capsys):
    three = tiny.config(num_repetitions=3, steps_per_dispatch=20)
    # The first step, and epochs of 4 + 4 + 2: the first repetition, and some of the second.
    assert tiny.train(three, tmp_path, dispatches=16) is Outcome.INTERRUPTED
    done = snapshot(repetition_dir(tmp_path, 0))
    assert 0 < len(tiny.rows(tmp_path, 1)) < 3
    assert not repetition_dir(tmp_path, 2).exists()
    capsys.readouterr()
    rest = tiny.config(num_repetitions=3, **FEW)
    assert tiny.train(rest, tmp_path) is Outcome.DONE
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


@pytest.mark.parametrize(
    "what",
    ["readings", *(pytest.param(what, marks=pytest.mark.slow) for what in ("events", "pictures"))],
)
def test_a_full_disk_ends_the_run_and_loses_nothing(whole, tmp_path, monkeypatch, what):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def full_for(path, content):
        return full(path) if str(path).endswith(suffix) else write_bytes(path, content)

    suffix = {"readings": "readings.csv", "pictures": ".png"}.get(what, "")
    write_bytes = files.write_bytes
    made = tiny.config(logging__pictures_every_epochs=2, logging__writers=("csv", "tensorboard"))
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
