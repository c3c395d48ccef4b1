"""Data sources: values, splits, shapes, shards, and what bad input answers.

The prepared TFDS data set is made here in a temporary folder; the real CIFAR-10 is read where a
copy lies beside the repository.
"""

import io
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from thermo_ebm import data
from thermo_ebm.datasets import local
from thermo_ebm.datasets.source import prepare_image
from thermo_ebm.errors import UserError

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
CIFAR10 = SHARED / "tensorflow_datasets"


def make_config(name, data_dir="", size=8, channels=1, num_train=10, num_val=5):
    return ConfigDict(
        {
            "name": name,
            "data_dir": str(data_dir),
            "image_size": size,
            "channels": channels,
            "num_train": num_train,
            "num_val": num_val,
        }
    )


def numbered_images(num, height=8, width=8):
    """Constant images whose level is their number, so that any one can be recognised."""
    levels = np.arange(num, dtype=np.uint8)[:, None, None]
    return np.broadcast_to(levels, (num, height, width)).copy()


def levels_of(images):
    return set(images.reshape(len(images), -1)[:, 0].tolist())


# Digits.


def test_digits_are_the_real_ones_over_the_whole_range():
    train, validation = data.load(make_config("digits", num_train=1500, num_val=297))
    assert train.shape == (1500, 8, 8, 1)
    assert validation.shape == (297, 8, 8, 1)
    assert train.dtype == validation.dtype == np.uint8
    from sklearn.datasets import load_digits

    expected = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    found = np.concatenate([train, validation])[..., 0]
    as_rows = lambda images: sorted(map(bytes, images))  # noqa: E731
    assert as_rows(found) == as_rows(expected)  # each image exactly once: disjoint and complete


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


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((20, 8, 8), np.float32)}, "float32"),
        ({"images": np.zeros((20, 3, 8, 8), np.uint8)}, r"\(20, 3, 8, 8\)"),
        ({"images": np.zeros((20, 64), np.uint8)}, r"\(20, 64\)"),
        ({"x": np.zeros(3, np.uint8), "y": np.zeros(3)}, "named 'images'"),
        ({"images": np.array([{}, None], dtype=object)}, "allow_pickle"),
    ],
)
def test_npz_with_something_else_in_it(tmp_path, arrays, message):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=message) as error:
        data.load(make_config("npz", path))
    assert str(path) in str(error.value)


def test_npz_that_is_none(tmp_path):
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


# A folder of images.


def save_images(folder, images, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:06d}.{suffix}")


def test_folder_with_subfolders_and_other_files(tmp_path):
    save_images(tmp_path / "a", numbered_images(8))
    save_images(tmp_path / "b" / "c", numbered_images(15)[8:])
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "._000001.png").write_text("what macOS leaves behind")
    train, validation = data.load(make_config("folder", tmp_path))
    assert levels_of(train) | levels_of(validation) == set(range(15))
    again = data.load(make_config("folder", tmp_path))
    np.testing.assert_array_equal(train, again.train)


def test_celeba_sized_photographs_lose_their_top_and_bottom(tmp_path):
    photograph = np.zeros((218, 178, 3), np.uint8)
    photograph[20:198] = (250, 120, 10)
    save_images(tmp_path, [photograph] * 3, "jpg")
    config = make_config("folder", tmp_path, size=64, channels=3, num_train=2, num_val=1)
    train, _ = data.load(config)
    assert train.shape == (2, 64, 64, 3)
    assert np.abs(train[:, 2:-2].astype(int) - (250, 120, 10)).max() <= 4  # JPEG's own error


def test_resizing_agrees_with_the_mean_of_blocks():
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(0, 256, (4, 4)), np.ones((16, 16))).astype(np.uint8)
    small = prepare_image(Image.fromarray(smooth), 4, 1)[..., 0]
    # The antialiased triangle reaches half a block into each neighbour; its centre weight is 3/4.
    padded = np.pad(smooth[8::16, 8::16].astype(float), 1, mode="edge")
    weights = np.array([1, 6, 1]) / 8
    rows = sum(w * padded[i : i + 4] for i, w in enumerate(weights))
    expected = sum(w * rows[:, i : i + 4] for i, w in enumerate(weights))
    np.testing.assert_allclose(small[1:-1, 1:-1], expected[1:-1, 1:-1], atol=2)


