"""IDX files: read as they are written, and refused in one line when they are damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images

from thermo_ebm import data
from thermo_ebm.data.local import read_idx
from thermo_ebm.errors import UserError

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"


def as_idx(images):
    return b"\0\0\x08\x03" + struct.pack(">3I", *images.shape) + images.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Twenty training images and ten others, unpacked, with files of labels."""
    images = numbered_images(30, 6, 8)
    (tmp_path / TRAIN).write_bytes(as_idx(images[:20]))
    (tmp_path / TEST).write_bytes(as_idx(images[20:]))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x14" + bytes(20))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x0a" + bytes(10))
    return tmp_path


def pack(path, **changes):
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), **changes))
    path.unlink()


def test_idx_files_may_be_compressed(folder):
    config = make_config("idx", folder, num_train=20, num_val=10)
    plain = data.load(config)
    assert levels_of(plain.train) == set(range(20))
    assert levels_of(plain.validation) == set(range(20, 30))
    pack(folder / TRAIN)
    np.testing.assert_array_equal(data.load(config).train, plain.train)
    pack(folder / TEST)
    np.testing.assert_array_equal(data.load(config).validation, plain.validation)


def test_compression_is_decided_by_the_content(folder):
    config = make_config("idx", folder, num_train=20, num_val=10)
    plain = data.load(config)
    (folder / TRAIN).rename(folder / f"{TRAIN}.gz")  # as a browser names it that unpacks it
    (folder / TEST).write_bytes(gzip.compress((folder / TEST).read_bytes()))
    for images, expected in zip(data.load(config), plain, strict=True):
        np.testing.assert_array_equal(images, expected)


def test_hidden_files_and_folders_around_idx_files(folder, tmp_path):
    config = make_config("idx", folder, num_train=20, num_val=10)
    plain = data.load(config)
    (folder / f"._{TRAIN}").write_bytes(b"\0\5\x16\7")
    np.testing.assert_array_equal(data.load(config).train, plain.train)
    for part in (TRAIN, TEST):  # each file in a folder of its own name
        content = (folder / part).read_bytes()
        (folder / part).unlink()
        (folder / part).mkdir()
        (folder / part / part.upper()).write_bytes(content)
    np.testing.assert_array_equal(data.load(config).train, plain.train)
    # The same content twice is one data set.
    (folder / "train-images.idx3-ubyte").write_bytes((folder / TRAIN / TRAIN.upper()).read_bytes())
    (folder / TRAIN / TRAIN.upper()).rename(folder / TRAIN.upper())
    np.testing.assert_array_equal(data.load(config).train, plain.train)


def test_idx_levels_of_0_and_1_are_refused(folder):
    (folder / TRAIN).write_bytes(as_idx(np.eye(8, dtype=np.uint8)[None, :6].repeat(20, axis=0)))
    with pytest.raises(UserError, match=f"{TRAIN}: all levels are 0 or 1, of 255"):
        data.load(make_config("idx", folder))


def test_idx_pixels_keep_their_order(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    (tmp_path / TRAIN).write_bytes(as_idx(images))
    np.testing.assert_array_equal(read_idx(tmp_path / TRAIN), images)


def test_file_names_of_emnist_are_accepted(folder):
    (folder / TRAIN).rename(folder / "emnist-letters-train-images-idx3-ubyte")
    (folder / TEST).rename(folder / "emnist-letters-test-images-idx3-ubyte")
    assert len(data.load(make_config("idx", folder)).train) == 10
    (folder / "emnist-letters-train-images-idx3-ubyte").rename(folder / "train-images.idx3-ubyte")
    assert len(data.load(make_config("idx", folder)).train) == 10
    (folder / "emnist-mnist-train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(UserError, match="several files of train images"):
        data.load(make_config("idx", folder))


def test_missing_idx_files_are_named(folder, tmp_path):
    for path in ("", tmp_path / "absent"):
        with pytest.raises(UserError, match=r"no folder.*data\.name=idx"):
            data.load(make_config("idx", path))
    (folder / TEST).unlink()
    with pytest.raises(UserError, match=f"has no {TEST} or {TEST}.gz"):
        data.load(make_config("idx", folder))
    (folder / TEST).write_bytes(as_idx(numbered_images(10)))
    with pytest.raises(UserError, match="num_train=21: more than the 20 train images"):
        data.load(make_config("idx", folder, num_train=21))


def refusal(folder):
    with pytest.raises(UserError) as error:
        data.load(make_config("idx", folder))
    message = str(error.value)
    assert message.startswith(f"data.data_dir: {folder / TRAIN}")
    assert "\n" not in message
    return message


def test_damaged_idx_files_are_refused_in_one_line(folder):
    path = folder / TRAIN
    content = path.read_bytes()
    head, pixels = content[:4], content[16:]
    for damaged, message in (
        (content[:-1], "declares 20 images of 6 x 8 pixels, 960 bytes, but holds 959"),
        (content + b"\0", "960 bytes, but holds 961"),
        (content[:10], "is not an IDX file of images"),
        (b"", "starts with nothing"),
        (b"\0\0\x08\x01" + content[4:], "starts with 00 00 08 01"),  # labels
        (b"\0\0\x0d\x03" + content[4:], "starts with 00 00 0d 03"),  # floats
        (b"<html>" + content, "starts with 3c 68 74 6d"),
        (head + b"\xff" * 12 + pixels, "declares 4294967295 images"),
        (head + bytes(12), "declares 0 images"),
    ):
        path.write_bytes(damaged)
        assert message in refusal(folder)


def test_damaged_compressed_idx_files_are_refused_in_one_line(folder):
    path = folder / (TRAIN + ".gz")
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 8), np.uint8)
    (folder / TRAIN).write_bytes(as_idx(images))
    pack(folder / TRAIN, mtime=0)
    original = path.read_bytes()
    for content in (
        original[:-20],
        original[:5],
        b"no gzip",
        original[:200] + b"\0\0\0" + original[203:],
    ):
        path.write_bytes(content)
        refusal(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"{folder} has no {TRAIN}"):
        data.load(make_config("idx", folder))


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian():
    from configs import fashion_mnist

    config = fashion_mnist.get_config().data
    config.update(image_size=28, num_train=60_000, num_val=10_000)
    train, validation = data.load(config)
    # The published mean and standard deviation of its training pixels, 0.2860 and 0.3530.
    np.testing.assert_allclose(train.mean() / 255, 0.2860, atol=5e-5)
    np.testing.assert_allclose(train.std() / 255, 0.3530, atol=5e-5)
    assert len(validation) == 10_000
