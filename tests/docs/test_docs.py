"""The documentation: generated pages are current, code runs, and the site builds offline."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trained_run
from patience import PATIENCE

from docs.tools import configuration, readings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))


def blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


SLOW = ("metrics.md", "metrics_alone.md", "own_model.md")  # a feature network; log p(x)
WITH_CODE = [
    pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW), id=path.stem)
    for path in PAGES
    if blocks(path)
]


def test_configuration_page_is_current():
    written = configuration.PAGE.read_text(encoding="utf-8")
    assert written == configuration.page(), "run python -m docs.tools.configuration"


def test_page_of_logged_metrics_is_current():
    written = readings.PAGE.read_text(encoding="utf-8")
    assert written == readings.page(), "run python -m docs.tools.readings"


def test_every_configuration_is_on_the_page():
    def has_get_config(path):
        return "def get_config(" in path.read_text()

    files = {path.stem for path in (ROOT / "configs").glob("*.py") if has_get_config(path)}
    assert {*configuration.DATA_SETS} == files - {"base"}


@pytest.mark.parametrize("path", WITH_CODE)
def test_code_of_the_pages_runs(path, tmp_path, monkeypatch):
    for name in ("quickstart", "digits"):
        shutil.copytree(trained_run.original(), tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks(path):
        exec(compile(code, path.name, "exec"), names)


def test_files_that_pages_name_are_there():
    """Modules, tests and configurations in code quotes; `rep_00/...` and the like are a run's."""
    pattern = r"`((?:thermo_ebm|configs|tests|benchmarks|launch|examples)/[\w/]+\.py)`"
    for path in PAGES:
        for name in re.findall(pattern, path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path}: {name}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_site_has_all_its_pages(site):
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert len(pages) >= 12
    assert {"index.html", "mathematics.html", "configuration.html", "api/models.html"} <= pages


def test_site_needs_no_network(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*src="(http[^"]*)"', text)
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(http[^"]*)"', text)
        assert loaded == [], path


def test_equations_are_mathml(site):
    text = (site / "mathematics.html").read_text(encoding="utf-8")
    assert text.count("<math") > 20
    assert "arithmatex" not in text


def test_reference_shows_the_comments_of_fields(site):
    text = (site / "api" / "sampling.html").read_text(encoding="utf-8")
    assert "Images sampled at once, with all their temperatures" in text
