"""The report from one command to the page, opened in a real browser where there is one."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from study_builders import KID, NETWORK, config, write_published, write_run

from study.figures import by_variance
from study.readings import load
from study.report import page, write_report
from study.report.section import Choices, save_figure
from thermo_ebm.errors import UserError
from thermo_ebm.likelihood.verdict import Verdict

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


class Parser(HTMLParser):
    """Collects the tags and every address that a page would load."""

    def __init__(self):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def write_tree(folder):
    for batch in (25, 75):
        write_run(folder / f"v{batch}", config("vanilla", batch_size=batch), variance=20 / batch)
    for power, kid in ((0.1, 0.07), (1.0, 0.06), (6.0, 0.04), (10.0, 0.05)):
        write_run(folder / f"p{power}", config(loss__power=power), variance=0.1 * power, kid=kid)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory, programs):
    """The report on a tiny sweep and two published files, made by the program itself."""
    place = tmp_path_factory.mktemp("report")
    write_tree(place / "runs")
    for power in ("0", "3", "6"):
        for repetition in range(2):
            name = f"logs/CelebA/p={power}/batch=75/experiment{repetition}.csv"
            write_published(place / "readings" / name, kid=0.04 + 0.001 * repetition)
    folders = {"runs": place / "runs", "readings": place / "readings", "output": place / "out"}
    done = programs.run("report", *(f"--{name}={folder}" for name, folder in folders.items()))
    assert done.code == 0, done.err
    assert "report.html" in done.out
    return place / "out"


def test_report_page_needs_no_other_file(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    parser = Parser()
    parser.feed(text)
    outside = [a for a in parser.addresses if not a.startswith(("data:", "#"))]
    assert outside == []
    assert "url(" not in text
    assert text.count('src="data:image/png;base64,') == len(list(report.glob("figures/*.png")))
    first = re.search(r'base64,([^"]+)"', text)
    assert first is not None
    assert base64.b64decode(first.group(1)).startswith(b"\x89PNG")


def test_the_page_says_what_was_used_and_what_is_missing(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    assert "digits, own runs" in text
    assert "CelebA, published readings" in text
    assert "prior gradient contrastive, generator gradient detached, quadrature trapezium" in text
    assert "prior gradient none" in text
    assert "EfficientNet-Lite0" in text
    assert "InceptionV3 (jax-fid)" in text
    assert "model.latent_dim" in text  # the configs


def test_claims_open_with_one_line_each(report):
    text = (report / "report.html").read_text(encoding="utf-8")
    claims = pd.read_csv(report / "tables/claims.csv")
    first = text.index("Claims of tables 2 and 3")
    lines = re.findall(r'<td class="claim">([^<]+)</td>', text)
    assert len(lines) == len(claims)
    assert text.index("Summary</h3>") < first < text.index('<td class="claim">')
    assert text.count('<svg class="interval"') == len(claims)
    assert {"family", "p_holm_one_family", "verdict_one_family"} <= set(claims.columns)


def test_a_drawn_interval_by_hand():
    drawn = page.draw_interval(2.0, (1.0, 4.0), null=0.0, margin=0.5, sign=1)
    scale = 0.94 * 80.0 / 4.0  # the farthest end is 4 from the null value
    assert (drawn.null, drawn.side) == (80.0, 80.0)
    places = (drawn.low, drawn.effect, drawn.high, drawn.margin_width)
    assert places == pytest.approx((80 + scale, 80 + 2 * scale, 80 + 4 * scale, 0.5 * scale))
    below = page.draw_interval(2.0, (1.0, 4.0), null=0.0, margin=0.5, sign=-1)
    assert (below.side, below.margin_at) == (0.0, pytest.approx(80.0 - 0.5 * scale))
    assert page.draw_interval(1.0, (float("nan"), 2.0), 0.0, 0.5, 1) is None


def test_changes_of_configuration_are_shown(tmp_path):
    write_run(tmp_path / "runs/kept")
    changed = write_run(tmp_path / "runs/changed", config(loss__power=1.0))
    change = {"epoch": 1, "step": 10, "field": "loss.power", "old": 6.0, "new": 1.0}
    (changed / "changes.json").write_text(json.dumps([change]))
    write_report(load(tmp_path / "runs", None), tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "Changes of configuration" in text
    assert "loss.power 6.0 → 1.0" in text
    assert "no: left out" in text


def test_figures_and_tables_are_written(report):
    names = {path.name for path in (report / "figures").iterdir()}
    for figure in ("variance_by_power", "kid_by_variance", "training_loss", "integral", "cost"):
        assert {f"digits-runs-{figure}.png", f"digits-runs-{figure}.svg"} <= names
    assert {"digits-runs-samples.png", "digits-runs-temperature_schedules.png"} <= names
    cells = pd.read_csv(report / "tables/cells.csv")
    assert len(cells) == 9
    claims = pd.read_csv(report / "tables/claims.csv")
    assert set(claims["verdict"]) <= {"supported", "not supported", "undecided"}
    assert {"digits", "celeb_a"} == set(claims["dataset"])
    assert not (claims["verdict"].isna() | claims["p_holm"].isna()).any()
    repetitions = pd.read_csv(report / "tables/repetitions.csv")
    assert len(repetitions) == 6 * 2 + 3 * 2
    published = repetitions[repetitions["origin"] == "published"]
    assert published["epoch"].tolist() == [2.0] * 6


def test_the_same_readings_give_the_same_pictures(tmp_path, study):
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        figure = by_variance.metric_by_variance(study, KID)
        save_figure(figure, tmp_path / place / "figure")
    for suffix in ("png", "svg"):
        first, second = (tmp_path / place / f"figure.{suffix}" for place in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), suffix


def test_mistakes_are_one_line_and_code_2(tmp_path, programs):
    for arguments, words in [
        ((), "--output"),
        (("--runs=nowhere", "--output=out"), "no such folder"),
        (("--wrong=1",), "wrong"),
        (("stray", "--output=out"), "stray"),
    ]:
        done = programs.run(
            "report", *(a.replace("=out", f"={tmp_path / 'out'}") for a in arguments)
        )
        assert done.code == 2
        assert words in done.err
        assert "Traceback" not in done.err
        assert len(done.err.strip().splitlines()) == 1
        assert not (tmp_path / "out").exists()


def test_an_unknown_network_and_a_folder_that_cannot_be_written(tmp_path):
    write_run(tmp_path / "runs/a")
    readings = load(tmp_path / "runs", None)
    with pytest.raises(
        UserError, match=f"features=resnet: no readings with it, only with {NETWORK}"
    ):
        write_report(readings, tmp_path / "out", Choices("resnet"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_report(readings, tmp_path / "file")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    write_run(tmp_path / "runs/a")
    name = "figures/digits-runs-training_loss.png"  # the first file
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"out/{name}: cannot be written \(Is a directory\)"):
        write_report(load(tmp_path / "runs", None), tmp_path / "out")


def test_runs_that_were_never_evaluated(tmp_path):
    run_folder = write_run(tmp_path / "runs/a")
    for path in run_folder.glob("rep_*/eval.csv"):
        path.unlink()
    write_report(load(tmp_path / "runs", None), tmp_path / "out", Choices(claims=True))
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "No claim can be tested" in text
    assert not (tmp_path / "out/tables/claims.csv").exists()


def test_the_report_of_one_run_begins_with_samples_curves_and_log_p(tmp_path):
    folder = write_run(tmp_path / "runs/a") / "rep_00"
    (folder / "likelihood").mkdir()
    mean = {"num_images": 5, "log_marginal_likelihood": -9.5, "stderr": 0.02, "low": -10.0}
    summary = {
        "where": "repetition 0, step 3",
        "validation": mean | {"high": -9.0},
        "verdict": Verdict(True)._asdict(),
    }
    (folder / "likelihood" / "summary.json").write_text(json.dumps(summary))
    write_report(load(tmp_path / "runs", None), tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    places = [
        text.index(title) for title in (">samples", "training loss", "Summary", "Cells: means")
    ]
    assert places == sorted(places)
    assert "repetition 0, step 3: -9.5 nats (95 % interval over 5 images -10 to -9" in text
    assert "reliable: yes" in text
    assert "Claims of" not in text


def test_text_is_escaped():
    frame = pd.DataFrame({"<b>": ["<script>alert(1)</script>", 'a"b']})
    text = page.render("t", [page.table(frame)], {})
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert 'data-value="a&#34;b"' in text


def browse(path, *arguments):
    """Opens a page in headless Chromium; returns its document and the console's lines."""
    assert CHROMIUM is not None
    profile = path.parent / "profile"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", *arguments]
    done = subprocess.run([CHROMIUM, *flags, path.as_uri()], capture_output=True, text=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_chromium
def test_the_page_opens_without_a_console_error(report, tmp_path):
    document, console = browse(report / "report.html")
    assert "CelebA, published readings" in document
    assert console == []
    broken = tmp_path / "broken.html"  # and the console is really listened to
    broken.write_text("<!doctype html><title>x</title><script>nothing.here()</script>")
    assert any("nothing is not defined" in line for line in browse(broken)[1])


@needs_chromium
def test_no_open_table_is_wider_than_a_page_of_1400_pixels(report, tmp_path):
    text = (report / "report.html").read_text(encoding="utf-8")
    measure = """<script>
    var cut = Array.from(document.querySelectorAll(".scroll")).filter(function (table) {
      return !table.closest("details:not([open])") && table.scrollWidth > table.clientWidth; });
    document.title = "cut: " + cut.length + " width: " + window.innerWidth;</script>"""
    path = tmp_path / "measured.html"
    path.write_text(text.replace("</body>", measure + "</body>"), encoding="utf-8")
    document, _ = browse(path, "--window-size=1400,2000")
    match = re.search(r"<title>(.*)</title>", document)
    assert match is not None
    assert match.group(1) == "cut: 0 width: 1400"


@needs_chromium
def test_tables_sort_by_a_click(tmp_path):
    frame = pd.DataFrame({"name": ["b", "a", "c"], "value": [10.0, 9.0, float("nan")]})
    clicks = "var b = document.querySelectorAll('th button'); b[1].click();"
    script = f"<script>{clicks}</script>"
    for times, order in ((1, "abc"), (2, "bac")):  # 9 before 10: by value; NaN last either way
        text = page.render("t", [page.table(frame)], {})
        path = tmp_path / f"sort{times}.html"
        path.write_text(text.replace("</body>", script * times + "</body>"), encoding="utf-8")
        document, console = browse(path)
        assert console == []
        assert "".join(re.findall(r'<td class="short" data-value="(\w)">', document)) == order
