"""Reports: lines in files and a bar on a terminal with right figures; traces of steps."""

import fcntl
import functools
import io
import os
import pty
import re
import select
import struct
import termios

import jax
import pytest
import tiny_training as tiny

from thermo_ebm.errors import UserError
from thermo_ebm.train import report
from thermo_ebm.train.loop import Outcome
from thermo_ebm.train.report import Reporter, RunSteps, Steps


class Clock:
    """A clock that the test advances."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(reporter, clock, steps, seconds_a_step=1.0):
    for step in steps:
        clock.now += seconds_a_step
        reporter.update(step, {"train_loss": 1234.5678, "train_grad_noise": 0.0314159})


@pytest.fixture
def every_line(monkeypatch):
    """A line at every update."""
    monkeypatch.setattr(report, "LINE_SECONDS", 0.0)


SCHEDULE = RunSteps("rep_00", total_steps=100, steps_per_epoch=20, images_per_step=10)


def test_progress_lines_come_at_intervals_with_all_figures():
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE, stream, clock) as reporter:
        run(reporter, clock, range(1, 36))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d rep_00 epoch 2/5 step 30/100 loss 1235, noise 0\.03142, "
        r"10 images/s, 0:01:10 left",
        lines[-1],
    )


def test_compilation_counts_neither_for_speed_nor_for_time_left(every_line):
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE, stream, clock) as reporter:
        clock.now += 1000.0
        run(reporter, clock, [20, 40, 60], seconds_a_step=2.0)
    first, *_, last = stream.getvalue().splitlines()
    assert "left" not in first
    assert "100 images/s, 0:00:04 left" in last


def test_a_resumed_run_counts_from_where_it_was(every_line):
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE._replace(initial_step=60), stream, clock) as reporter:
        run(reporter, clock, [70, 80])
    assert "rep_00 epoch 4/5 step 80/100" in stream.getvalue()
    assert "100 images/s, 0:00:02 left" in stream.getvalue()


@pytest.mark.parametrize("back_to", [0, 20, 40])
def test_after_a_rollback_times_left_are_of_the_steps_since(back_to, every_line):
    """Never negative, and no division by 0."""
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE, stream, clock) as reporter:
        run(reporter, clock, [20, 40, 60])
        run(reporter, clock, [back_to + 20, back_to + 40], seconds_a_step=10.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert "-" not in stream.getvalue()
    assert "left" not in lines[3]  # nothing is known yet of the steps since
    left = 10 * (100 - back_to - 40) // 20
    assert f"step {back_to + 40}/100" in lines[4]
    assert f"20 images/s, 0:00:{left:02d} left" in lines[4]


LIKELIHOOD = {
    "val_log_marginal_likelihood": -9.36,
    "val_log_marginal_likelihood_stderr": 0.1009,
    "val_log_marginal_likelihood_reliable": 0.984,
}


def test_the_end_of_an_epoch_has_its_line():
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE, stream, clock) as reporter:
        row = {"epoch": 1, "train_loss": 12.5, "train_grad_noise": 0.25, "val_loss": 13.0}
        reporter.epoch_done(row)
        run(reporter, clock, [20, 40])
        reporter.epoch_done({"epoch": 2, "train_loss": 12.5} | LIKELIHOOD)
    first, last = (line[9:] for line in stream.getvalue().splitlines())
    assert first == "rep_00 epoch 1/5 done, loss 12.5, noise 0.25"
    log_p = "held-out log p(x) -9.36 +- 0.1, reliable share 0.984"
    assert last == f"rep_00 epoch 2/5 done, loss 12.5, {log_p}, 0:00:03 left"


def test_activities_between_steps_are_reported_but_not_each_time():
    """The first time, because it compiles, and when nothing was written for a while."""
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE, stream, clock) as reporter:
        for what, seconds in (("validating", 1), ("validating", 1), ("drawing", 9), ("drawing", 9)):
            reporter.doing(what)
            clock.now += seconds
        reporter.doing("validating")
    lines = [line.split()[-1] for line in stream.getvalue().splitlines()]
    assert lines == ["validating", "drawing", "validating"]


def test_progress_is_shown_by_the_first_process_alone(every_line):
    stream, clock = io.StringIO(), Clock()
    with Reporter(SCHEDULE, stream, clock, enabled=False) as reporter:
        run(reporter, clock, range(5))
        reporter.note("lost")
        reporter.doing("validating")
        reporter.epoch_done({"epoch": 1, "train_loss": 1.0})
    assert stream.getvalue() == ""


@pytest.fixture(params=[(24, 150)])
def terminal(request):
    """A pseudo-terminal's text stream, and a function that reads what was written to it."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *request.param, 0, 0))
    stream = os.fdopen(slave, "w")

    def written():
        text = b""
        while select.select([master], [], [], 0.1)[0]:  # a read gives 4 KiB at most
            text += os.read(master, 1 << 16)
        return text.decode()

    yield stream, written
    stream.close()
    os.close(master)


