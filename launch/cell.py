"""Trains and evaluates one cell of a sweep; started by `launch.sweep` in a process of its own.

python -m launch.cell --cell=FILE

Exit codes as for `launch.train`: 0 done, 2 bad input, 3 interrupted, 4 diverged and given up.
"""

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from thermo_ebm.errors import UserError

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from thermo_ebm.sweep import executors
    from thermo_ebm.train.loop import catch_interrupts


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("cell", None, "File with the cell, written by launch.sweep.", required=True)


def main(argv: Sequence[str]) -> int:
    """Trains and evaluates the cell; returns the exit code."""
    del argv
    path = flags.FLAGS.cell
    program.check_devices()
    program.continue_without_output()
    try:
        encoded = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--cell={path}: {error.strerror}") from error
    return executors.run_encoded(encoded, catch_interrupts)


if __name__ == "__main__":
    program.run(main, define_flags)
