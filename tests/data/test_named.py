"""Images named on one line: a folder, a file, a data set; and what is wrong with others."""

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.data.named import read_named
from thermo_ebm.errors import UserError


def test_a_file_is_resized_and_more_images_begin_with_the_same(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 10, 10, 3), np.uint8)
    np.savez(tmp_path / "some.npz", images=images)
    few = read_named(str(tmp_path / "some.npz"), 3, 8, 1)
    more = read_named(str(tmp_path / "some.npz"), 100, 8, 1)
    assert (few.shape, more.shape, more.dtype) == ((3, 8, 8, 1), (7, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(few, more[:3])


def test_a_folder_in_a_mixed_order(tmp_path):
    for level in range(20):
        Image.new("L", (8, 8), level).save(tmp_path / f"{level:02d}.png")
    levels = read_named(str(tmp_path), 20, 8, 1)[:, 0, 0, 0]
    assert sorted(levels) == list(range(20))
    assert list(levels) != sorted(levels)


def test_the_digits():
    assert read_named("digits", 4, 8, 1).shape == (4, 8, 8, 1)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "against=nowhere: no folder and no .npz file; data sets are cifar10, "),
        ("no.npz", "against=no.npz: no file 'no.npz'"),
        ("cifar10:valid", "against=cifar10:valid: 'valid' is no split of it; choose train or test"),
        ("svhn_cropped:test", "against=svhn_cropped:test: svhn_cropped is not prepared in "),
    ],
)
def test_one_line_for_what_is_wrong(place, message, tmp_path):
    with pytest.raises(UserError) as raised:
        read_named(place, 4, 8, 1, str(tmp_path))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"against=.*: no images \(.jpg"):
        read_named(str(tmp_path), 4, 8, 1)
