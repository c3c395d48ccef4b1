"""Pictures: every pixel of a grid where it belongs, files that hold what was drawn."""

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.run import pictures


def random_images(num, height=8, width=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (num, height, width, channels), dtype=np.uint8)  # never white


def test_grid_places_every_pixel():
    images = random_images(7)
    canvas = pictures.grid(images, columns=3, gap=2)
    assert canvas.shape == (3 * 8 + 2 * 2, 3 * 6 + 2 * 2, 3)
    for number, image in enumerate(images):
        top, left = number // 3 * 10, number % 3 * 8
        np.testing.assert_array_equal(canvas[top : top + 8, left : left + 6], image)
        canvas[top : top + 8, left : left + 6] = 255
    assert (canvas == 255).all()  # gaps, and the cells that no image fills


def test_grid_refuses_other_arrays():
    for images, columns in [
        (random_images(4).astype(np.float32), 2),
        (random_images(4)[0], 2),
        (random_images(4, channels=4), 2),
        (random_images(4)[:0], 2),
        (random_images(4), 0),
    ]:
        with pytest.raises(ValueError, match=r"uint8|no images|columns"):
            pictures.grid(images, columns)


def test_small_images_are_magnified_by_a_whole_factor():
    for size, scale in [(4, 8), (8, 6), (32, 2), (47, 2), (48, 1), (64, 1)]:
        image = random_images(1, size, size, 1)
        large = pictures.magnify(image)
        assert large.shape == (1, size * scale, size * scale, 1)
        np.testing.assert_array_equal(large[:, ::scale, ::scale], image)
        np.testing.assert_array_equal(large[:, scale - 1 :: scale, scale - 1 :: scale], image)


def find(canvas, part):
    """Returns the (top, left) corners where `part` stands in `canvas`."""
    windows = np.lib.stride_tricks.sliding_window_view(canvas, part.shape)[:, :, 0]
    starts = np.argwhere((windows[:, :, 0, 0] == part[0, 0]).all(axis=-1))
    return [[top, left] for top, left in starts.tolist() if (windows[top, left] == part).all()]


def test_samples_stand_on_the_left_of_real_images_below_titles():
    for channels in [1, 3]:
        samples, real = (
            random_images(6, 48, 48, channels),
            random_images(9, 48, 48, channels, seed=1),
        )
        canvas = pictures.side_by_side(samples, real, columns=3, title="samples, epoch 12")
        corners = [find(canvas, image) for image in (samples[0], real[0], samples[5], real[8])]
        ((top, left),), ((real_top, real_left),), ((last_top, _),), ((real_last_top, _),) = corners
        assert top == real_top
        assert real_left - left >= 3 * 48 + 2 * 2 + 16
        assert (last_top - top, real_last_top - top) == (50, 100)
        assert (canvas[:top, left:real_left] < 128).any()  # a title above each
        assert (canvas[:top, real_left:] < 128).any()
        assert (canvas[:6] == 255).all()


def test_a_title_longer_than_its_grid_is_not_cut():
    images = random_images(1, 48, 48, 1)
    title = "samples, after a very long training of many epochs"
    canvas = pictures.side_by_side(images, images, 1, title)
    assert canvas.shape[1] > 200
    assert (canvas[:, -8:] == 255).all()


def test_png_holds_the_pixels(tmp_path):
    for shape in [(5, 7, 3), (5, 7, 1), (5, 7)]:
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        path = tmp_path / "samples" / "epoch_0005.png"
        pictures.save_png(path, image)
        with Image.open(path) as found:
            np.testing.assert_array_equal(np.asarray(found).reshape(shape), image)
        assert [file.name for file in path.parent.iterdir()] == ["epoch_0005.png"]
