"""The README: short, opens with a picture and two commands; its code runs, and its links work."""

import importlib.util
import re
from pathlib import Path

import pytest

import thermo_ebm as te
from launch import command

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_is_short_and_opens_with_picture_and_commands():
    assert len(README.splitlines()) <= 150
    opening = README.split("## In Python")[0]
    assert opening.index("![") < opening.index("make quickstart") < opening.index("make test")


CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_python_of_the_readme_is_short_and_uses_public_names():
    (code,) = CODE
    assert len([line for line in code.splitlines() if line]) <= 12
    assert set(re.findall(r"te\.(\w+)", code)) <= set(te.__all__)


@pytest.mark.slow
def test_python_of_the_readme_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(CODE[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    (mean,) = re.findall(r"log p\(x\) (\S+) \+- \S+ nats, reliable: yes", printed)
    assert -20 < float(mean) < -9  # -13.3 where the README was written
    assert "KID of pixels" in printed


def test_files_that_the_readme_names_exist():
    named = re.findall(r"\]\(([^)#]+)", README) + re.findall(
        r"`((?:thermo_ebm|configs)/[\w/.]+)`", README
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert len(named) > 20
    assert missing == []


def test_programs_that_the_readme_names_exist():
    assert set(re.findall(r"`thermo-ebm (\w+)", README)) == set(command.PROGRAMS)
    named = set(re.findall(r"python -m ((?:launch|examples)\.\w+)", README))
    assert all(importlib.util.find_spec(name) for name in named)
    options = re.findall(r"`thermo-ebm [^`]*--(?:config|experiment)=(\w+)", README)
    assert {name for name in options if not (ROOT / "configs" / f"{name}.py").is_file()} == {
        "CONFIG"
    }
