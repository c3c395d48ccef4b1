"""Data sources: values, splits, and the answers to bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from image_sources import make_config

from thermo_ebm import data
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


# Every source.


def test_bad_fields_are_named():
    for changes, message in (
        ({"name": "mnist"}, "data.name='mnist'.*digits"),
        ({"channels": 2}, "data.channels=2"),
        ({"image_size": 0}, "data.image_size=0"),
        ({"num_train": -1}, "data.num_train=-1"),
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
