"""The page of the study of noise: written from runs, every number from them."""

import csv
import shutil

import pytest
from study_builders import config, write_run

from study.pages import noise_study


def run(folder, noise, kid, **fields):
    """A run with readings of the update's noise."""
    changes = {
        "gradient_noise__amplification": 1.0,
        "gradient_noise__accumulate": 1,
        "sampler__chains_per_image": 2,
    }
    changes |= {"loss__generator_gradient": "reweighted", "data__num_train": 600}
    write_run(folder, config(**(changes | fields)), 3, noise, kid)
    for path in folder.glob("rep_*/readings.csv"):
        with open(path, encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "train_update_noise"])
            writer.writeheader()
            for row in rows:
                writer.writerow(row | {"train_update_noise": row["train_grad_var"]})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The runs of a small study. Not to be changed."""
    folder = tmp_path_factory.mktemp("study") / "runs"
    for loss in ("vanilla", "thermodynamic"):
        common = {"loss": loss, "loss__power": 1.0}
        for factor in (1.0, 4.0, 16.0):
            run(folder / f"{loss}-a{factor}", 0.1 * factor, 0.04 + 0.002 * factor, **common,
                gradient_noise__amplification=factor)  # fmt: skip
        for chains in (4, 8):
            run(folder / f"{loss}-m{chains}", 0.2 / chains, 0.04 + 0.004 / chains, **common,
                sampler__chains_per_image=chains)  # fmt: skip
    run(folder / "p6", 0.2, 0.045, loss__power=6.0)
    return folder


@pytest.fixture
def runs(original, tmp_path):
    return shutil.copytree(original, tmp_path / "runs")


@pytest.fixture(scope="module")
def output(original, tmp_path_factory):
    """The folder of their page."""
    folder = tmp_path_factory.mktemp("page") / "noise"
    written = noise_study.write(original, None, folder)
    assert {path for path in folder.rglob("*.*")} == set(written)
    return folder


def test_page_tables_and_figures(output):
    text = (output / "index.md").read_text(encoding="utf-8")
    for figure in ("kid_by_noise", "noise_by_factor"):
        assert f"figures/digits-{figure}.png" in text
    for name in ("cells", "factors", "claims"):
        assert (output / f"tables/{name}.csv").is_file()
        assert f"tables/{name}.csv" in text
    assert "settings.csv" not in text
    # KID rises by 0.03 over 4 doublings; amplification moves the noise 16-fold.
    answer = text.partition("## The answer")[2].partition("## Figures")[0]
    assert "Effect of the amplification on KID" in answer
    assert "(vanilla; " in answer
    factors = [line for line in text.splitlines() if "| amplification | 3 |" in line]
    assert [line.split(" | ")[5] for line in factors] == ["16", "16"]


COMMANDS = [
    "python -m launch.sweep --experiment=configs/experiment3_short.py --workdir=runs/one",
    "python -m launch.sweep --experiment=configs/experiment3_least.py --workdir=runs/one",
    "python -m launch.sweep --experiment=configs/settings_study_short.py --workdir=runs/two",
]


def test_the_program_with_a_study_of_settings_and_commands(original, tmp_path, capsys):
    output = tmp_path / "noise"
    arguments = [str(original), "--settings", str(original), "--output", str(output)]
    assert noise_study.main([*arguments, *(f"--made_by={text}" for text in COMMANDS)]) == 0
    printed = capsys.readouterr().out.split()
    assert {path.name for path in output.rglob("*.*")} == {name.split("/")[-1] for name in printed}
    assert (output / "tables/settings.csv").is_file()
    text = (output / "index.md").read_text(encoding="utf-8")
    design = text.partition("## Design")[2].partition("## The answer")[0]
    assert "(`configs/experiment3_short.py`, `configs/experiment3_least.py`)" in design
    assert "| power p |" in design
    assert "accumulation" not in design
    table = text.partition("## Which settings to use")[2].partition("## What")[0]
    assert table.count("| digits |") == 11
    assert "Cells of `configs/settings_study_short.py`" in table
    assert "| baseline |" in table
    noisy = "| `gradient_noise.amplification=4`, `gradient_noise.second_moment=amplified` |"
    assert noisy in table
    assert "| vanilla |" in table
    end = text.partition("## Reproducing this page")[2]
    assert "noise_study runs/one \\\n        --settings=runs/two" in end
    assert end.count("--made_by='python -m launch.sweep") == 3


def test_the_answer_follows_from_the_verdicts(output):
    text = (output / "index.md").read_text(encoding="utf-8")
    title, figure, _, answer, *_ = text.split("\n\n")
    assert title.startswith("# Does the noise")
    assert figure == "![digits: kid by noise](figures/digits-kid_by_noise.png)"
    assert answer.startswith("On digits, ")
    assert "at equal noise" in answer


def test_runs_without_evaluations_are_refused(runs, tmp_path, capsys):
    for path in runs.rglob("eval.csv"):
        path.unlink()
    assert noise_study.main([str(runs), "--output", str(tmp_path / "noise")]) == 2
    assert "digits has no evaluations" in capsys.readouterr().err
    assert not (tmp_path / "noise").exists()


def test_runs_of_another_experiment_are_refused(tmp_path, capsys):
    run(tmp_path / "runs/one", 0.1, 0.04)
    assert noise_study.main([str(tmp_path / "runs")]) == 2
    assert "no experiment on the noise" in capsys.readouterr().err


def test_runs_that_are_not_of_the_design_are_refused(runs, tmp_path, capsys):
    run(runs / "longer", 0.1, 0.04, loss__power=3.0, num_epochs=4)
    assert noise_study.main([str(runs), "--output", str(tmp_path / "noise")]) == 2
    assert "digits has cells with different numbers of updates" in capsys.readouterr().err
    run(runs / "detached", 0.1, 0.04, loss__power=3.0, loss__generator_gradient="detached")
    assert noise_study.main([str(runs), "--output", str(tmp_path / "noise")]) == 2
    assert "digits has the gradients contrastive, detached;" in capsys.readouterr().err


def test_columns_of_the_table_of_cells(output):
    with open(output / "tables/cells.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert {"noise_mean", "noise_sd", "kid_inf_mean", "kid_inf_stderr"} <= rows[0].keys()
    assert float(rows[0]["kid_inf_stderr"]) == pytest.approx(0.001)
    assert {row["dataset"] for row in rows} == {"digits"}
