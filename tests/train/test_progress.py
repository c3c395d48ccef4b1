"""Progress: plain lines in files, a bar on a (pseudo) terminal, and right figures in both."""

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios

import pytest

from thermo_ebm.train.progress import make_reporter


class Clock:
    """A clock that the test advances."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def run(reporter, clock, steps, seconds_a_step=1.0):
    for step in steps:
        clock.now += seconds_a_step
        reporter.update(step, loss=1234.5678, grad_var=0.0314159)


def test_lines_come_at_intervals_and_name_everything():
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_00", 100, 20, 75, 0, 10.0, stream, clock) as reporter:
        run(reporter, clock, range(1, 36))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d rep_00 epoch 2/5 step 30/100 loss 1234\.6, grad var 0\.0314, "
        r"75 images/s, 0:01:10 left",
        lines[-1],
    )


def test_compilation_counts_neither_for_speed_nor_for_time_left():
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_00", 100, 20, 10, 0, 0.0, stream, clock) as reporter:
        clock.now += 1000.0
        run(reporter, clock, [20, 40, 60], seconds_a_step=2.0)
    first, *_, last = stream.getvalue().splitlines()
    assert "left" not in first
    assert "100 images/s, 0:00:04 left" in last


def test_images_per_second_are_recent_and_time_left_counts_pauses():
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_00", 101, 101, 10, 0, 0.0, stream, clock) as reporter:
        run(reporter, clock, range(1, 41))
        clock.now += 40.0  # a validation
        run(reporter, clock, range(41, 82))
    assert "10 images/s, 0:00:30 left" in stream.getvalue().splitlines()[-1]  # 20 steps, 1.5 s each


def test_a_resumed_run_counts_from_where_it_was():
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_01", 100, 20, 10, 60, 0.0, stream, clock) as reporter:
        run(reporter, clock, [70, 80])
    assert "rep_01 epoch 4/5 step 80/100" in stream.getvalue()
    assert "100 images/s, 0:00:02 left" in stream.getvalue()


@pytest.mark.parametrize("back_to", [0, 20, 40])
def test_after_a_rollback_times_left_are_of_the_steps_since(back_to):
    """Below, at and above the first step seen: never negative, no division by 0."""
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_00", 100, 20, 10, 0, 0.0, stream, clock) as reporter:
        run(reporter, clock, [20, 40, 60])
        run(reporter, clock, [back_to + 20, back_to + 40], seconds_a_step=10.0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    assert "-" not in stream.getvalue()
    assert "left" not in lines[3]  # nothing is known yet of the steps since
    left = 10 * (100 - back_to - 40) // 20
    assert f"step {back_to + 40}/100" in lines[4]
    assert f"20 images/s, 0:00:{left:02d} left" in lines[4]


def test_the_end_of_an_epoch_has_its_line():
    stream = io.StringIO()
    with make_reporter("rep_00", 100, 20, 75, stream=stream) as reporter:
        row = {"epoch": 2, "train_loss": 12.5, "train_grad_var": 0.25, "val_loss": None}
        reporter.epoch_done(row)
    assert stream.getvalue()[9:] == (
        "rep_00 epoch 2/5 done, train_loss 12.5, train_grad_var 0.25\n"
    )


def test_activities_between_steps_are_reported_but_not_each_time():
    """The first time, because it compiles, and when nothing was written for a while."""
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_00", 100, 20, 75, 0, 10.0, stream, clock) as reporter:
        for what, seconds in (("validating", 1), ("validating", 1), ("drawing", 9), ("drawing", 9)):
            reporter.doing(what)
            clock.now += seconds
        reporter.doing("validating")
    lines = [line.split()[-1] for line in stream.getvalue().splitlines()]
    assert lines == ["validating", "drawing", "validating"]


def test_other_processes_are_silent():
    stream, clock = io.StringIO(), Clock()
    with make_reporter("rep_00", 100, 20, 75, 0, 0.0, stream, clock, enabled=False) as reporter:
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
    with make_reporter("rep_00", 100, 20, 75, 40, 0.0, stream, clock) as reporter:
        run(reporter, clock, [60])
        reporter.doing("validating")
        reporter.doing("validating")
        reporter.note("a line above the bar")
        reporter.epoch_done({"epoch": 3, "train_loss": 1.0})
        run(reporter, clock, [100], seconds_a_step=40.0)
    text = written()
    assert "rep_00 |" in text
    assert "compiling" in text
    assert text.count("| validating") >= 2
    last = text.rstrip().split("\r")[-1]
    assert "rep_00 epoch 5/5 |" in last
    assert "| loss 1234.6, grad var 0.0314, 75 images/s, 0:00:00 left" in last
    assert re.search(r"\d\d:\d\d:\d\d rep_00 a line above the bar\r?\n", text)
    assert "epoch 3/5 done" not in text


@pytest.mark.parametrize("terminal", [(0, 0)], indirect=True)
def test_a_terminal_without_a_size_gets_lines(terminal):
    stream, written = terminal
    with make_reporter("rep_00", 100, 20, 75, 0, 0.0, stream, Clock()) as reporter:
        reporter.update(20, 1.0, 0.1)
    assert "epoch 1/5 step 20/100 loss 1" in written()
