"""The notebook: stored without outputs, imports only existing names, and runs completely."""

import ast
import importlib
import importlib.util
import io
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "colab/thermo_ebm.ipynb"
OWN = ("thermo_ebm", "launch", "configs")


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells():
    return [cell for cell in read().cells if cell.cell_type == "code"]


def test_notebook_is_valid_and_stored_without_outputs():
    nbformat.validate(read())
    assert len(code_cells()) > 10
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells())
    assert NOTEBOOK.stat().st_size < 50_000


def set_up(folder, monkeypatch, uploads):
    """Runs the first code cell in `folder`; returns its names and the commands it would run."""
    commands = []
    colab = types.ModuleType("google.colab")
    colab.files = types.SimpleNamespace(upload=lambda: uploads)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code_cells()[0].source, "cell", "exec"), names)
    return names, commands


def zipped(*names):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return {"ThermoEBM.zip": content.getvalue()}


REPOSITORY_FILES = ("thermo_ebm/__init__.py", "launch/train.py", "configs/base.py")


@pytest.mark.parametrize("around", ["", "ThermoEBM-main/"])
def test_notebook_outside_a_clone_takes_a_zip_of_the_repository(tmp_path, monkeypatch, around):
    uploads = zipped(*(around + name for name in REPOSITORY_FILES))
    names, commands = set_up(tmp_path, monkeypatch, uploads)
    assert names["clone"] == tmp_path / "ThermoEBM" / around
    assert sys.path[0] == str(names["clone"])
    assert commands == []  # everything that is needed is installed here
    # Run again, it asks for nothing.
    assert set_up(tmp_path, monkeypatch, {})[0]["clone"] == names["clone"]


def test_notebook_refuses_another_zip(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="holds no clone of ThermoEBM"):
        set_up(tmp_path, monkeypatch, zipped("thesis.tex"))


def test_notebook_inside_a_clone_asks_for_nothing(monkeypatch):
    assert set_up(NOTEBOOK.parent, monkeypatch, {})[0]["clone"] == ROOT


def imported(source):
    """(module, name or None) of everything of ours that a cell imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def resolves(module, name):
    found = importlib.import_module(module)
    if name is None or hasattr(found, name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None


def test_notebook_cells_compile_and_import_existing_modules():
    names = {pair for cell in code_cells() for pair in imported(cell.source)}
    own = sorted((m, n or "") for m, n in names if m.partition(".")[0] in OWN)
    assert len(own) > 15
    assert [pair for pair in own if not resolves(pair[0], pair[1] or None)] == []


def texts(cell):
    for output in cell.outputs:
        yield output.get("text", "") + output.get("data", {}).get("text/plain", "")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_notebook_runs_from_the_top(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where its runs go
    notebook = read()
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=1500, kernel_name="python3", resources=resources).execute()
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    pictures = [o for cell in ran for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) > 15
    # In the toy and on the grid the corrected estimate is exact for every schedule.
    printed = "\n".join(text for cell in ran for text in texts(cell))
    for exact, corrected in (
        (r"log p\(x\), exact: (\S+)", "exact divergences"),
        (r"log p\(x\) = (\S+) nats", "difference"),
    ):
        evidence = float(re.search(exact, printed)[1])
        row = re.search(rf"^trapezium \+ {corrected} (.*)$", printed, re.MULTILINE)[1]
        assert [float(value) for value in row.split()] == pytest.approx([evidence] * 3, abs=0.002)
    # The noise of the reweighted gradient rises with p.
    rows = re.findall(r"^\d\s+reweighted\s+\S+\s+\S+\s+(\S+)\s+\S+$", printed, re.MULTILINE)
    noise = [float(value) for value in rows]
    assert len(noise) == 4
    assert noise[-1] > noise[0]
