"""Images that cannot be read: all are counted, and the first ten named, in one line."""

import re

import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images, save_images
from PIL import Image

from thermo_ebm import data
from thermo_ebm.data.images import Images, read
from thermo_ebm.errors import UserError


def break_images(folder, numbers):
    for number in numbers:
        (folder / f"{number:06d}.png").write_bytes(b"broken")


def refusal(folder):
    with pytest.raises(UserError) as error:
        data.load(make_config("folder", folder, num_train=30, num_val=30))
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.fixture
def folder(tmp_path):
    save_images(tmp_path, numbered_images(60))
    return tmp_path


def names_in(message):
    return [int(number) for number in re.findall(r"(\d{6})\.png", message)]


def test_unreadable_images_of_both_sets_are_named_in_one_line(folder):
    break_images(folder, (41, 3, 17))
    message = refusal(folder)
    assert "cannot read 3 images" in message
    assert names_in(message)[:3] == [3, 17, 41]
    assert str(folder / "000017.png") in message
    assert "more" not in message


def test_of_many_unreadable_images_ten_are_named_and_the_others_counted(folder):
    break_images(folder, range(20, 45))
    first_ten, _, rest = refusal(folder).partition(" and ")
    assert "cannot read 25 images" in first_ten
    assert names_in(first_ten) == list(range(20, 30))
    assert rest.startswith("15 more (")


def test_an_image_that_cannot_be_converted_is_unreadable():
    odd = Image.new("LAB", (8, 8))  # Pillow does not convert it to grey
    with pytest.raises(ValueError, match="conversion"):
        odd.convert("L")

    def decode(indices):
        return [odd if i else Image.new("L", (8, 8)) for i in indices]

    with pytest.raises(UserError, match="cannot read the image number 1 of a test: conversion"):
        read(Images("a test", decode, np.arange(2), 8, 1))


def test_images_that_are_not_selected_may_be_unreadable(folder):
    config = make_config("folder", folder, num_train=20, num_val=10)
    train, validation = (levels_of(images) for images in data.load(config))
    break_images(folder, set(range(60)) - train - validation)
    assert [levels_of(images) for images in data.load(config)] == [train, validation]
