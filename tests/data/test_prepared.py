"""TFDS data sets: prepared in a temporary folder; and the real CIFAR-10 where a copy exists."""

import io
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_sources import levels_of, make_config
from PIL import Image

from thermo_ebm import data
from thermo_ebm.data import prepared
from thermo_ebm.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CIFAR10 = SHARED / "tensorflow_datasets"


def prepare(folder, dataset, splits, variant=None, **features):
    """Prepares a data set of numbered 32 x 32 images, by TFDS itself without TensorFlow.

    `splits` has the first number and the count of each split's images.
    """
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    features = features or {"image": tfds.features.Image(shape=(32, 32, 3))}

    def examples(first, num):
        for number in range(first, first + num):
            file = io.BytesIO()
            Image.fromarray(np.full((32, 32, 3), number, np.uint8)).save(file, "PNG")
            file.seek(0)
            yield number, {name: file if name == "image" else number for name in features}

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("9.10.0")
        name = dataset
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=variant)] if variant else []

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: examples(*numbers) for split, numbers in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Builder(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A CIFAR-10 of 30 and 10 numbered images, with labels."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.Scalar(np.int64),
    }
    prepare(folder, "cifar10", {"train": (0, 30), "test": (100, 10)}, **features)
    return folder


def colour_config(folder, **changes):
    return make_config("cifar10", folder, size=32, channels=3, **changes)


def test_tfds_train_and_test_splits_are_read(tfds_folder):
    for inside in ("", "cifar10", "cifar10/9.10.0"):
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


@pytest.mark.parametrize("other", ["9.10.0_backup2", "9.11.0-rc1", "10.0", "9.12.0.incomplete"])
def test_a_folder_whose_name_is_no_version_is_left_out(tfds_folder, tmp_path, other):
    prepare(tmp_path, "cifar10", {"train": (200, 30), "test": (240, 10)})
    (tmp_path / "cifar10/9.10.0").rename(tmp_path / "cifar10" / other)
    with pytest.raises(UserError, match=f"{other} has no name of a version"):
        data.load(colour_config(tmp_path))
    # Where its folder is named, it is meant.
    inside = data.load(colour_config(tmp_path / "cifar10" / other, num_train=30))
    assert levels_of(inside.train) == set(range(200, 230))
    (tmp_path / "cifar10/9.10.0").symlink_to(tfds_folder / "cifar10/9.10.0")
    config = colour_config(tmp_path, num_train=30)
    assert levels_of(data.load(config).train) == set(range(30))
    assert data.open_images(config)[0].remarks == (f"version 9.10.0; left out: {other}",)


def test_tfds_default_folder_is_tfds_own(tfds_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_folder))
    assert len(data.load(colour_config("")).train) == 10


def test_tfds_images_are_resized(tfds_folder):
    train, _ = data.load(make_config("cifar10", tfds_folder, size=16, channels=1))
    assert train.shape == (10, 16, 16, 1)


@pytest.mark.parametrize(
    ("splits", "validation"),
    [
        ({"train": (0, 20), "validation": (50, 5), "test": (100, 8)}, set(range(100, 108))),
        ({"train": (0, 20), "validation": (50, 8), "extra": (100, 8)}, set(range(50, 58))),
    ],
)
def test_any_prepared_data_set_by_its_name(tmp_path, splits, validation):
    prepare(tmp_path, "some_pictures", splits)
    loaded = data.load(make_config("some_pictures", tmp_path, channels=3, num_train=20))
    assert levels_of(loaded.train) == set(range(20))
    assert len(levels_of(loaded.validation) & validation) == 5


def test_a_data_set_with_one_split_is_divided(tmp_path):
    prepare(tmp_path, "one_split", {"train": (0, 20)})
    train, validation = data.load(make_config("one_split", tmp_path, num_train=15))
    assert levels_of(train) | levels_of(validation) == set(range(20))
    with pytest.raises(UserError, match="more than the 20 images"):
        data.load(make_config("one_split", tmp_path, num_train=16))


def test_tfds_configuration_of_a_data_set_is_read(tmp_path):
    prepare(tmp_path, "emnist", {"train": (0, 20), "test": (100, 8)}, variant="letters")
    for name, inside in (
        ("emnist", ""),
        ("emnist/letters", ""),
        ("emnist/letters", "emnist"),
        ("emnist/letters", "emnist/letters"),
        ("emnist/letters", "emnist/letters/9.10.0"),
        ("emnist", "emnist"),
        ("emnist", "emnist/letters"),
    ):
        train, _ = data.load(make_config(name, tmp_path / inside, num_train=20))
        assert levels_of(train) == set(range(20))
    prepare(tmp_path, "emnist", {"train": (30, 20), "test": (100, 8)}, variant="digits")
    with pytest.raises(UserError, match="choose one of emnist/digits, emnist/letters"):
        data.load(make_config("emnist", tmp_path))
    train, _ = data.load(make_config("emnist/digits", tmp_path, num_train=20))
    assert levels_of(train) == set(range(30, 50))
    with pytest.raises(UserError, match=r"data\.name='emnist/balanced'"):
        data.load(make_config("emnist/balanced", tmp_path))


