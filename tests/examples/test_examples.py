"""Every script in `examples/` runs as its first lines say, and its numbers hold."""

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import pytest
import trained_run
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.fixture
def run(monkeypatch):
    """Runs a script in this process, and returns its output."""

    def run_script(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"examples/{name}.py", *map(str, arguments)])
        with contextlib.redirect_stdout(io.StringIO()) as output:
            runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
        return output.getvalue()

    return run_script


def numbers(text):
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_short_and_say_how_they_are_run(path):
    text = path.read_text()
    limits = {"tempered_posteriors": 200, "own_decoder": 65}  # a figure; a VAE with its training
    assert len(text.splitlines()) < limits.get(path.stem, 40)
    assert f"examples.{path.stem}" in text.split('"""')[1]


def test_every_script_is_run():
    here = Path(__file__).read_text()
    not_here = {path.stem for path in SCRIPTS if f"def test_example_{path.stem}_runs(" not in here}
    comparisons = (ROOT / "tests/launch/test_compare.py").read_text()
    assert [name for name in not_here if f'"examples.{name}:features"' not in comparisons] == []


@pytest.mark.slow
def test_example_own_model_runs(run):
    exact, estimated = numbers(run("own_model", 40))
    # The trapezium's and the chains' errors are a few hundredths of a nat each.
    assert estimated == pytest.approx(exact, abs=0.25)
    assert estimated != exact


@pytest.mark.slow
def test_example_mlp_decoder_runs(run, tmp_path):
    """The mean loss of the first epoch is 81 nats."""
    assert numbers(run("mlp_decoder", tmp_path / "run", 2))[0] > -40


@pytest.mark.slow
def test_example_own_decoder_runs(run):
    """The ELBO of a VAE is below its log p(x), here by a fraction of a nat."""
    output = run("own_decoder", 16, 300)
    value, error, bound = numbers(output)
    assert "reliable: yes" in output
    assert bound < value + 3 * error
    assert value < bound + 5


@pytest.mark.slow
def test_example_compare_folders_runs(run, tmp_path):
    digits = (load_digits().images[:24] * 15).astype("uint8")
    for number, image in enumerate(digits):
        folder = tmp_path / ("first" if number < 12 else "second")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    apart = numbers(run("compare_folders", tmp_path / "first", tmp_path / "second"))
    same = numbers(run("compare_folders", tmp_path / "first", tmp_path / "first"))
    fid, kid = slice(-2, -1), -1
    assert apart[fid][0] > 10 > abs(same[fid][0])
    assert apart[kid] > same[kid]


def test_example_sample_run_runs(run, tmp_path):
    picture = tmp_path / "samples.png"
    assert "16 samples" in run("sample_run", trained_run.original(), picture)
    with Image.open(picture) as image:
        assert image.width == pytest.approx(2 * image.height, rel=0.1)  # 8 x 4 images


@pytest.mark.slow
def test_example_tempered_posteriors_runs(run, tmp_path):
    plane = trained_run.save(tmp_path / "plane", model__latent_dim=2)
    picture = tmp_path / "plane.png"
    assert run("tempered_posteriors", plane, picture, 11) == f"wrote {picture}\n"
    with Image.open(picture) as image:
        assert image.width > image.height > 500


@pytest.mark.slow
def test_example_noise_against_power_runs(run):
    (power, noise) = numbers(run("noise_against_power", 3, 1.0))
    assert power == 1.0
    assert 0 < noise < 1
