"""Images in zip and tar files: the same as in a folder, in the same order."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.configs import digits
from thermo_ebm.data import load
from thermo_ebm.data.archive import archive, is_archive
from thermo_ebm.data.folder import folder
from thermo_ebm.data.images import read
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import sets

OTHERS = {"notes.txt": b"x", "__MACOSX/3.png": b"x", ".hidden.png": b"x", "inner/table": b"x"}


def encoded(number):
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


CONTENT = {f"inner/{number}.png": encoded(number) for number in range(70)} | {"a.PNG": encoded(99)}


def write_zip(path, content, kind=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", kind) as file:
        file.mkdir("inner")
        for name, data in content.items():
            file.writestr(name, data)


def write_tar(path, content, mode="w"):
    with tarfile.open(path, mode) as file:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


WRITERS = {"images.zip": write_zip, "images.tar": write_tar}


@pytest.fixture(params=WRITERS)
def path(request, tmp_path):
    WRITERS[request.param](tmp_path / request.param, CONTENT | OTHERS)
    return tmp_path / request.param


def test_images_are_those_of_the_folder(path, tmp_path):
    for name, data in CONTENT.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    images, held_out = archive(str(path))
    expected, _ = folder(str(tmp_path / "folder"))
    assert held_out is None
    assert images.num == 71
    assert images.remarks == ("left out: 2 files (.txt 1, without suffix 1)",)
    pixels = [read(one._replace(size=8)) for one in (images, expected)]
    np.testing.assert_array_equal(*pixels)


def test_a_configuration_and_a_comparison_take_the_file(path):
    config = digits.get_config().data
    config.update({"name": "folder", "data_dir": str(path), "num_train": 0, "num_val": 0.1})
    loaded = load(config)
    assert (loaded.train.shape, loaded.validation.shape) == ((59, 8, 8, 1), (12, 8, 8, 1))
    assert sets.load_images(str(path), 8).shape == (71, 8, 8, 3)


def test_damaged_members_are_named(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name, {"a.png": CONTENT["a.PNG"], "b.png": CONTENT["a.PNG"][:60]})
        with pytest.raises(UserError, match=rf"cannot read the image .*{name}/b.png"):
            read(archive(str(tmp_path / name))[0]._replace(size=8))


def test_files_that_are_no_archives_of_images(tmp_path):
    np.savez(tmp_path / "arrays.npz", images=np.zeros((3, 8, 8)))
    write_zip(tmp_path / "text.zip", {"notes.txt": b"x"})
    write_tar(tmp_path / "text.tar", {"notes.txt": b"x"})
    write_tar(tmp_path / "images.tar.gz", CONTENT, "w:gz")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04")
    assert not is_archive(str(tmp_path / "arrays.npz"))
    assert not is_archive(str(tmp_path))
    for name, message in (
        ("text.zip", r"no images in .*text.zip \(1 file \(.txt 1\)\)"),
        ("text.tar", r"no images in .*text.tar \(1 file \(.txt 1\)\)"),
        ("images.tar.gz", "is a compressed tar file, whose images cannot be read"),
        ("cut.zip", "cannot be read as a zip or tar file"),
    ):
        with pytest.raises(UserError, match=rf"^data.data_dir: .*{message}"):
            archive(str(tmp_path / name))
