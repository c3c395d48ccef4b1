"""Output whose reader has left: text is lost, and the work goes on."""

import io
import os
import sys

from thermo_ebm import console
from thermo_ebm.train.report import Reporter, RunSteps, say


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def terminal_that_is_closed():
    main, terminal = os.openpty()
    stream = os.fdopen(terminal, "w", buffering=1)
    os.close(main)
    return stream


def closed_stream():
    stream = io.StringIO()
    stream.close()
    return stream


def broken_streams():
    return [
        pipe_without_reader(),
        terminal_that_is_closed(),
        closed_stream(),
        open("/dev/full", "w", buffering=1, encoding="utf-8"),
        None,
    ]


def test_text_that_cannot_be_written_is_lost():
    for broken in broken_streams():
        stream = console.lenient(broken)
        for _ in range(2):
            print("text", file=stream, flush=True)
        assert console.lenient(stream) is stream
        assert not stream.isatty()


def test_characters_that_the_stream_lacks_are_lost():
    content = io.BytesIO()
    stream = console.lenient(io.TextIOWrapper(content, encoding="ascii"))
    print("ü", file=stream)
    print("u", file=stream, flush=True)
    assert content.getvalue().split() == [b"u"]


def test_a_stream_that_works_is_written():
    stream = io.StringIO()
    print("text", file=console.lenient(stream))
    assert stream.getvalue() == "text\n"


def test_progress_goes_on_without_a_reader(monkeypatch):
    for broken in broken_streams():
        monkeypatch.setattr(sys, "stderr", broken)
        say("text")
        with Reporter(RunSteps("rep_00", 10, 5, 1), broken) as reporter:
            reporter.doing("compiling")
            reporter.update(1, {"train_loss": 1.0})
            reporter.epoch_done({"epoch": 1})
            reporter.note("text")
        monkeypatch.undo()