def test_modes_that_photographs_come_in():
    grey16 = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    assert levels_of(prepare_image(grey16, 8, 1)[None]) == {40_000 // 256}
    palette = Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).convert("P")
    assert prepare_image(palette, 8, 3).shape == (8, 8, 3)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_images(tmp_path / "photographs", numbered_images(15))
    assert len(data.load(make_config("folder", "~/photographs")).train) == 10


def test_a_folder_is_read_alike_whatever_order_the_system_lists_it_in(tmp_path, monkeypatch):
    save_images(tmp_path, numbered_images(15))
    first = data.load(make_config("folder", tmp_path))
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top, **_: [(p, d, f[::-1]) for p, d, f in walk(top)])
    np.testing.assert_array_equal(data.load(make_config("folder", tmp_path)).train, first.train)
    monkeypatch.setattr(os, "walk", lambda top, **_: [(p, d, sorted(f)) for p, d, f in walk(top)])
    np.testing.assert_array_equal(data.load(make_config("folder", tmp_path)).train, first.train)


def test_only_the_images_chosen_are_read(tmp_path):
    save_images(tmp_path, numbered_images(15))
    train, validation = data.load(make_config("folder", tmp_path, num_train=6, num_val=3))
    unread = set(range(15)) - levels_of(train) - levels_of(validation)
    assert len(unread) == 6
    for number in unread:
        (tmp_path / f"{number:06d}.png").write_bytes(b"broken")
    data.load(make_config("folder", tmp_path, num_train=6, num_val=3))


def test_an_unreadable_image_is_named(tmp_path):
    save_images(tmp_path, numbered_images(15))
    broken = tmp_path / "000003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=str(broken)):
        data.load(make_config("folder", tmp_path))


def test_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        data.load(make_config("folder", tmp_path / "absent"))
    with pytest.raises(UserError, match="no folder"):
        data.load(make_config("folder"))
    with pytest.raises(UserError, match="no images"):
        data.load(make_config("folder", tmp_path))


