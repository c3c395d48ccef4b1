"""Resizing against plain formulas and against Pillow; batching."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from thermo_ebm.metrics.networks import preprocess

from . import random_weights

# Enlarging and shrinking; positions in float32 cost a few thousandths of a grey level.
SHAPES = ((32, 32), (20, 37), (400, 350))


def bilinear_row(row, size):
    """Half-pixel centres, corners not aligned, edges repeated, no antialiasing."""
    centres = (np.arange(size) + 0.5) * len(row) / size - 0.5
    low = np.floor(centres)
    share = centres - low
    last = len(row) - 1
    left = row[np.clip(low, 0, last).astype(int)]
    right = row[np.clip(low + 1, 0, last).astype(int)]
    return (1 - share) * left + share * right


def test_bilinear_agrees_with_the_half_pixel_formula():
    for shape in SHAPES:
        image = random_weights.random_images(1, *shape)[0].astype(np.float64)
        rows = np.apply_along_axis(bilinear_row, 0, image, 299)
        expected = np.apply_along_axis(bilinear_row, 1, rows, 299)
        actual = preprocess.resize(image[None], 299, "bilinear")[0]
        np.testing.assert_allclose(actual, expected, atol=0.01)


def test_antialias_agrees_with_pillows_bicubic_of_float_channels():
    for shape in SHAPES:
        image = random_weights.random_images(1, *shape)[0]
        channels = [
            Image.fromarray(image[:, :, c].astype(np.float32)).resize((299, 299), Image.BICUBIC)
            for c in range(3)
        ]
        expected = np.clip(np.stack([np.asarray(channel) for channel in channels], -1), 0, 255)
        actual = preprocess.resize(image[None], 299, "antialias")[0]
        np.testing.assert_allclose(actual, expected, atol=0.01)


def test_resize_leaves_images_of_the_right_size_alone():
    image = random_weights.random_images(1, 299, 299)
    for method in ("bilinear", "antialias"):
        np.testing.assert_allclose(preprocess.resize(image, 299, method), image, atol=1e-3)


def test_to_rgb_repeats_grey_images_only():
    grey = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    assert (preprocess.to_rgb(grey) == grey).all()
    assert preprocess.to_rgb(grey).shape == (2, 2, 2, 3)
    colour = np.zeros((2, 4, 4, 3), np.uint8)
    assert preprocess.to_rgb(colour) is colour


def test_scaling_takes_a_number_for_all_channels_or_one_for_each():
    images = np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3)
    same = preprocess.scaled(images, preprocess.Scale(127.5, 2.0))
    np.testing.assert_array_equal(same, (images - 127.5) / 2)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's
    expected = (images - np.float32(mean)) / np.float32(std)
    scaled = preprocess.scaled(images, preprocess.Scale(mean, std))
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)


def test_batches_give_every_image_once_in_order():
    images = np.arange(7 * 4, dtype=np.float32).reshape(7, 2, 2)
    for batch_size in (1, 3, 7, 100):
        shapes = set()

        def apply(batch, shapes=shapes):
            shapes.add(batch.shape)
            return batch.sum(axis=(1, 2)), batch[:, 0, 0]

        sums, corners = preprocess.in_batches(apply, images, batch_size)
        np.testing.assert_array_equal(sums, images.sum(axis=(1, 2)))
        np.testing.assert_array_equal(corners, images[:, 0, 0])
        assert shapes == {(min(batch_size, 7), 2, 2)}  # a single shape: a single compilation


@pytest.mark.parametrize(("shape", "size"), [((40, 32), 24), ((8, 8), 21), ((20, 20), 20)])
def test_pillow_is_what_pillow_does_with_8_bits(shape, size):
    """One level apart at most, in fewer than 1 % of values: Pillow's weights have 22 bits."""
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    actual = np.asarray(preprocess.resize(jnp.asarray(images), size, "pillow"))
    expected = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), float)
            for image in images
        ]
    )
    assert np.abs(actual - expected).max() <= 1
    assert (actual != expected).mean() < 0.01


def test_tensorflow_resizing_by_hand():
    """Pixel i of 2n lies at i / 2; the last has no neighbour to the right."""
    images = jnp.asarray([[10, 20], [30, 60]], jnp.uint8)[None, :, :, None]
    actual = np.asarray(preprocess.resize(images, 4, "tensorflow"))[0, :, :, 0]
    rows = [[10, 15, 20, 20], [20, 30, 40, 40], [30, 45, 60, 60], [30, 45, 60, 60]]
    np.testing.assert_allclose(actual, rows)
    # Shrinking takes single pixels.
    image = jnp.arange(36.0).reshape(1, 6, 6, 1)
    actual = np.asarray(preprocess.resize(image, 3, "tensorflow"))[0, :, :, 0]
    np.testing.assert_allclose(actual, np.arange(36.0).reshape(6, 6)[::2, ::2])