def test_tfds_data_sets_without_images_are_refused(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    prepare(tmp_path, "numbers", {"train": (0, 9)}, value=tfds.features.Scalar(np.int64))
    with pytest.raises(UserError, match=r"no feature 'image'.*its features: value"):
        data.load(make_config("numbers", tmp_path))
    prepare(tmp_path, "untrained", {"test": (0, 9)})
    with pytest.raises(UserError, match=r"no split 'train'.*its splits: test"):
        data.load(make_config("untrained", tmp_path))


def test_unknown_data_sets_are_one_helpful_line(tfds_folder):
    for name in ("mnsit", "../cifar10", "", "a b", "/etc", "cifar10/x/y"):
        with pytest.raises(UserError, match="choose one of digits, idx, folder, npz, ") as error:
            data.load(make_config(name, tfds_folder))
        assert str(error.value).startswith(f"data.name={name!r}")
        assert "\n" not in str(error.value)


def damaged_copy(tfds_folder, target, damage):
    """The prepared data set with the bytes of its training records changed."""
    version = target / "cifar10" / "9.10.0"
    version.mkdir(parents=True)
    for file in (tfds_folder / "cifar10" / "9.10.0").iterdir():
        (version / file.name).write_bytes(file.read_bytes())
    record = version / "cifar10-train.array_record-00000-of-00001"
    record.write_bytes(damage(record.read_bytes()))
    return record


def test_damaged_records_are_named(tfds_folder, tmp_path):
    def damage(content):
        for place in (200, 500, 2000):  # in the records 0, 2 and 9
            content = content[:place] + b"\xff" * 16 + content[place + 16 :]
        return content

    damaged_copy(tfds_folder, tmp_path, damage)
    config = colour_config(tmp_path, num_train=27, num_val=10)
    pattern = r"3 images: train\[0\] of cifar10 in .*, train\[2\] of .*, train\[9\] of "
    with pytest.raises(UserError, match=pattern):
        data.load(config)


def test_a_record_whose_image_cannot_be_decoded_is_named(tfds_folder, monkeypatch):
    def decode(encoded):
        image = open_image(encoded)
        if image.getpixel((0, 0))[0] == 17:
            raise OSError("torn")
        return image

    open_image = prepared.open_image
    monkeypatch.setattr(prepared, "open_image", decode)
    with pytest.raises(UserError, match=r"cannot read the image train\[\d+\] of cifar10 .*: torn"):
        data.load(colour_config(tfds_folder, num_train=30))


def test_damaged_tfds_file_is_named(tfds_folder, tmp_path):
    record = damaged_copy(tfds_folder, tmp_path, lambda content: content[:1000])
    with pytest.raises(UserError, match="cannot read the train split"):
        data.load(colour_config(tmp_path))
    record.unlink()
    with pytest.raises(UserError, match="cannot read the train split"):
        data.load(colour_config(tmp_path))


def test_tfds_not_prepared_says_how_at_once_and_without_a_network(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("cifar10", "svhn_cropped", "celeb_a"):
        with pytest.raises(UserError, match=f"tfds build {name} --file_format=arr") as error:
            data.load(make_config(name, tmp_path))
        assert ("data.name=folder" in str(error.value)) == (name == "celeb_a")


def test_tfds_files_of_another_format_are_refused(tmp_path):
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
def test_prepared_cifar10_is_read():
    train, validation = data.load(colour_config(CIFAR10, num_train=12_000, num_val=4_500))
    assert train.shape == (12_000, 32, 32, 3)
    assert validation.shape == (4_500, 32, 32, 3)
    # CIFAR-10's published channel means, 0.4914, 0.4822, 0.4465, to 3 standard errors over images.
    means = train.mean(axis=(1, 2), dtype=np.float64) / 255
    error = means.std(axis=0) / np.sqrt(len(means))
    assert (np.abs(means.mean(axis=0) - (0.4914, 0.4822, 0.4465)) < 3 * error).all()


def test_more_images_than_the_splits_have_are_refused(tfds_folder):
    with pytest.raises(UserError, match=r"data\.num_train=31: more than the 30 train images"):
        data.load(colour_config(tfds_folder, num_train=31))
    with pytest.raises(UserError, match=r"data\.num_val=11: more than the 10 test images"):
        data.load(colour_config(tfds_folder, num_val=11))
