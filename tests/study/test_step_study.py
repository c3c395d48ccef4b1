"""Noise or steps: paired comparisons with known effects, and the page made of them."""

import json

import jax
import numpy as np
import pytest
import tiny_training as tiny

from study import steps
from study.measurements import noise_or_step
from study.pages import step_study
from thermo_ebm.errors import UserError
from thermo_ebm.metrics.networks import Network, Outputs
from thermo_ebm.train import programs

EFFECTS = {"plain": 0.0, "alone": 0.01, "amplified": 0.012}


def write_cell(folder, kids, **changes):
    cell = {
        "amplification": 1.0,
        "second_moment": "plain",
        "power": 1.0,
        "chains_per_image": 2,
        "batch_size": 75,
        "updates": 180,
    } | changes
    rng = np.random.default_rng(len(list(folder.iterdir())))
    rows = [
        {
            "seed": seed,
            "kid": kid,
            "fid": 20 + 100 * kid,
            "log_marginal_likelihood": -15 - 10 * kid,
            "recall": 0.5 + 0.01 * rng.normal(),
            "density": 0.7 + 0.01 * rng.normal(),
            "skipped": 0,
            "seconds": 10.0,
            "train_update_noise": 0.01 * cell["amplification"],
            "train_step_size": 0.002,
            "train_step_noise": 0.003,
        }
        for seed, kid in enumerate(kids)
    ]
    name = "-".join(map(str, cell.values()))
    (folder / f"{name}.json").write_text(json.dumps({"cell": cell, "repetitions": rows}))


@pytest.fixture
def folder(tmp_path):
    """Seeds differ by ten times the noise of the effects: only pairs show them."""
    results = tmp_path / "linear"
    results.mkdir()
    rng = np.random.default_rng(0)
    seeds = 0.03 + 0.01 * rng.normal(size=5)
    write_cell(results, seeds)
    for second_moment, effect in EFFECTS.items():
        kids = seeds + effect + 0.0003 * rng.normal(size=5)
        write_cell(results, kids, amplification=16.0, second_moment=second_moment)
    return results


def test_effects_are_found_in_pairs(folder):
    compared = steps.comparisons(steps.load([folder]))
    kids = compared[compared["metric"] == "kid"].set_index(["cell", "against"])
    for second_moment, effect in EFFECTS.items():
        row = kids.loc[(f"c = 16: {steps.ARMS[second_moment]}", "centre")]
        assert row["low"] <= effect <= row["high"]
        assert row["high"] - row["low"] < 0.002
        assert steps.verdict(row) == ("higher" if effect else "undecided")
    both = kids.loc[(f"c = 16: {steps.ARMS['amplified']}", f"c = 16: {steps.ARMS['alone']}")]
    assert both["difference"] == pytest.approx(0.002, abs=0.001)
    assert (compared["p_holm"] >= compared["p_value"]).all()


def test_unstable_repetitions_are_counted_and_kept(folder):
    write_cell(folder, [0.03, 0.03, 0.5, 0.03, np.nan], amplification=4.0)
    cells = steps.cells(steps.load([folder])).set_index("cell")
    row = cells.loc[f"c = 4: {steps.ARMS['plain']}"]
    assert (row["unstable"], row["repetitions"]) == (2, 5)
    assert row["kid"] > 0.1
    assert row["train_update_noise_ratio"] == pytest.approx(4)


def test_page_has_its_figure_first_and_its_numbers(folder, tmp_path):
    output = tmp_path / "page"
    paths = step_study.write([folder], output)
    assert all(path.exists() for path in paths)
    text = (output / "index.md").read_text()
    assert text.index("![") < text.index("|")
    assert len(text.split()) <= 1000
    rows = steps.comparisons(steps.load([folder]))
    row = rows[(rows["metric"] == "kid") & (rows["cell"] == f"c = 16: {steps.ARMS['alone']}")]
    assert f"{row['difference'].iloc[0]:+.3g}" in text


def test_folders_without_a_centre_are_refused(tmp_path):
    (tmp_path / "prior").mkdir()
    with pytest.raises(UserError, match="prior: no results"):
        steps.load([tmp_path / "prior"])
    write_cell(tmp_path / "prior", [0.1, 0.2], amplification=4.0)
    with pytest.raises(UserError, match="prior: the centre"):
        steps.load([tmp_path / "prior"])


@pytest.mark.slow
def test_cells_are_trained_and_measured(tmp_path):
    """The readings are those of the trainer, over all epochs; images are those of the samples."""
    config = tiny.config(num_epochs=2, loss__name="vanilla")
    state, rows = noise_or_step.train(tiny.prepare(config, 1), 1)
    assert int(programs.local(state.step)[0]) == 2 * 10
    assert rows[0]["skipped"] == 0
    tiny.train(config, tmp_path)
    of_run = tiny.rows(tmp_path)
    for name in ("train_step_size", "train_step_noise"):
        squares = [row[name] ** 2 for row in of_run]
        assert rows[0][name] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-4)
    noises = [row[noise_or_step.NOISE] for row in of_run]
    assert rows[0][noise_or_step.NOISE] == pytest.approx(np.mean(noises), rel=1e-5)

    def brightness(images, batch_size):
        del batch_size
        flat = images.reshape(len(images), -1).astype(np.float32) / 255
        return Outputs(flat[:, :6], np.zeros((len(images), 0)))

    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)
    real = brightness(np.repeat(images, 3, axis=-1), 100).features
    network = Network("brightness", "bilinear", "", 6, brightness)
    shared = noise_or_step.Measurement(network, images, real, None, None)
    prepared = tiny.prepare(config, 1)
    params = programs.local(programs.select_repetition(state, 0).params)
    metrics = noise_or_step.image_metrics(prepared, params, jax.random.key(0), shared)
    assert metrics.keys() == {"kid", "fid", "recall", "density"}
    assert all(np.isfinite(value) for value in metrics.values())
