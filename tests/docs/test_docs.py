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

import thermo_ebm as te
from docs.tools import configuration, mathml, readings, words
from thermo_ebm import metrics

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


def built_by_make():
    """The folder of `make lint` and `make docs`, unless a source has changed since."""
    folder = ROOT / "build" / "site"
    sources = [
        ROOT / "mkdocs.yml",
        *(ROOT / "docs").rglob("*"),
        *(ROOT / "thermo_ebm").rglob("*.py"),
    ]
    pages = [path for path in (folder / "index.html", folder / "404.html") if path.is_file()]
    newest = max(path.stat().st_mtime for path in sources if path.is_file())
    return folder if pages and all(page.stat().st_mtime > newest for page in pages) else None


def test_pages_are_short():
    counts = words.count()
    assert sum(counts.values()) <= 23_500
    assert "at most 23,500 words" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    studies = {name: number for name, number in counts.items() if "study/" in name}
    assert len(studies) >= 6
    assert {name: number for name, number in studies.items() if number > 1000} == {}


def test_a_page_of_a_study_begins_with_a_figure():
    for path in (ROOT / "docs/study").rglob("*.md"):
        title, figure = path.read_text(encoding="utf-8").split("\n\n")[:2]
        assert title.startswith("# "), path
        assert figure.startswith("!["), path


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if folder := built_by_make():
        return folder
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


def test_search_works_from_a_folder(site):
    """The index is a script, and the worker's replacement is shipped instead of fetched."""
    text = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert text.startswith("var __index = ")
    assert "log p(x)" in text
    assert (site / "javascripts" / "iframe-worker.js").is_file()
    assert 'src="../javascripts/iframe-worker.js"' in (site / "api" / "models.html").read_text()


def test_the_font_of_formulas_is_shipped_with_its_licence(site):
    (name,) = re.findall(
        r'url\("\.\./(fonts/[^"]+)"\)', (site / "stylesheets/extra.css").read_text()
    )
    assert (site / name).read_bytes().startswith(b"wOF2")
    assert (site / "fonts" / "GUST-FONT-LICENSE.txt").is_file()


def test_home_page_is_the_opening_of_the_readme(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "make quickstart" in text
    assert 'href="notebook.html"' in text
    assert "README" not in text
    code = (site / "notebook.html").read_text(encoding="utf-8")
    assert code.count("<pre") > 10


def test_log_p_is_typeset_in_sentences_and_left_alone_in_code():
    page = "<p>log p(x) and log p(x | z)</p><code>log p(x)</code><p>see dialog p(x)</p>"
    typeset = mathml.on_page_content(page)
    assert '<span class="formula">log <i>p</i>(<i>x</i>)</span>' in typeset
    assert '<span class="formula">log <i>p</i>(<i>x</i> | <i>z</i>)</span>' in typeset
    assert typeset.endswith("<code>log p(x)</code><p>see dialog p(x)</p>")


def test_operators_have_a_space_where_tex_puts_one():
    equation = mathml.on_page_content(r'<span class="arithmatex">\(a \log p(x) \exp(b)\)</span>')
    space = '<mspace width="0.167em" />'
    assert f"<mi>a</mi>{space}<mi>log</mi>{space}<mi>p</mi>" in equation
    assert '<mi>exp</mi><mo stretchy="false">' in equation


def test_equations_are_mathml(site):
    text = (site / "mathematics.html").read_text(encoding="utf-8")
    assert text.count("<math") > 20
    assert "arithmatex" not in text


def test_symbols_are_typeset_and_names_of_code_are_not():
    text = mathml.on_page_content("<p>N_t, sigma_l, f_alpha(z), train_loss, log_prior, t_ij</p>")
    assert '<span class="formula"><i>N</i><sub><i>t</i></sub></span>, ' in text
    assert '<span class="formula"><i>σ</i><sub><i>l</i></sub></span>, ' in text
    assert '<span class="formula"><i>f</i><sub><i>α</i></sub></span>(z), ' in text
    assert text.endswith("train_loss, log_prior, t_ij</p>")


def test_reference_has_every_name_and_describes_every_field(site):
    pages = {path: path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html")}
    text = "".join(pages.values())
    used = {
        name for path in PAGES for code in blocks(path) for name in re.findall(r"te\.(\w+)", code)
    }
    names = {*te.__all__, *used, *metrics.__all__} - {"choose_network"}  # `networks.choose`
    assert [name for name in names if not re.search(rf'id="thermo_ebm[\w.]*\.{name}"', text)] == []
    fields = re.findall(
        r'<div class="doc doc-object doc-attribute">\s*<h\d id="([^"]+)".*?'
        r'<div class="doc doc-contents ">(.*?)</div>',
        text,
        re.DOTALL,
    )
    assert len(fields) > 100
    assert [name for name, description in fields if "<p>" not in description] == []


def test_examples_in_the_reference_are_shown_as_code(site):
    """All of them run in tests/test_entrance.py."""
    for path in (site / "api").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "<blockquote>" not in text, path  # what Markdown makes of a line that begins with >
        assert "doctest:" not in text, path
        assert "&gt;&gt;&gt;" not in re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL), path


def test_reference_shows_the_comments_of_fields(site):
    text = (site / "api" / "sampling.html").read_text(encoding="utf-8")
    assert "Images sampled at once, with all their temperatures" in text
