"""Files of arrays: what is recognised by its content, the array that is taken, and conversions."""

import gzip
import pickle
import zipfile

import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images

from thermo_ebm import data
from thermo_ebm.data import arrays
from thermo_ebm.errors import UserError


def pictures(num=12, size=8, channels=3):
    shape = (num, size, size, channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def opened(path, array="", channels=3):
    """The images of a file as they are decoded, and the remarks."""
    images = arrays.open_array(str(path), array)
    size = images.decode([0])[0].width
    return data.images.read(images._replace(size=size, channels=channels)), images.remarks


def refusal(path, array=""):
    with pytest.raises(UserError) as error:
        arrays.open_array(str(path), array)
    message = str(error.value)
    assert message.startswith(f"data.data_dir: {path}")
    assert "\n" not in message
    return message.removeprefix(f"data.data_dir: {path}")


# Which array is taken.


def test_npz_by_name_and_as_the_only_array(tmp_path):
    images = numbered_images(15)
    np.savez(tmp_path / "only.npz", anything=images)
    np.savez_compressed(tmp_path / "named.npz", labels=np.arange(15), images=images[..., None])
    only = data.load(make_config("npz", tmp_path / "only.npz"))
    named = data.load(make_config("npz", tmp_path / "named.npz"))
    np.testing.assert_array_equal(only.train, named.train)
    assert levels_of(only.train) | levels_of(only.validation) == set(range(15))
    assert not levels_of(only.train) & levels_of(only.validation)


def test_files_of_other_programs_with_one_array_of_images(tmp_path):
    images, path = pictures(), tmp_path / "file.npz"
    moments = {"mu": np.zeros(9), "sigma": np.eye(9), "mu_s": np.zeros(7), "sigma_s": np.eye(7)}
    for content, name, remarks in (
        ({"arr_0": images, "arr_1": np.zeros(12, np.int64)}, "arr_0", 1),
        ({"arr_0": images, **moments}, "arr_0", 2),
        ({"x_train": images, "y_train": np.zeros((12, 1))}, "x_train", 1),
    ):
        np.savez(path, **content)
        read, said = opened(path)
        np.testing.assert_array_equal(read, images)
        assert said[0] == f"array {name}"
        assert len(said) == remarks
    # The remark about statistics says how they are taken.
    np.savez(path, images=images, mu=np.zeros(9), sigma=np.eye(9))
    assert opened(path)[1][1] == f"its statistics are not used, {path}:mu takes them"


def test_of_several_arrays_of_images_one_must_be_named(tmp_path):
    images, path = pictures(), tmp_path / "file.npz"
    np.savez(path, images=images[:5], samples=images, labels=np.arange(12))
    message = refusal(path)
    assert message == (
        " holds several arrays of images (images uint8 [5, 8, 8, 3], samples uint8 [12, 8, 8, 3]); "
        f"name one, {path}:images"
    )
    read, said = opened(path, "samples")
    np.testing.assert_array_equal(read, images)
    assert said == ("array samples",)
    assert refusal(path, "sample").startswith(" has no array 'sample'; it has images uint8 [5, ")
    # So can data.data_dir, and what --against and launch.compare take.
    assert arrays.split_name(f"{path}:samples") == (str(path), "samples")
    loaded = data.load(make_config("npz", f"{path}:samples", channels=3, num_train=8, num_val=4))
    assert loaded.train.shape == (8, 8, 8, 3)


def test_a_path_with_a_colon_is_a_path(tmp_path, monkeypatch):
    path = tmp_path / "a:b.npz"
    np.savez(path, pictures())
    assert arrays.split_name(str(path)) == (str(path), "")
    assert arrays.split_name(f"{path}:arr_0") == (str(path), "arr_0")
    assert arrays.split_name("cifar10:test") == ("cifar10:test", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arrays.split_name("~/a:b.npz:x") == (str(path), "x")


def test_npy_files_and_names_without_a_suffix_are_read(tmp_path):
    images = pictures()
    with open(tmp_path / "images.npz", "wb") as file:  # the content decides, not the name
        np.save(file, images)
    with open(tmp_path / "archive", "wb") as file:
        np.savez(file, images)
    np.save(tmp_path / "grey.npy", images[..., :1])
    assert opened(tmp_path / "images.npz")[1] == ()
    np.testing.assert_array_equal(opened(tmp_path / "images.npz")[0], images)
    np.testing.assert_array_equal(opened(tmp_path / "archive")[0], images)
    np.testing.assert_array_equal(opened(tmp_path / "grey.npy", channels=1)[0], images[..., :1])


# Types, ranges and layouts.


def as_floats(images, low, high):
    return images / np.float32(255) * np.float32(high - low) + np.float32(low)


def test_other_types_are_converted_with_a_note(tmp_path):
    for convert, remark in [
        (lambda x: as_floats(x, 0, 1), "float32 in [0, 1]"),
        (lambda x: as_floats(x, -1, 1), "float32 in [-1, 1]"),
        (lambda x: as_floats(x, -1, 1) * np.float32(1.0005), "float32 in [-1, 1]"),
        (lambda x: x.astype(float), "float64 from 0 to 255"),
        (lambda x: x.astype(np.int64), "int64 from 0 to 255"),
        (lambda x: as_floats(x, 0, 1).astype(np.float16), "float16 in [0, 1]"),
    ]:
        images = pictures()
        images[0, 0, 0], images[0, 0, 1] = 0, 255
        np.savez(tmp_path / "file.npz", convert(images))
        read, said = opened(tmp_path / "file.npz")
        np.testing.assert_array_equal(read, images)
        assert said == (f"array arr_0, {remark}",)
        np.save(tmp_path / "file.npy", convert(images))
        assert opened(tmp_path / "file.npy")[1] == (remark,)


def test_truth_values_are_black_and_white(tmp_path):
    np.save(tmp_path / "masks.npy", numbered_images(4) % 2 == 1)
    read, said = opened(tmp_path / "masks.npy")
    assert read[:, 0, 0, 0].tolist() == [0, 255, 0, 255]
    assert said == ("bool False black, True white",)


def test_alpha_is_composited_on_white(tmp_path):
    images = pictures(channels=4)
    images[..., 3] = np.where(np.arange(8) < 4, 255, 0)
    np.save(tmp_path / "rgba.npy", images)
    read, _ = opened(tmp_path / "rgba.npy")
    np.testing.assert_array_equal(read[:, :, :4], images[:, :, :4, :3])
    assert (read[:, :, 4:] == 255).all()


def test_only_unambiguous_ranges_of_values_are_read(tmp_path):
    path, images = tmp_path / "file.npy", pictures()
    for array, message in (
        ((images / 255).astype(np.uint8), ": all levels are 0 or 1, of 255: floats in [0, 1] that"),
        (np.zeros_like(images), ": all levels are 0 or 1"),
        (as_floats(images, 0, 1.5), " holds float32 from 0 to 1.5; images are uint8, or floats in"),
        (as_floats(images, -0.5, 12), " holds float32 from -0.5 to 12; "),
        (as_floats(images, -128, 127), " holds float32 from -128 to 127; "),
        (images.astype(np.uint16) * 257, " holds uint16 from 0 to 6553"),
        (images.astype(np.uint16), " holds uint16 from 0 to 255; "),
        ((images / 128).astype(int), " holds int64 from 0 to 1; "),
        (np.zeros((4, 8, 8)), " holds float64 from 0 to 0; "),
        (np.where(images == 3, np.nan, images), " holds values that are not finite"),
        (images.astype(complex), " holds complex128, which are no images"),
    ):
        np.save(path, array)
        assert refusal(path).startswith(message)


def test_other_layouts_are_refused_with_the_conversion(tmp_path):
    path, images = tmp_path / "file.npy", pictures(num=20)
    for array, message in (
        (images.transpose(0, 3, 1, 2), "(20, 3, 8, 8); images must be [num, height, width] or "),
        (images.transpose(0, 3, 1, 2), ": save images.transpose(0, 2, 3, 1)"),
        (images.transpose(1, 2, 3, 0), ": save numpy.moveaxis(images, -1, 0)"),
        (images[:, :7, :, 0].reshape(20, -1), "(20, 56)"),
        (images[..., 0].reshape(20, -1), ": reshape them to [20, 8, 8, 1]"),
        (images.reshape(20, -1), ": reshape them to [20, 8, 8, 3]"),
        (images[0, :6], "; a single image becomes a set by images[None]"),
        (images[:0], ", and at least one"),
    ):
        np.save(path, array)
        assert message in refusal(path)


# Training on arrays.


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


# Files that are no arrays of images.


def test_files_without_an_array_of_images_are_refused(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, x=np.zeros(3, np.uint8), y=np.zeros(3))
    assert refusal(path) == (
        " holds no array of images [num, height, width(, channels)]; it has x uint8 [3], "
        "y float64 [3]"
    )
    np.savez(path, images=np.array([{}, None], dtype=object))
    assert "holds object of shape (2,)" in refusal(path)
    np.savez(path, images=np.full((2, 3, 3), None))
    assert "Object arrays cannot be loaded" in refusal(path)


def test_other_kinds_of_files_are_recognised(tmp_path):
    path, inner = tmp_path / "file.npz", tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a/0.png", b"\x89PNG")
    for content, message in (
        (inner.read_bytes(), " is a zip file whose members (a/0.png, ...) are not arrays; if"),
        (pickle.dumps({"data": 3}), " is a pickle, not a file of numpy arrays; load it with its"),
        (gzip.compress(b"x"), " is compressed by gzip, not a file of numpy arrays; unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), " is an HDF5 file, not"),
        (b"MATLAB 5.0 MAT-file, Platform", " is a MATLAB file, not"),
        (b"\x89PNG\r\n\x1a\n", " is a single image, not a file of numpy arrays; name a folder"),
        (b"hello", " cannot be read as .npz or .npy: it starts with 68 65 6c 6c"),
        (b"", " cannot be read as .npz or .npy: it is empty"),
    ):
        path.write_bytes(content)
        assert refusal(path).startswith(message)


def test_missing_files_of_arrays_are_named(tmp_path):
    for name in (tmp_path / "absent.npz", f"{tmp_path}/absent.npz:x", "", tmp_path):
        with pytest.raises(UserError, match="no file"):
            data.load(make_config("npz", name))


def test_a_damaged_npz_is_one_line(tmp_path):
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez_compressed(path, images=images)
    content = path.read_bytes()
    damaged = [
        content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        for place in range(0, len(content), 37)
    ]
    for variant in (*damaged, content[:500], content[:-5]):
        path.write_bytes(variant)
        try:
            arrays.npz(str(path))  # not every byte matters
        except UserError as error:
            assert str(error).startswith(f"data.data_dir: {path}")  # noqa: PT017
