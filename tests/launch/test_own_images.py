"""A folder of images of one's own: short flags, and numbers that follow from the images."""

import json

import numpy as np
import pytest
from PIL import Image

TINY = (
    "--config.model.generator.features=2",
    "--config.model.latent_dim=4",
    "--config.sampler.prior.num_steps=2",
    "--config.num_epochs=2",
    "--config.evaluation.likelihood.every_epochs=0",
)


def write_images(folder, num=59):
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(num):
        pixels = random.integers(0, 256, (10, 12, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def command(folder, *flags):
    return ("train", "--config=folder", f"--data_dir={folder}", "--image_size=16", *flags)


def test_the_start_says_what_follows_from_the_images(programs, tmp_path):
    images = write_images(tmp_path / "mine")
    refused = (f"--workdir={tmp_path}/run", "--allow_config_change=foo")
    result = programs.run(*command(images, *TINY, *refused))
    assert result.code == 2
    assert result.err.splitlines() == [
        f"data        {images}: 47 images to train on, 12 held out",
        "batch_size  47 instead of 75: there are 47 training images",
        "generator   from 4 to 16 pixels with strides (1, 2, 2, 1) and widths (4, 2, 1)",
        "error: allow_config_change=foo: there is no such field",
    ]


def test_layers_that_make_the_size_are_not_changed(programs, tmp_path):
    layers = ("--config.model.generator.strides=(1,4)", "--config.model.generator.widths=(3,)")
    refused = (f"--workdir={tmp_path}/run", "--allow_config_change=foo")
    result = programs.run(*command(write_images(tmp_path / "mine"), *layers, *refused))
    assert result.code == 2
    assert "generator" not in result.err


@pytest.mark.slow
def test_a_folder_of_59_images_is_trained_on_continued_and_evaluated(programs, tmp_path):
    images = write_images(tmp_path / "mine")
    workdir = f"--workdir={tmp_path}/run"
    train = command(images, *TINY, workdir)
    result = programs.run(*train)
    assert result.code == 0, result.err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    numbers = config["data"]["num_train"], config["data"]["num_val"], config["batch_size"]
    assert numbers == (47, 12, 47)
    assert programs.run(*train).code == 0  # nothing is left
    result = programs.run("eval", workdir, "--newest_only", before="use_quick_network")
    assert result.code == 0, result.err
    assert "1 checkpoint evaluated" in result.out
    (images / "0.png").unlink()
    result = programs.run(*train)
    assert result.code == 2
    assert "data.num_train  47" in result.err
