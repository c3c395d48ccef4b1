"""Folders of images: which images are found, their order, and their preparation."""

import os

import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images, save_images
from PIL import Image

from thermo_ebm import data
from thermo_ebm.data import local
from thermo_ebm.data.images import prepare_image, read
from thermo_ebm.errors import UserError


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


def test_16_bit_and_palette_images_are_converted():
    grey16 = Image.fromarray(np.full((8, 8), 40_000, np.uint16))
    assert levels_of(prepare_image(grey16, 8, 1)[None]) == {40_000 // 256}
    palette = Image.fromarray(np.full((8, 8, 3), 77, np.uint8)).convert("P")
    assert prepare_image(palette, 8, 3).shape == (8, 8, 3)


def test_data_dir_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_images(tmp_path / "photographs", numbered_images(15))
    assert len(data.load(make_config("folder", "~/photographs")).train) == 10


def test_order_of_a_folder_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    save_images(tmp_path, numbered_images(15))
    first = data.load(make_config("folder", tmp_path))
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda top, **_: [(p, d, f[::-1]) for p, d, f in walk(top)])
    np.testing.assert_array_equal(data.load(make_config("folder", tmp_path)).train, first.train)
    monkeypatch.setattr(os, "walk", lambda top, **_: [(p, d, sorted(f)) for p, d, f in walk(top)])
    np.testing.assert_array_equal(data.load(make_config("folder", tmp_path)).train, first.train)


def test_an_unreadable_image_is_named(tmp_path):
    save_images(tmp_path, numbered_images(15))
    broken = tmp_path / "000003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=str(broken)):
        data.load(make_config("folder", tmp_path))


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        data.load(make_config("folder", tmp_path / "absent"))
    with pytest.raises(UserError, match="no folder"):
        data.load(make_config("folder"))
    with pytest.raises(UserError, match="no images"):
        data.load(make_config("folder", tmp_path))


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
            read(local.folder(str(tmp_path))[0]._replace(size=8))
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_transparent_pixels_become_white():
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
    assert local.folder(str(tmp_path / "a"))[0].num == 2
