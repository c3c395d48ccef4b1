"""Writes the report of a sweep, of the paper's published readings, or of both.

    python -m launch.report --runs=RUNS --output=DIR
    python -m launch.report --readings=READINGS --output=DIR

writes DIR/report.html (one page that needs no other file), DIR/figures (PNG and SVG) and DIR/tables
(CSV). Exit codes: 0 done, 2 bad input.
"""

if not __package__:
    __import__("not_a_script")

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from thermo_ebm.errors import UserError

from . import program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    try:
        from study.readings import load
        from study.report import Choices, write_report
    except ModuleNotFoundError as missing:
        program.refuse(
            f"there is no module {missing.name}: the report needs a clone of the repository and "
            "the packages of its requirements.txt; run python -m launch.report in its folder"
        )


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    DEFINE_path("runs", None, "Folder that is searched for run directories.")
    DEFINE_path("readings", None, "Folder of the paper's published CSV files.")
    DEFINE_path("output", None, "Folder for report.html, figures/ and tables/.")
    flags.DEFINE_string(
        "features",
        None,
        "Feature network whose KID and FID decide the claims; by default InceptionV3 if any.",
    )
    flags.DEFINE_bool(
        "claims",
        None,
        "Test the paper's claims; by default where there are cells enough. --claims says why not.",
    )


def main(argv: Sequence[str]) -> None:
    """Reads the readings, writes the report and prints its path."""
    del argv
    values = flags.FLAGS
    if not values.output:
        raise UserError("--output: missing; give --output=FOLDER for the report")
    if not values.runs and not values.readings:
        raise UserError("nothing to report on: give --runs=FOLDER, --readings=FOLDER or both")
    folders = (Path(folder) if folder else None for folder in (values.runs, values.readings))
    readings = load(*folders)
    written = write_report(readings, Path(values.output), Choices(values.features, values.claims))
    for note in readings.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{written[0]} ({len(written) - 1} figures and tables beside it)")


if __name__ == "__main__":
    program.run(main, define_flags)
