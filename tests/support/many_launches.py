"""Runs `python -m launch.train` many times for the price of one start of Python.

Reads a JSON list of [argv, environment] from standard input and writes a JSON list of
[exit code, standard output, standard error]. Each command runs in a process of its own, forked
after the imports and before JAX has made anything of its own.
"""

import json
import os
import sys
import tempfile
from pathlib import Path


def launch(argv, environment):
    """One command in a forked child."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        child = os.fork()
        if child == 0:
            os.environ.update(environment)
            for number, path in enumerate(outputs, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
            code = 1
            try:
                code = _run(argv)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return [code, *(path.read_text() for path in outputs)]


def _run(argv):
    import traceback

    from launch import program, train

    sys.argv = ["launch/train.py", *argv]
    try:
        train.define_flags()
        program.run(train.main)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    return 1


def main():
    from configs import base, digits  # noqa: F401
    from launch import train  # noqa: F401

    commands = json.load(sys.stdin)
    json.dump([launch(argv, environment) for argv, environment in commands], sys.stdout)


if __name__ == "__main__":
    main()
