"""The trained models of the repository open, draw finite images, are small, and have a card."""

from pathlib import Path

import jax
import numpy as np
import pytest

import thermo_ebm as te

FOLDER = Path(__file__).resolve().parents[1] / "trained"
FILES = sorted(FOLDER.glob("*.safetensors"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_trained_model_opens_and_draws(path):
    assert path.stat().st_size < 4 * 2**20
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    run = te.load_run(path.with_suffix(""))  # whatever programs have written beside the file
    size = sum(leaf.size for leaf in jax.tree.leaves(run.params()))
    assert f"## {path.name}" in card
    assert f"{size:,} parameters" in card
    images = run.sample(8, jax.random.key(0))
    assert np.isfinite(images).all()
    assert te.to_uint8(images).std(axis=0).max() > 20  # samples differ


def test_there_are_trained_models():
    assert "digits" in [path.stem for path in FILES]