# TFDS.


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A CIFAR-10 of 30 and 10 numbered images, prepared by TFDS itself without TensorFlow."""
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")

    def examples(first, num):
        for number in range(first, first + num):
            file = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(file, "PNG")
            file.seek(0)
            yield number, {"image": file, "label": number % 10}

    class Cifar10(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("9.10.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": examples(0, 30), "test": examples(100, 10)}

        def _generate_examples(self):
            raise NotImplementedError

    folder = tmp_path_factory.mktemp("tfds")
    builder = Cifar10(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return folder


def colour_config(folder, **changes):
    return make_config("cifar10", folder, size=32, channels=3, **changes)


@pytest.mark.parametrize("inside", ["", "cifar10", "cifar10/9.10.0"])
def test_tfds_train_and_test_splits(tfds_folder, inside):
    train, validation = data.load(colour_config(tfds_folder / inside, num_train=30, num_val=10))
    assert train.shape == (30, 32, 32, 3)
    assert levels_of(train) == set(range(30))
    assert levels_of(validation) == set(range(100, 110))


def test_tfds_takes_the_newest_version(tfds_folder, tmp_path):
    target = tmp_path / "cifar10"
    target.mkdir()
    (target / "9.10.0").symlink_to(tfds_folder / "cifar10" / "9.10.0")
    (target / "9.9.0").mkdir()
    (target / "9.9.0" / "dataset_info.json").write_text("{}")
    (target / "9.9.0" / "cifar10-train.array_record-00000-of-00001").write_text("")
    assert data.load(colour_config(tmp_path)).train.shape == (10, 32, 32, 3)


def test_tfds_default_folder_is_tfds_own(tfds_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_folder))
    assert len(data.load(colour_config("")).train) == 10


def test_tfds_images_are_resized(tfds_folder):
    train, _ = data.load(make_config("cifar10", tfds_folder, size=16, channels=1))
    assert train.shape == (10, 16, 16, 1)


def test_tfds_damaged_file(tfds_folder, tmp_path):
    version = tmp_path / "cifar10" / "9.10.0"
    version.mkdir(parents=True)
    for file in (tfds_folder / "cifar10" / "9.10.0").iterdir():
        (version / file.name).write_bytes(file.read_bytes())
    record = version / "cifar10-train.array_record-00000-of-00001"
    record.write_bytes(record.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot read the train split"):
        data.load(colour_config(tmp_path))
    record.unlink()
    with pytest.raises(UserError, match="cannot read the train split"):
        data.load(colour_config(tmp_path))


@pytest.mark.parametrize("name", ["cifar10", "svhn_cropped", "celeb_a"])
def test_tfds_not_prepared_says_how_at_once_and_without_a_network(name, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(UserError, match=f"tfds build {name} --file_format=array_record") as error:
        data.load(make_config(name, tmp_path))
    assert ("data.name=folder" in str(error.value)) == (name == "celeb_a")


def test_tfds_in_another_format(tmp_path):
    version = tmp_path / "cifar10" / "3.0.2"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    (version / "cifar10-train.tfrecord-00000-of-00001").write_text("")
    with pytest.raises(UserError, match="not in the ArrayRecord format"):
        data.load(colour_config(tmp_path))


def test_nothing_imports_tensorflow_and_tfds_only_when_used(tfds_folder):
    program = f"""
import sys
from ml_collections import ConfigDict
from thermo_ebm import data
assert not {{"tensorflow_datasets", "sklearn"}} & set(sys.modules)
data.load(ConfigDict(dict(name="cifar10", data_dir={str(tfds_folder)!r}, image_size=32, channels=3,
                          num_train=30, num_val=10)))
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(not CIFAR10.is_dir(), reason="no prepared CIFAR-10 beside the repository")
def test_real_cifar10():
    train, validation = data.load(colour_config(CIFAR10, num_train=12_000, num_val=4_500))
    assert train.shape == (12_000, 32, 32, 3)
    assert validation.shape == (4_500, 32, 32, 3)
    # CIFAR-10's published channel means, 0.4914, 0.4822, 0.4465, to 3 standard errors over images.
    means = train.mean(axis=(1, 2), dtype=np.float64) / 255
    error = means.std(axis=0) / np.sqrt(len(means))
    assert (np.abs(means.mean(axis=0) - (0.4914, 0.4822, 0.4465)) < 3 * error).all()


# Every source.


def test_shards_are_contiguous_parts_padded_with_zeros(tmp_path):
    save_images(tmp_path, numbered_images(20)[3:])
    config = make_config("folder", tmp_path, num_train=10, num_val=5)
    whole = data.load(config)
    parts = [data.load(config, shard=(index, 4)) for index in range(4)]
    assert [part.train.shape[0] for part in parts] == [3] * 4
    assert [part.validation.shape[0] for part in parts] == [2] * 4
    for field in ("train", "validation"):
        joined = np.concatenate([getattr(part, field) for part in parts])
        full = getattr(whole, field)
        np.testing.assert_array_equal(joined[: len(full)], full)
        assert not joined[len(full) :].any()


