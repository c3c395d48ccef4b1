"""`te.compare`: sets of every kind, with the values of `launch.compare`."""

import jax
import numpy as np
import pytest
import trained_run
from PIL import Image

import thermo_ebm as te
from thermo_ebm.data import to_uint8
from thermo_ebm.evaluation import compare as comparing
from thermo_ebm.evaluation import evaluate, sets, statistics
from thermo_ebm.metrics import networks

SETTINGS = te.MetricSettings(num_sizes=3)
REAL, NEAR = np.random.default_rng(0).integers(0, 256, (2, 30, 8, 8, 3)).astype(np.uint8)
FAR = NEAR // 2


@pytest.fixture(autouse=True)
def use_quick_network(monkeypatch, tmp_path):
    monkeypatch.setattr(networks, "choose", lambda *arguments: trained_run.quick_network())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def save_images(folder, images):
    folder.mkdir()
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def test_folders_files_and_arrays_are_compared_alike(tmp_path):
    folder = save_images(tmp_path / "real", REAL)
    np.savez(tmp_path / "near.npz", images=NEAR)
    named = str(folder), str(tmp_path / "near.npz")
    expected = comparing.compare(*map(sets.open_set, named), SETTINGS)
    result = te.compare(folder, named[1], settings=SETTINGS)
    assert repr(result).replace("; features from the cache", "") == comparing.table(expected)
    assert result.values == {"B": expected.values}
    for near in (NEAR, NEAR / 255, NEAR / 127.5 - 1, NEAR.astype(np.float32)):
        of_arrays = te.compare(REAL, near, settings=SETTINGS)
        assert of_arrays.values["B"] == pytest.approx(expected.values)
    assert "B: array B (30 images; float32 from 0 to 255" in repr(of_arrays)


def test_several_sets_and_one_set_twice():
    result = te.compare(REAL, NEAR, FAR, settings=SETTINGS)
    assert result.values["A"]["kid"] < result.values["B"]["kid"]
    assert "B: array B" in repr(result)
    same = te.compare(REAL, REAL, settings=SETTINGS)
    assert same.values["B"]["kid"] == 0
    assert "A and B are the same images" in repr(same)


def test_grey_images_and_statistics(tmp_path):
    grey = te.compare(REAL[..., 0], NEAR[..., :1], settings=SETTINGS)
    assert "8 x 8" not in repr(grey)  # both are grey
    assert "in grey, B" not in repr(grey)
    moments = comparing.compute_statistics(
        sets.ImageSet("a", sets.arrays.from_array("a", REAL)), trained_run.quick_network(), SETTINGS
    )
    statistics.save(tmp_path / "a.npz", moments)
    result = te.compare(tmp_path / "a.npz", NEAR, settings=SETTINGS)
    assert set(result.values["B"]) == {"fid"}


def test_runs_are_held_out_images_and_samples():
    run = te.load_run(trained_run.original())
    result = te.compare(run, run, settings=SETTINGS)
    key, _ = evaluate.checkpoint_keys(run, 0, 30)
    samples = to_uint8(run.sample(40, key))
    expected = te.compare(run.validation_images(), samples, settings=SETTINGS)
    assert result.values["B"] == pytest.approx(expected.values["B"])
    assert "samples of repetition 0, step 30" in repr(result)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ((), r"^compare: 1 set of images; there must be 2 to 26"),
        ((NEAR[:, :4],), r"^array B: has shape \(30, 4, 8, 3\); images must be square"),
        ((NEAR.astype(np.float32) * 2,), r"^array B holds float32 from 0 to 510; images are"),
        ((NEAR[:2],), "array B: 2 images are too few"),
        (("nowhere",), "^nowhere: no such folder or file"),
    ],
)
def test_sets_that_cannot_be_compared(others, message):
    with pytest.raises(te.UserError, match=message):
        te.compare(REAL, *others, settings=SETTINGS)


def test_a_run_is_evaluated_without_a_trace(workdir):
    run = te.load_run(workdir)
    before = sorted(workdir.rglob("*"))
    values = run.evaluate(SETTINGS)
    network = trained_run.quick_network()
    prepared = evaluate.prepare(run, SETTINGS, network)
    expected = evaluate.evaluate(run, evaluate.Checkpoint(0, 30), prepared)
    assert values == expected.values
    assert {"kid", "kid_stderr", "fid_inf"} <= values.keys()
    assert sorted(workdir.rglob("*")) != before  # `evaluate.evaluate` has written its row
    assert not [path for path in before if path.name == "eval.csv"]


def test_keys_of_the_evaluation_are_those_of_the_program():
    run = te.load_run(trained_run.original())
    first, second = (evaluate.checkpoint_keys(run, 0, step)[0] for step in (20, 30))
    assert not np.array_equal(jax.random.key_data(first), jax.random.key_data(second))
