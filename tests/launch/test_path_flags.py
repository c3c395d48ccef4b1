"""Paths given by flags: one type for all of them, in each program."""

import ast
import re
from pathlib import Path

import pytest
from absl import flags

from launch import path_flags

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("launch", "study", "benchmarks")
PATH_WORDS = re.compile(r"\b(file|folder|directory|path|image sets?)\b", re.IGNORECASE)


def test_home_folder_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, path in [
        ("~", str(tmp_path)),
        ("~/runs/a", f"{tmp_path}/runs/a"),
        ("runs/~", "runs/~"),
        ("./~/a", "./~/a"),
        ("cifar10:test", "cifar10:test"),
        ("/runs/été [1]", "/runs/été [1]"),
    ]:
        assert path_flags.checked(text) == path


def test_texts_that_are_no_paths_are_refused_with_the_flag(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(path_flags.flags, "FLAGS", values)
    flags.DEFINE(path_flags.PathParser(), "workdir", None, "Folder.", flag_values=values)
    for text, reason in [
        ("", "is empty"),
        ("  ", "is empty"),
        ("caf\udce9", "in UTF-8"),
        ("a\0b", "zero byte"),
        ("~nobody_of_this_name/x", "the folder that ~nobody_of_this_name stands for"),
    ]:
        with pytest.raises(flags.IllegalFlagValueError, match=f"--workdir.*{reason}"):
            values(["program", f"--workdir={text}"])


def test_plain_text_flags_are_no_paths():
    for path in sorted(p for folder in PROGRAMS for p in (ROOT / folder).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("DEFINE_string"):
                name, *texts = [ast.unparse(argument) for argument in call.args]
                assert not PATH_WORDS.search(" ".join(texts)), f"{path.name}: {name}: DEFINE_path"
                assert not re.search("dir|path|file|folder", name), f"{path.name}: {name}"


def test_programs_name_the_flag_of_an_empty_path(programs):
    for name, *arguments in [
        ("train", "--config=configs/digits_paper.py", "--workdir="),
        ("train", "--workdir=x", "--config="),
        ("train", "--config=configs/digits_paper.py", "--workdir=x", "--init_from="),
        ("sample", "--workdir=x", "--images="),
        ("report", "--runs=x", "--output="),
        ("likelihood", "--workdir=x", "--against="),
        ("sweep", "--workdir=x", "--experiment="),
        ("compare", "x", "y", "--json="),
    ]:
        code, out, err = programs.run(name, *arguments)
        assert (code, out) == (2, ""), (name, arguments, err)
        assert err.startswith("error: ")
        assert f"{arguments[-1]}:" in err
        assert "is empty" in err
        assert err.count("\n") == 1
    code, _, err = programs.run("compare", "", "x")
    assert code == 2
    assert err.startswith("error: set of images '': must be a path, and is empty")


def test_home_folder_in_the_name_of_a_configuration(programs, tmp_path, monkeypatch):
    code, _, err = programs.run("train", "--config=~nobody_of_this_name/a.py", "--workdir=x")
    assert code == 2
    assert "--config=~nobody_of_this_name/a.py: the folder that" in err
