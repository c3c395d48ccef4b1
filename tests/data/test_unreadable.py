"""Images that cannot be read: all are named, or left out alike by every process."""

import re

import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images, save_images
from PIL import Image

from thermo_ebm import data
from thermo_ebm.data import source
from thermo_ebm.data.source import Images, Source, Split, Unreadable
from thermo_ebm.errors import UserError


def break_images(folder, numbers):
    for number in numbers:
        (folder / f"{number:06d}.png").write_bytes(b"broken")


def names_in(message):
    return [int(number) for number in re.findall(r"(\d{6})\.png", message)]


def chosen(config):
    """The numbers of the images chosen for training and for validation, in their order."""
    return [images.reshape(len(images), -1)[:, 0].tolist() for images in data.load(config)]


@pytest.fixture
def folder(tmp_path):
    save_images(tmp_path, numbered_images(60))
    return tmp_path


def test_a_few_are_all_named_in_one_line(folder):
    config = make_config("folder", folder, num_train=30, num_val=30)
    break_images(folder, (41, 3, 17))
    with pytest.raises(UserError, match="cannot read 3 images") as error:
        data.load(config)
    message = str(error.value)
    assert names_in(message)[:3] == [3, 17, 41]
    assert str(folder / "000017.png") in message
    assert "more" not in message
    assert "data.skip_unreadable=true" in message
    assert "\n" not in message


def test_of_many_the_first_ten_are_named_and_the_others_counted(folder):
    config = make_config("folder", folder, num_train=30, num_val=30)
    break_images(folder, range(20, 45))
    with pytest.raises(UserError) as error:
        data.load(config)
    few, _, rest = str(error.value).partition(" and ")
    assert "cannot read 25 images" in few
    assert names_in(few) == list(range(20, 30))
    assert rest.startswith("15 more (")


def test_what_is_skipped_is_replaced_by_the_next_images(folder):
    config = make_config("folder", folder, num_train=20, num_val=10)
    train, validation = chosen(config)
    broken = [train[0], train[7], validation[3]]
    break_images(folder, broken)
    config.skip_unreadable = True
    new_train, new_validation = chosen(config)
    assert new_train[:18] == [number for number in train if number not in broken]
    assert new_validation[:9] == [number for number in validation if number not in broken]
    assert len(set(new_train) | set(new_validation)) == 30
    assert data.find_unreadable(config) == tuple(f"{number:06d}.png" for number in sorted(broken))
    # What is held out does not depend on how many images are trained on.
    config.num_train = 1
    assert chosen(config)[1] == new_validation


def test_a_replacement_that_is_unreadable_too_is_replaced(folder):
    config = make_config("folder", folder, num_train=20, num_val=10)
    more = make_config("folder", folder, num_train=23, num_val=10)
    train = chosen(more)[0]
    break_images(folder, (train[2], train[20], train[21]))
    config.skip_unreadable = True
    assert chosen(config)[0] == [*train[:2], *train[3:20], train[22]]
    assert len(data.find_unreadable(config)) == 3


def test_every_shard_leaves_out_the_same_images(folder):
    config = make_config("folder", folder, num_train=30, num_val=10)
    train = chosen(config)[0]
    break_images(folder, train[3:5])  # in the first shard alone
    config.skip_unreadable = True
    whole = data.load(config)
    parts = [data.load(config, (index, 3)) for index in range(3)]
    np.testing.assert_array_equal(np.concatenate([part.train for part in parts]), whole.train)
    # As a run goes on: by the names that were recorded, wherever the folder is now.
    moved = folder.with_name("moved")
    folder.rename(moved)
    config.update(data_dir=str(moved), skip_unreadable=False)
    skipped = [f"{number:06d}.png" for number in train[3:5]]
    np.testing.assert_array_equal(data.load(config, skipped=skipped).train, whole.train)
    with pytest.raises(UserError, match="cannot read"):
        data.load(config)


def test_too_few_readable_images_are_refused(folder):
    config = make_config("folder", folder, num_train=50, num_val=10)
    break_images(folder, (1, 2, 3))
    config.skip_unreadable = True
    message = r"more than the 57 images of .* without 3 unreadable ones"
    with pytest.raises(UserError, match=message):
        data.load(config)


def test_an_image_that_cannot_be_converted_is_unreadable(monkeypatch):
    odd = Image.new("LAB", (8, 8))  # Pillow does not convert it to grey
    with pytest.raises(ValueError, match="conversion"):
        odd.convert("L")
    split = Split(2, lambda indices: [odd if i else Image.new("L", (8, 8)) for i in indices], str)
    with pytest.raises(UserError, match="cannot read the image 1: conversion"):
        source.read(Images(split, np.arange(2), 8, 1), [0, 1])


def test_each_split_is_searched_for_its_own_names():
    def split(name, bad):
        def read(indices):
            return [
                Unreadable(f"{name}{i}", "torn") if i in bad else Image.new("L", (8, 8), i)
                for i in indices
            ]

        return Split(20, read, f"{name}[{{}}]".format)

    both = Source("a source", split("train", {1, 3}), split("test", {0}))
    selected = data.select(both, 3, 2, {"train[1]", "train[3]", "test[0]"})
    assert selected.train.tolist() == [0, 2, 4]
    assert selected.validation.tolist() == [1, 2]
    with pytest.raises(UserError, match=r"data\.num_train=19: more than the 18 train images"):
        data.select(both, 19, 2, {"train[1]", "train[3]"})


def test_images_that_nobody_asks_for_may_be_unreadable(folder):
    config = make_config("folder", folder, num_train=20, num_val=10)
    train, validation = chosen(config)
    break_images(folder, set(range(60)) - {*train, *validation})
    assert chosen(config) == [train, validation]
    assert data.find_unreadable(config) == ()
    assert levels_of(data.load(config).train) == set(train)
