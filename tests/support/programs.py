"""The programs of `launch/` as their users run them, for the price of one start of Python.

A server imports the programs and forks a process for each command. Its standard input has a JSON
line for each command: the program's name, its arguments, a function of `trained_run` to call first
("" for none) and the folder for its output. It answers with the number of the process.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import quick
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [
    path.stem for path in (ROOT / "launch").glob("*.py") if "__main__" in path.read_text("utf-8")
]
# Libraries that the programs import only when they need them, and functions to call first.
FURTHER = (
    "configs.digits_paper",
    "matplotlib.pyplot",
    "scipy.stats",
    "sklearn.datasets",
    "trained_run",
)


class Result(NamedTuple):
    code: int  # negative for a signal
    out: str
    err: str


class Process(NamedTuple):
    """A program under way; files in its folder say how it ended."""

    pid: int
    folder: Path

    def is_over(self):
        return (self.folder / "code").exists()

    def err(self):
        return path.read_text() if (path := self.folder / "err").exists() else ""

    def wait(self):
        wait_until(self.is_over)
        texts = [(self.folder / name).read_text() for name in ("code", "out", "err")]
        return Result(int(texts[0]), *texts[1:])

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        return self.wait()


def wait_until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was never true"
        time.sleep(0.02)


class Programs:
    """The server, seen from a test."""

    def __init__(self, folder):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XLA_FLAGS": quick.XLA_FLAGS,
            # As `runtime.prepare_jax` sets it unless it is set; the JAX of the tests has set it.
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.folder, self.count = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def start(self, name, *argv, before=""):
        self.count += 1
        folder = self.folder / f"{name}_{self.count}"
        folder.mkdir()
        self.server.stdin.write(json.dumps([name, [*map(str, argv)], before, str(folder)]) + "\n")
        self.server.stdin.flush()
        return Process(int(self.server.stdout.readline()), folder)

    def run(self, name, *argv, before=""):
        return self.start(name, *argv, before=before).wait()

    def close(self):
        self.server.stdin.close()
        self.server.wait()


def _run(name, argv, before):
    from launch import program

    sys.argv = [f"launch/{name}.py", *argv]
    try:
        if before:
            getattr(importlib.import_module("trained_run"), before)()
        launched = importlib.import_module(f"launch.{name}")
        takes_arguments = getattr(launched, "TAKES_ARGUMENTS", False)
        program.run(launched.main, launched.define_flags, takes_arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    return 1


def _fork(name, argv, before, folder):
    """Starts one command; a keeper beside it writes down how it ended."""
    reader, writer = os.pipe()
    keeper = os.fork()
    if keeper:
        os.close(writer)
        pid = int(os.read(reader, 20))
        os.close(reader)
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        for number, file in enumerate(("out", "err"), 1):
            os.dup2(os.open(f"{folder}/{file}", os.O_WRONLY | os.O_CREAT), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # though pytest ignores it
        code = _run(name, argv, before)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.write(writer, str(child).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    Path(folder, "unfinished").write_text(str(code))
    Path(folder, "unfinished").rename(Path(folder, "code"))
    os._exit(0)


def _serve():
    for module in (*(f"launch.{name}" for name in PROGRAMS), *FURTHER):
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # before forks, so that they share the memory of what is imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    for line in sys.stdin:
        print(_fork(*json.loads(line)), flush=True)


if __name__ == "__main__":
    _serve()
