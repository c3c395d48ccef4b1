"""Runs that skip unreadable images: recorded once, and the same images when they continue."""

import shutil

import numpy as np
import pytest
import tiny_training as tiny
from image_sources import save_images

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.run import load_run
from thermo_ebm.files import read_json
from thermo_ebm.run import layout
from thermo_ebm.train.loop import Outcome

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    save_images(folder, np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8))
    for number in (3, 50, 120):
        (folder / f"{number:06d}.png").write_bytes(b"broken")
    return folder


def made(folder, **changes):
    fields = {"data__name": "folder", "data__data_dir": str(folder), "num_epochs": 2}
    return tiny.config(**fields | {"data__skip_unreadable": True} | changes)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    assert tiny.train(made(folder), workdir) is Outcome.DONE
    return workdir


def test_what_is_left_out_is_recorded(whole):
    names = read_json(whole / layout.SKIPPED)
    assert names == ["000003.png", "000050.png", "000120.png"]


def test_without_the_field_nothing_is_trained(folder, tmp_path):
    with pytest.raises(UserError, match="cannot read 3 images"):
        tiny.train(made(folder, data__skip_unreadable=False), tmp_path / "run")
    assert not (tmp_path / "run" / layout.SKIPPED).exists()


def test_a_run_continues_with_the_images_it_began_with(whole, folder, tmp_path):
    """Even if the images were repaired, or the field is omitted."""
    run = tmp_path / "run"
    assert tiny.train(made(folder), run, dispatches=4) is Outcome.INTERRUPTED
    repaired = shutil.copytree(folder, tmp_path / "repaired")
    shutil.copy(repaired / "000001.png", repaired / "000050.png")
    assert tiny.train(made(repaired), run, dispatches=1) is Outcome.INTERRUPTED
    assert tiny.train(made(folder, data__skip_unreadable=False), run) is Outcome.DONE
    tiny.assert_equal_runs(whole, run)
    validation = load_run(run).validation_images(str(repaired))
    wanted = load_run(whole).validation_images()
    np.testing.assert_array_equal(validation, wanted)


def test_an_image_damaged_later_is_named(folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    run = tmp_path / "run"
    assert tiny.train(made(damaged), run, dispatches=4) is Outcome.INTERRUPTED
    for path in damaged.iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot read 190 images"):
        tiny.train(made(damaged), run)


def test_a_damaged_record_is_one_line(folder, tmp_path):
    assert tiny.train(made(folder), tmp_path, dispatches=4) is Outcome.INTERRUPTED
    (tmp_path / layout.SKIPPED).write_text("{}")
    with pytest.raises(UserError, match="not a list of images' names"):
        tiny.train(made(folder), tmp_path)
