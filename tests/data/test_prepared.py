"""TFDS data sets: made here in a temporary folder; the real CIFAR-10 where a copy lies near by."""

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
from thermo_ebm.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
CIFAR10 = SHARED / "tensorflow_datasets"


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


def test_more_images_than_the_splits_have(tfds_folder):
    with pytest.raises(UserError, match=r"data\.num_train=31: more than the 30 train images"):
        data.load(colour_config(tfds_folder, num_train=31))
    with pytest.raises(UserError, match=r"data\.num_val=11: more than the 10 test images"):
        data.load(colour_config(tfds_folder, num_val=11))
