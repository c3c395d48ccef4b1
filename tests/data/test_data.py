"""Data sources: values, splits, shards, arrays, and the answers to bad input."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images

from thermo_ebm import data
from thermo_ebm.data import local
from thermo_ebm.errors import UserError

# Digits.


def test_digits_are_the_real_ones_over_the_whole_range():
    train, validation = data.load(make_config("digits", num_train=1500, num_val=297))
    assert train.shape == (1500, 8, 8, 1)
    assert validation.shape == (297, 8, 8, 1)
    assert train.dtype == validation.dtype == np.uint8
    from sklearn.datasets import load_digits

    expected = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    loaded = np.concatenate([train, validation])[..., 0]
    as_rows = lambda images: sorted(map(bytes, images))  # noqa: E731
    assert as_rows(loaded) == as_rows(expected)  # each image exactly once: disjoint and complete


def test_digits_are_shuffled_and_always_alike():
    first = data.load(make_config("digits", num_train=100, num_val=50))
    again = data.load(make_config("digits", num_train=100, num_val=50))
    more = data.load(make_config("digits", num_train=300, num_val=50))
    np.testing.assert_array_equal(first.train, again.train)
    np.testing.assert_array_equal(more.train[:100], first.train)
    np.testing.assert_array_equal(more.validation, first.validation)


def test_grey_images_are_repeated_to_the_channels_asked_for():
    grey = data.load(make_config("digits"))
    colour = data.load(make_config("digits", channels=3))
    assert colour.train.shape == (10, 8, 8, 3)
    np.testing.assert_array_equal(colour.train, np.repeat(grey.train, 3, axis=-1))


# Arrays.


def test_npz_by_name_and_as_the_only_array(tmp_path):
    images = numbered_images(15)
    np.savez(tmp_path / "only.npz", anything=images)
    np.savez_compressed(tmp_path / "named.npz", labels=np.arange(15), images=images[..., None])
    only = data.load(make_config("npz", tmp_path / "only.npz"))
    named = data.load(make_config("npz", tmp_path / "named.npz"))
    np.testing.assert_array_equal(only.train, named.train)
    assert levels_of(only.train) | levels_of(only.validation) == set(range(15))
    assert not levels_of(only.train) & levels_of(only.validation)


def test_npz_colour_to_grey_is_the_luminance(tmp_path):
    colour = np.zeros((3, 8, 8, 3), np.uint8)
    colour[0, ..., 0] = colour[1, ..., 1] = colour[2, ..., 2] = 255
    np.savez(tmp_path / "rgb.npz", images=colour)
    train, validation = data.load(make_config("npz", tmp_path / "rgb.npz", num_train=2, num_val=1))
    assert levels_of(train) | levels_of(validation) == {76, 150, 29}  # ITU-R 601


def test_larger_and_oblong_arrays_are_cropped_and_resized(tmp_path):
    images = np.zeros((4, 16, 40), np.uint8)
    images[:, :, 12:28] = 200  # exactly the central square
    np.savez(tmp_path / "wide.npz", images=images)
    train, _ = data.load(make_config("npz", tmp_path / "wide.npz", num_train=2, num_val=2))
    np.testing.assert_array_equal(train, np.full((2, 8, 8, 1), 200))


def test_npz_without_images_is_refused(tmp_path):
    path = tmp_path / "bad.npz"
    for arrays, message in (
        ({"images": np.zeros((20, 8, 8), np.float32)}, "float32"),
        ({"images": np.zeros((20, 3, 8, 8), np.uint8)}, r"\(20, 3, 8, 8\)"),
        ({"images": np.zeros((20, 64), np.uint8)}, r"\(20, 64\)"),
        ({"x": np.zeros(3, np.uint8), "y": np.zeros(3)}, "named 'images'"),
        ({"images": np.array([{}, None], dtype=object)}, "allow_pickle"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=message) as error:
            data.load(make_config("npz", path))
        assert str(path) in str(error.value)


def test_missing_npz(tmp_path):
    with pytest.raises(UserError, match="no file"):
        data.load(make_config("npz", tmp_path / "absent.npz"))
    with pytest.raises(UserError, match="no file"):
        data.load(make_config("npz", ""))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match=r"text\.npz cannot be read"):
        data.load(make_config("npz", tmp_path / "text.npz"))
    np.savez(tmp_path / "cut.npz", images=numbered_images(15))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:500])
    with pytest.raises(UserError, match=r"cut\.npz cannot be read"):
        data.load(make_config("npz", tmp_path / "cut.npz"))


def test_a_damaged_npz_is_one_line(tmp_path):
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez_compressed(path, images=images)
    content = path.read_bytes()
    for place in range(0, len(content), 37):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            local.npz(str(path))  # not every byte matters
        except UserError as error:
            assert str(error).startswith(f"data.data_dir: {path}")  # noqa: PT017


def test_an_npz_whose_member_is_not_an_array(tmp_path):
    path = tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"no array")
    with pytest.raises(UserError, match="its member is not an array"):
        local.npz(str(path))


# Every source.


def test_bad_fields_are_named():
    for changes, message in (
        ({"name": "mnist"}, "data.name='mnist'.*digits"),
        ({"channels": 2}, "data.channels=2"),
        ({"image_size": 0}, "data.image_size=0"),
        ({"num_train": 0}, "data.num_train=0"),
        ({"num_val": -1}, "data.num_val=-1"),
        (
            {"num_train": 1790, "num_val": 100},
            "data.num_train=1790 plus data.num_val=100: more than the 1797 images",
        ),
    ):
        config = make_config("digits")
        config.update(changes)
        with pytest.raises(UserError, match=message):
            data.load(config)


def test_unit_range_and_back():
    levels = np.arange(256, dtype=np.uint8)
    unit = data.to_unit(levels)
    assert unit.dtype == np.float32
    assert (unit[0], unit[255]) == (-1.0, 1.0)
    np.testing.assert_array_equal(data.to_uint8(unit), levels)
    on_device = jax.jit(data.to_unit)(jnp.asarray(levels))
    assert isinstance(on_device, jax.Array)
    np.testing.assert_allclose(on_device, unit, atol=1e-6)
    np.testing.assert_array_equal(jax.jit(data.to_uint8)(on_device), levels)
    np.testing.assert_array_equal(data.to_uint8(np.array([-3.0, 3.0])), [0, 255])
    np.testing.assert_array_equal(data.to_uint8(jnp.array([1.0], jnp.bfloat16)), [255])
