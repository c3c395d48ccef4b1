"""Images in parquet files: of one file or several, as bytes or in a struct."""

import importlib
import io

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.configs import digits
from thermo_ebm.data import load, open_source
from thermo_ebm.data.images import read
from thermo_ebm.data.parquet import is_parquet, parquet
from thermo_ebm.errors import UserError
from thermo_ebm.evaluation import sets

pyarrow = pytest.importorskip("pyarrow")
files = pytest.importorskip("pyarrow.parquet")

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3)).astype(np.uint8)


def encoded(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


ENCODED = [encoded(pixels) for pixels in PIXELS]


def write(path, values, **further):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"label": list(range(len(values))), "image": values, **further})
    files.write_table(table, path, row_group_size=16)


def in_structs(values):
    """As the package `datasets` writes them."""
    return [{"bytes": value, "path": None} for value in values]


@pytest.mark.parametrize("form", [list, in_structs])
def test_images_come_back_in_their_order(tmp_path, form):
    write(tmp_path / "one.parquet", form(ENCODED))
    write(tmp_path / "several/data/0.parquet", form(ENCODED[:33]))
    write(tmp_path / "several/data/1.parquet", form(ENCODED[33:]))
    (tmp_path / "several/README.md").write_text("A data set.")
    for name in ("one.parquet", "one.parquet:image", "several", "several:image"):
        assert is_parquet(str(tmp_path / name))
        images, held_out = parquet(str(tmp_path / name))
        assert held_out is None
        np.testing.assert_array_equal(read(images._replace(size=8)), PIXELS)
        taken = images.take(np.array([69, 0, 33, 32]))._replace(size=8)
        np.testing.assert_array_equal(read(taken), PIXELS[[69, 0, 33, 32]])
    assert images.remarks == ("left out: 1 file (.md 1)",)


def test_a_configuration_and_a_comparison_take_the_file(tmp_path):
    write(tmp_path / "a.parquet", in_structs(ENCODED), mask=in_structs(ENCODED[::-1]))
    name = f"{tmp_path}/a.parquet:mask"
    config = digits.get_config().data
    config.update({"name": "folder", "data_dir": name, "num_train": 0, "num_val": 0.1})
    loaded = load(config)
    assert (loaded.train.shape, loaded.validation.shape) == ((58, 8, 8, 1), (12, 8, 8, 1))
    np.testing.assert_array_equal(sets.load_images(name, 8), PIXELS[::-1])
    config.data_dir = str(tmp_path)
    with pytest.raises(UserError, match=r"several columns of bytes, image, mask; name one, as "):
        open_source(config)


def test_damaged_rows_are_named(tmp_path):
    write(tmp_path / "0.parquet", ENCODED[:2])
    write(tmp_path / "1.parquet", [ENCODED[0], None, ENCODED[1][:60]])
    first, second = (rf"{tmp_path}/1.parquet, row {row}" for row in (1, 2))
    message = rf"cannot read 2 images: {first}, {second} \(the first: no image there\)"
    with pytest.raises(UserError, match=message):
        read(parquet(str(tmp_path))[0]._replace(size=8))


def test_files_without_images_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "text.parquet", ["a", "b"])
    write(tmp_path / "empty.parquet", pyarrow.array([], pyarrow.binary()))
    write(tmp_path / "fine.parquet", ENCODED[:1])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "fine.parquet").read_bytes()[:200])
    for name, message in (
        ("text.parquet", r"has no column of encoded images, .* \(its columns: label, image\)"),
        ("fine.parquet:x", "has no column 'x' of images"),
        ("empty.parquet", "no rows in"),
        ("cut.parquet", "cannot be read as a parquet file"),
    ):
        with pytest.raises(UserError, match=rf"^data.data_dir: .*{message}"):
            parquet(str(tmp_path / name))
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed/0.parquet").write_bytes((tmp_path / "fine.parquet").read_bytes())
    (tmp_path / "mixed/0.png").write_bytes(ENCODED[0])
    assert not is_parquet(
        str(tmp_path / "mixed")
    )  # a folder of images, in which others are counted

    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match="needs the package pyarrow: pip install pyarrow"):
        parquet(str(tmp_path / "fine.parquet"))
