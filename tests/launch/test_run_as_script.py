"""A program that is run as a script says in one line how to run it."""

import itertools
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(
    path.relative_to(ROOT)
    for folder in ("launch", "benchmarks", "study")
    for path in (ROOT / folder).rglob("*.py")
    if 'if __name__ == "__main__"' in path.read_text("utf-8")
)


def test_programs_of_every_folder_are_collected():
    folders = {str(path.parent) for path in PROGRAMS}
    assert folders == {"launch", "benchmarks", "study/measurements", "study/pages"}
    guards = {(ROOT / folder / "not_a_script.py").read_bytes() for folder in folders}
    assert len(guards) == 1  # a script finds only the modules of its own folder


def test_scripts_print_one_line(tmp_path):
    for program, arguments in itertools.product(PROGRAMS, [(), ("--help",)]):
        done = subprocess.run(
            [sys.executable, "-S", str(ROOT / program), *arguments],  # -S: no library is needed
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        module = ".".join(program.with_suffix("").parts)
        message = f"error: {ROOT / program} is not a script; run it as: python -m {module}\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", message)


def test_programs_of_every_folder_print_errors_as_one_line():
    """`program.run` sees to it; the study's pages parse their arguments by argparse."""
    others = [path for path in PROGRAMS if "program.run(main, " not in (ROOT / path).read_text()]
    pages = ("models_page", "noise_study", "paired", "step_study")
    assert sorted(others) == [Path(f"study/pages/{name}.py") for name in pages]
