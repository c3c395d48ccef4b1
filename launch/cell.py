"""One cell of a sweep, in a process of its own; started by `launch.sweep`.

python -m launch.cell --cell=FILE

Exit codes as of `launch.train`: 0 done, 2 bad input, 3 interrupted, 4 diverged for good.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch import program
from thermo_ebm.errors import UserError
from thermo_ebm.sweep import jobs

_CELL = flags.DEFINE_string("cell", None, "The cell, as launch.sweep wrote it.", required=True)


def main(argv: Sequence[str]) -> int:
    """Trains and evaluates the cell; returns the exit code."""
    del argv
    from thermo_ebm.train.interrupts import catch_interrupts

    try:
        written = Path(_CELL.value).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--cell={_CELL.value}: {error.strerror}") from error
    return jobs.run(written, catch_interrupts)


if __name__ == "__main__":
    program.run(main)