def test_a_terminal_gets_a_bar(terminal):
    stream, written = terminal
    clock = Clock()
    with Reporter(SCHEDULE._replace(initial_step=40), stream, clock) as reporter:
        run(reporter, clock, [60])
        reporter.doing("validating")
        reporter.doing("validating")
        reporter.note("a line above the bar")
        reporter.epoch_done({"epoch": 3, "train_loss": 1.0})
        reporter.epoch_done({"epoch": 4} | LIKELIHOOD)
        run(reporter, clock, [100], seconds_a_step=40.0)
    text = written()
    assert "rep_00 |" in text
    assert text.count("| validating") >= 2
    last = text.rstrip().split("\r")[-1]
    assert "rep_00 |" in last
    assert "| epoch 5/5 step 100/100 loss 1235, noise 0.03142, 10 images/s" in last
    assert re.search(r"\d\d:\d\d:\d\d rep_00 a line above the bar\r?\n", text)
    assert "epoch 3/5 done" not in text
    assert "epoch 4/5 done, held-out log p(x) -9.36 +- 0.1" in text


@pytest.mark.parametrize("terminal", [(0, 0)], indirect=True)
def test_a_terminal_without_a_size_gets_lines(terminal, every_line):
    stream, written = terminal
    with Reporter(SCHEDULE, stream, Clock()) as reporter:
        reporter.update(20, {"train_loss": 1.0})
    assert "epoch 1/5 step 20/100 loss 1" in written()


@pytest.fixture
def traces(monkeypatch):
    """Calls of JAX's profiler, in place of it, and the steps at which dispatches begin."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def train(calls, *args, **options):
    def record(state, stop, limit):
        if limit:
            calls.append(int(state.step.min()))

    prepare = functools.partial(tiny.prepare_recorded, record)
    return tiny.train(*args, prepare=prepare, **options)


def test_dispatches_that_cover_profile_steps_are_traced_once(tmp_path, traces):
    made = tiny.config(num_epochs=1, num_repetitions=2, steps_per_dispatch=1)
    assert train(traces, made, tmp_path, profile=Steps(3, 5)) is Outcome.DONE
    once = [0, 1, "start", 2, 3, 4, "stop", 5, 6, 7, 8, 9]
    assert traces == [*once, *range(10)]


def test_a_trace_ends_where_training_ends(tmp_path, traces, capsys):
    made = tiny.config(num_epochs=1, steps_per_dispatch=1)
    stopped = train(traces, made, tmp_path, dispatches=4, profile=Steps(3, 9))
    assert stopped is Outcome.INTERRUPTED
    assert traces == [0, 1, "start", 2, 3, "stop"]
    assert train(traces, made, tmp_path, profile=Steps(1, 4)) is Outcome.DONE
    assert "none of these steps was trained, nothing is profiled" in capsys.readouterr().err
    assert traces[6:] == [4, 5, 6, 7, 8, 9]


@pytest.mark.slow
def test_a_trace_is_written_for_both_viewers(tmp_path):
    made = tiny.config(num_epochs=1)
    assert tiny.train(made, tmp_path, profile=Steps(2, 3)) is Outcome.DONE
    names = {path.name for path in (tmp_path / "profile").rglob("*") if path.is_file()}
    assert "perfetto_trace.json.gz" in names
    assert any(name.endswith(".xplane.pb") for name in names)


def test_profile_steps_are_checked():
    made = tiny.config()
    assert report.parse_steps(None, made) is None
    assert report.parse_steps(["1", "30"], made) == Steps(1, 30)
    for parts in (["1"], ["1", "2", "3"], ["1", "x"], ["-1", "3"]):
        with pytest.raises(UserError, match="must be A,B, the first and the last step"):
            report.parse_steps(parts, made)
    for parts in (["0", "3"], ["3", "2"], ["1", "31"]):
        with pytest.raises(UserError, match="must rise within 1 to 30, the steps of the run"):
            report.parse_steps(parts, made)
