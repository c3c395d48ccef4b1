"""Masks by name and from a picture, and one line for each that is none."""

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.errors import UserError
from thermo_ebm.evaluation.masks import filled, masked, read_mask


def test_halves_and_the_center():
    left, right, top, bottom, center = (
        read_mask(name, 4, 6) for name in ("left", "right", "top", "bottom", "center")
    )
    np.testing.assert_array_equal(left, ~right)
    np.testing.assert_array_equal(top, ~bottom)
    assert (left[:, 0].all(), left[:, 3:].any()) == (True, False)
    assert (top[:2].all(), top[2:].any()) == (True, False)
    assert center[1:3, 2:4].all()
    assert center.sum() == 4


def test_random_pixels_depend_on_the_seed_alone():
    mask = read_mask("random:0.3", 50, 50, seed=1)
    np.testing.assert_array_equal(mask, read_mask("random:0.3", 50, 50, seed=1))
    assert (mask != read_mask("random:0.3", 50, 50, seed=2)).any()
    assert abs(mask.mean() - 0.3) < 5 * np.sqrt(0.21 / mask.size)


def test_white_pixels_of_a_picture_are_hidden(tmp_path):
    hidden = np.random.default_rng(0).random((5, 7)) < 0.5
    path = tmp_path / "mask.png"
    Image.fromarray(np.uint8(255 * hidden)).save(path)
    np.testing.assert_array_equal(read_mask(str(path), 5, 7), hidden)


def test_hidden_pixels_are_grey_or_those_of_the_draws():
    rng = np.random.default_rng(0)
    images, mask = rng.integers(0, 256, (2, 4, 4, 3), np.uint8), read_mask("left", 4, 4)
    draws = rng.integers(0, 256, (2, 3, 4, 4, 3), np.uint8)
    result = filled(images, mask, draws)
    np.testing.assert_array_equal(result[:, :, :, :2], draws[:, :, :, :2])
    for number in range(3):
        np.testing.assert_array_equal(result[:, number, :, 2:], images[:, :, 2:])
    assert (masked(images, mask)[:, :, :2] == 128).all()


def test_other_masks_are_one_line(tmp_path):
    grey, small, text = (tmp_path / name for name in ("grey.png", "small.png", "text.png"))
    Image.fromarray(np.full((4, 4), 100, np.uint8)).save(grey)
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(small)
    text.write_text("no picture")
    for description, message in [
        ("middle", "mask=middle: must be one of left, right, .* there is no such file"),
        ("random:2", "mask=random:2: the share of hidden pixels must be above 0 and below 1"),
        ("random", "mask=random: the share"),
        (str(grey), "grey.png: must be black and white alone; white hides a pixel"),
        (str(small), "small.png: is 3 x 2 pixels, must be 4 x 4"),
        (str(text), "text.png: cannot be read as a picture"),
    ]:
        with pytest.raises(UserError, match=message):
            read_mask(description, 4, 4)
