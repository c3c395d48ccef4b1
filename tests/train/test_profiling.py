"""Profiles of some steps: which dispatches are traced, and where the trace is."""

import pytest
import tiny_training as tiny

from thermo_ebm.errors import UserError
from thermo_ebm.train import profiling
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.profiling import Steps

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture
def traces(monkeypatch):
    """What is called of JAX's profiler, in place of it, with the dispatches in between."""
    calls, make = [], tiny.spmd.make_programs

    def recording(task, size):
        made = make(task, size)

        def run(state, stop, limit, images):
            if limit:
                calls.append(int(state.step.min()))
            return made.run(state, stop, limit, images)

        return made._replace(run=run)

    monkeypatch.setattr(tiny.spmd, "make_programs", recording)
    profiler = profiling.jax.profiler
    monkeypatch.setattr(profiler, "start_trace", lambda folder, **_: calls.append("start"))
    monkeypatch.setattr(profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def test_the_dispatches_that_cover_the_steps_are_traced_once(tmp_path, traces):
    made = tiny.config(num_epochs=1, num_repetitions=2, steps_per_dispatch=1)
    assert tiny.train(made, tmp_path, profile=Steps(3, 5)) is Outcome.DONE
    once = [0, 1, "start", 2, 3, 4, "stop", 5, 6, 7, 8, 9]
    assert traces == [*once, *range(10)]


def test_a_trace_ends_where_training_ends(tmp_path, traces, capsys):
    made = tiny.config(num_epochs=1, steps_per_dispatch=1)
    stopped = tiny.train(made, tmp_path, dispatches=4, profile=Steps(3, 9))
    assert stopped is Outcome.INTERRUPTED
    assert traces == [0, 1, "start", 2, 3, "stop"]
    assert tiny.train(made, tmp_path, profile=Steps(1, 4)) is Outcome.DONE
    assert "none of these steps was trained, nothing is profiled" in capsys.readouterr().err
    assert traces[6:] == [4, 5, 6, 7, 8, 9]


@pytest.mark.slow
def test_a_trace_is_written_for_both_viewers(tmp_path):
    made = tiny.config(num_epochs=1)
    assert tiny.train(made, tmp_path, profile=Steps(2, 3)) is Outcome.DONE
    names = {path.name for path in (tmp_path / "profile").rglob("*") if path.is_file()}
    assert "perfetto_trace.json.gz" in names
    assert any(name.endswith(".xplane.pb") for name in names)


def test_the_flag_is_checked():
    made = tiny.config()
    assert profiling.parse(None, made) is None
    assert profiling.parse(["1", "30"], made) == Steps(1, 30)
    for parts in (["1"], ["1", "2", "3"], ["1", "x"], ["-1", "3"]):
        with pytest.raises(UserError, match="must be A,B, the first and the last step"):
            profiling.parse(parts, made)
    for parts in (["0", "3"], ["3", "2"], ["1", "31"]):
        with pytest.raises(UserError, match="must rise within 1 to 30, the steps of the run"):
            profiling.parse(parts, made)