def test_a_shard_decodes_only_its_own_images(tmp_path):
    save_images(tmp_path, numbered_images(15))
    config = make_config("folder", tmp_path)
    first = data.load(config, shard=(0, 2))
    for number in set(range(15)) - levels_of(first.train) - levels_of(first.validation):
        (tmp_path / f"{number:06d}.png").write_bytes(b"broken")
    again = data.load(config, shard=(0, 2))
    np.testing.assert_array_equal(again.train, first.train)
    with pytest.raises(UserError):
        data.load(config, shard=(1, 2))
    with pytest.raises(ValueError, match="shard"):
        data.load(config, shard=(2, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mnist"}, "data.name='mnist'.*digits"),
        ({"channels": 2}, "data.channels=2"),
        ({"image_size": 0}, "data.image_size=0"),
        ({"num_train": 0}, "data.num_train=0"),
        ({"num_val": -1}, "data.num_val=-1"),
        (
            {"num_train": 1790, "num_val": 100},
            "data.num_train=1790 plus data.num_val=100: more than the 1797 images",
        ),
    ],
)
def test_bad_fields_are_named(changes, message):
    config = make_config("digits")
    config.update(changes)
    with pytest.raises(UserError, match=message):
        data.load(config)


def test_more_images_than_the_splits_have(tfds_folder):
    with pytest.raises(UserError, match=r"data\.num_train=31: more than the 30 train images"):
        data.load(colour_config(tfds_folder, num_train=31))
    with pytest.raises(UserError, match=r"data\.num_val=11: more than the 10 test images"):
        data.load(colour_config(tfds_folder, num_val=11))


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


def test_a_damaged_npz_is_one_line(tmp_path):
    path = tmp_path / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez_compressed(path, images=images)
    whole = path.read_bytes()
    for place in range(0, len(whole), 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            local.npz(str(path))  # not every byte matters
        except UserError as error:
            assert str(error).startswith(f"data.data_dir: {path}")  # noqa: PT017


def test_an_npz_whose_member_is_no_array(tmp_path):
    path = tmp_path / "images.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"no array")
    with pytest.raises(UserError, match="its member is no array"):
        local.npz(str(path))


def test_an_image_with_damaged_exif_is_named(tmp_path):
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(path, exif=exif)
    content = bytearray(path.read_bytes())
    start = content.index(b"Exif\0\0") + 6
    for place in range(start, start + 30):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            local.folder(str(tmp_path)).train.read([0])
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_some_means_add_up_over_shards():
    images = np.random.default_rng(0).integers(0, 256, (131, 4, 4, 3), np.uint8)
    whole = data.some_means(images, 131)
    assert whole.shape == (64, 2, 2, 3)
    np.testing.assert_allclose(whole[0, 0, 1], images[0, :2, 2:].mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(whole[-1, 1, 0], images[130, 2:, :2].mean((0, 1)), rtol=1e-6)
    odd = data.some_means(images[:5, :3, :3], 5)  # the middle row and column in both halves
    np.testing.assert_allclose(odd[4, 1, 1], images[4, 1:3, 1:3].mean((0, 1)), rtol=1e-6)
    np.testing.assert_array_equal(data.some_means(images[:5, :1, :1], 5)[:, 1, 0], images[:5, 0, 0])
    # Three shards of 44, the last one padded by one.
    padded = np.pad(images, [(0, 1), (0, 0), (0, 0), (0, 0)])
    parts = [data.some_means(padded[44 * i : 44 * i + 44], 131, (i, 3)) for i in range(3)]
    np.testing.assert_array_equal(sum(parts), whole)


def test_what_is_transparent_shows_white():
    pixels = np.zeros((4, 4, 4), np.uint8)  # hidden black
    pixels[:2] = (200, 100, 50, 255)
    got = prepare_image(Image.fromarray(pixels, "RGBA"), 4, 3)
    assert (got[:2] == (200, 100, 50)).all()
    assert (got[2:] == 255).all()
    palette = Image.fromarray(np.arange(16, dtype=np.uint8).reshape(4, 4), "P")
    palette.putpalette([0] * 768)
    palette.info["transparency"] = 3
    assert [tuple(at) for at in np.argwhere(prepare_image(palette, 4, 1)[..., 0])] == [(0, 3)]


def test_links_to_folders_are_followed_once(tmp_path):
    for name in ("a", "elsewhere"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / f"{name}.png")
    (tmp_path / "a" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a")
    assert local.folder(str(tmp_path / "a")).train.num == 2
