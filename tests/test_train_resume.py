"""Runs stopped after any step and resumed end like uninterrupted ones, bit for bit."""

import pytest
import tiny_training as tiny

from thermo_ebm.train.loop import Outcome


@pytest.fixture(scope="module", autouse=True)
def _compile_once():
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny.compile_once(monkeypatch)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("whole")
    assert tiny.train(tiny.config(), workdir) is Outcome.DONE
    return workdir


def assert_equal_runs(one, other, number=0):
    made = tiny.config()
    assert tiny.rows(one, number) == tiny.rows(other, number)
    assert tiny.temperatures(one, number) == tiny.temperatures(other, number)
    tiny.assert_same(tiny.end_state(made, one, number), tiny.end_state(made, other, number))


def test_an_uninterrupted_run_has_a_row_an_epoch(whole):
    assert [(row["epoch"], row["step"]) for row in tiny.rows(whole)] == [(1, 10), (2, 20), (3, 30)]
    assert tiny.end_state(tiny.config(), whole)["step"] == 30


def test_stops_after_any_step_change_nothing(whole, tmp_path):
    one_by_one = tiny.config(steps_per_dispatch=1)
    # Before the first step; on and off checkpoints; just before, at and after an epoch's end.
    for steps in (0, 1, 2, 1, 5, 1, 1, 8, 1):
        assert tiny.train(one_by_one, tmp_path, dispatches=steps) is Outcome.INTERRUPTED
    assert len(tiny.rows(tmp_path)) == 2
    assert tiny.train(tiny.config(), tmp_path) is Outcome.DONE
    assert_equal_runs(whole, tmp_path)
