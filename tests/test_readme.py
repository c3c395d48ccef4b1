"""The README: short, opens with a picture and two commands; its code runs, and its links work."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short_and_opens_with_picture_and_commands():
    assert len(README.splitlines()) <= 150
    opening = README.split("## In Python")[0]
    assert opening.index("![") < opening.index("make quickstart") < opening.index("make test")


def test_python_of_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) == 12
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "GradientStatistics" in printed
    assert "nan" not in printed


def test_files_that_the_readme_names_exist():
    named = re.findall(r"\]\(([^)#]+)", README) + re.findall(
        r"`((?:thermo_ebm|configs)/[\w/.]+)`", README
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert len(named) > 20
    assert missing == []


def test_programs_that_the_readme_names_exist():
    named = set(re.findall(r"python -m ((?:launch|examples)\.\w+)", README))
    programs = {f"launch.{path.stem}" for path in (ROOT / "launch").glob("*.py")}
    inner = {"__init__", "cell", "config_file", "evaluation_flags", "flag_errors", "path_flags"}
    inner |= {"not_a_script", "program"}
    launched = {name for name in named if name.startswith("launch.")}
    assert launched == programs - {f"launch.{name}" for name in inner}
    assert all(importlib.util.find_spec(name) for name in named)
