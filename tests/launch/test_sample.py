"""The sampling program: every picture and array, and one line for each wrong choice."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from trained_run import damage, original

from thermo_ebm.evaluation.run import load_run
from thermo_ebm.run import pictures


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image)


def shown(path, images, columns):
    """Whether a picture holds a grid of these images."""
    return shows(path, pictures.grid(pictures.magnify(images), columns, gap=2)[..., 0])


def shows(path, grid):
    """Whether a picture holds this grid: below its title, within its frame of 8 pixels."""
    picture = opened(path)
    bottom, right = picture.shape[0] - 8, 8 + grid.shape[1]
    assert (picture[: bottom - len(grid)] < 128).any(), "it has no title"
    return np.array_equal(picture[bottom - len(grid) : bottom, 8:right], grid)


def test_pictures_hold_the_drawn_arrays(programs, tmp_path):
    workdir = original()
    output = tmp_path / "new" / "folder"
    command = ("sample", f"--workdir={workdir}", "--num=20", "--npz", "--repetition=1")
    code, out, err = programs.run(*command, f"--output={output}", "--step=20")
    assert (code, err) == (0, "")
    names = ["samples.png", "reconstructions.png", "interpolations.png", "drawn.npz"]
    written = [f"  {output / name}" for name in names]
    assert out.splitlines() == ["drawn from repetition 1, step 20:", *written]
    with np.load(output / "drawn.npz") as arrays:
        drawn = dict(arrays)
    assert drawn.pop("step") == 20
    assert {name: array.shape for name, array in drawn.items()} == {
        "samples": (20, 8, 8, 1),
        "originals": (10, 8, 8, 1),
        "reconstructions": (10, 8, 8, 1),
        "interpolations": (16, 8, 8, 1),
    }
    assert all(array.dtype == np.uint8 for array in drawn.values())
    run = load_run(workdir)
    np.testing.assert_array_equal(drawn["originals"], run.validation_images()[:10])
    # Each picture is its arrays, in a grid of about equal sides: 20 samples have 5 columns, and so
    # have 10 pairs.
    assert shown(output / "samples.png", drawn["samples"], 5)
    assert shown(output / "interpolations.png", drawn["interpolations"], 8)
    # Below each row of 5 images are their reconstructions; between pairs the gap is wider.
    rows = [
        pictures.grid(pictures.magnify(drawn[name][first : first + 5]), 5, gap=10)[..., 0]
        for first in (0, 5)
        for name in ("originals", "reconstructions")
    ]
    narrow, wide = (np.full((gap, rows[0].shape[1]), 255, np.uint8) for gap in (2, 10))
    grid = np.concatenate([rows[0], narrow, rows[1], wide, rows[2], narrow, rows[3]])
    assert shows(output / "reconstructions.png", grid)


def test_drawn_arrays_depend_on_the_seed_alone(programs, workdir):
    command = ("sample", f"--workdir={workdir}", "--num=8", "--npz")
    drawn = []
    for argument in ("--seed=0", "--seed=0", "--seed=1"):
        code, out, _ = programs.run(*command, argument)
        assert code == 0
        assert "drawn from repetition 0, step 30:" in out
        with np.load(workdir / "rep_00/drawn/drawn.npz") as arrays:
            drawn.append(dict(arrays))
    for name in ("samples", "reconstructions", "interpolations"):
        np.testing.assert_array_equal(drawn[0][name], drawn[1][name])
        assert (drawn[0][name] != drawn[2][name]).any()


@pytest.mark.parametrize(("num", "columns"), [(1, 1), (300, 16)])
def test_pictures_of_one_and_of_many_samples(programs, tmp_path, num, columns):
    """One is enough; of very many a picture shows the first 256, and the array holds them all."""
    command = ("sample", f"--workdir={original()}", f"--num={num}", "--npz")
    assert programs.run(*command, f"--output={tmp_path}").code == 0
    with np.load(tmp_path / "drawn.npz") as arrays:
        samples = arrays["samples"]
        assert len(samples) == num
        assert len(arrays["originals"]) == min(max(num // 2, 1), 40)
        assert len(arrays["interpolations"]) == 8 * min(max(num // 8, 1), 8)
    assert shown(tmp_path / "samples.png", samples[:256], columns)


def test_wrong_commands_are_one_line_and_code_2(programs, workdir, tmp_path):
    damage(workdir / "rep_01/checkpoints/30")
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    shutil.copytree(workdir, tmp_path / "untrained")
    shutil.rmtree(tmp_path / "untrained/rep_00/checkpoints")
    run = f"--workdir={workdir}"
    cases = [
        (["--workdir=/nowhere"], "/nowhere/config.json: not found"),
        ([f"--workdir={tmp_path}/untrained"], "no checkpoint there; train first"),
        ([run, "--repetition=2"], f"repetition=2: {workdir} has the repetitions 0, 1"),
        ([run, "--repetition=-1"], "repetition=-1: "),
        ([run, "--step=15"], "step=15: no such checkpoint; there are 0, 10, 20, 30"),
        ([run, "--repetition=1"], "30 cannot be read (.*); choose another step: 0, 10, 20"),
        ([run, "--step=last"], "--step=last: must be a number or best"),
        ([run, "--step=best"], "step=best: .*rep_00 has no best checkpoint yet; run launch.eval"),
        ([run, "--num=0"], "--num=0: must be a positive integer"),
        ([run, "--mask=middle"], "mask=middle: must be one of left, right"),
        ([run, "--mask=left", "--images=DIR"], "--mask writes filled.png alone"),
        ([run, f"--output={tmp_path}/file"], f"output={tmp_path}/file: cannot be written: "),
    ]
    for argv, message in cases:
        code, out, err = programs.run("sample", *argv)
        assert (code, out) == (2, ""), (argv, out, err)
        assert re.search(message, err), (argv, err)
        assert err.startswith("error: "), (argv, err)
        assert err.count("\n") == 1, (argv, err)


@pytest.mark.slow
def test_hidden_pixels_are_filled_in(programs, tmp_path):
    """A row has an image, what is observed of it, and its draws."""
    command = ("sample", f"--workdir={original()}", "--num=16", "--npz", f"--output={tmp_path}")
    code, out, err = programs.run(*command, "--mask=left")
    assert (code, err) == (0, "")
    paths = [tmp_path / "filled.png", tmp_path / "filled.npz"]
    assert out.splitlines()[1:] == [f"  {path}" for path in paths]
    with np.load(paths[1]) as arrays:
        drawn = dict(arrays)
    fills, images = drawn["filled"], drawn["originals"]
    assert fills.shape == (2, 8, 8, 8, 1)
    assert drawn["latents"].shape == (2, 8, 4)
    assert drawn["mask"].sum() == 32
    np.testing.assert_array_equal(fills[:, 0, :, 4:], images[:, :, 4:])
    assert (fills[:, 0, :, :4] != fills[:, 1, :, :4]).any()
    assert drawn["reliable"].all()
    seen = np.where(drawn["mask"][:, :, None], 128, images).astype(np.uint8)
    rows = np.concatenate([images[:, None], seen[:, None], fills], axis=1)
    assert shown(paths[0], rows.reshape(-1, 8, 8, 1), 10)
