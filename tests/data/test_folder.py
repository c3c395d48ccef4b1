"""Folders of images: which images are found, their order, and their preparation."""

import os

import numpy as np
import pytest
from image_sources import levels_of, make_config, numbered_images, save_images
from PIL import Image

from thermo_ebm import data
from thermo_ebm.data.folder import folder
from thermo_ebm.data.images import prepare_image, read
from thermo_ebm.errors import UserError
from thermo_ebm.files import SAMPLES_MARK


def test_images_of_subfolders_are_read_and_other_files_left_out(tmp_path):
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


class Listed:
    """What `os.scandir` returns: an iterator that can be closed."""

    def __init__(self, entries):
        self.entries = iter(list(entries))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_order_of_a_folder_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    save_images(tmp_path / "b", numbered_images(8))
    save_images(tmp_path / "a", numbered_images(15)[8:])
    first = data.load(make_config("folder", tmp_path))
    scandir = os.scandir
    for order in (sorted, lambda names: sorted(names, reverse=True)):

        def listed(path, order=order):
            entries = {entry.name: entry for entry in scandir(path)}
            return Listed(entries[name] for name in order(entries))

        monkeypatch.setattr(os, "scandir", listed)
        np.testing.assert_array_equal(data.load(make_config("folder", tmp_path)).train, first.train)


def test_an_unreadable_image_is_named(tmp_path):
    save_images(tmp_path, numbered_images(15))
    broken = tmp_path / "000003.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(UserError, match=str(broken)):
        data.load(make_config("folder", tmp_path))


def test_missing_folder_of_images_is_named(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        data.load(make_config("folder", tmp_path / "absent"))
    with pytest.raises(UserError, match="no folder"):
        data.load(make_config("folder"))
    with pytest.raises(UserError, match="no images"):
        data.load(make_config("folder", tmp_path))


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
    images, _ = folder(str(tmp_path / "a"))
    assert images.num == 2
    assert images.remarks == ("left out: 1 folder met before",)


# What is left out, and what is refused.


def test_files_left_out_are_counted_by_their_suffix(tmp_path):
    save_images(tmp_path / "a", numbered_images(5))
    for name in ("a/0.txt", "b/1.TXT", "labels.csv", "README", "0.eps"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no image")
    for name in (".DS_Store", "a/._000001.png", "Thumbs.db", "desktop.ini", ".cache/0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("litter")
    save_images(tmp_path / "__MACOSX", numbered_images(1))
    images, _ = folder(str(tmp_path))
    assert images.num == 5
    assert images.remarks == ("left out: 5 files (.txt 2, .eps 1, without suffix 1, .csv 1)",)
    assert data.open_images(make_config("folder", tmp_path, num_train=3, num_val=2))[0].remarks


def test_of_many_suffixes_the_rest_is_counted_together(tmp_path):
    save_images(tmp_path, numbered_images(1))
    for number in range(11):
        (tmp_path / f"x.{number:02d}").write_text("")
    kinds = ", ".join(f".{number:02d} 1" for number in range(8))
    assert folder(str(tmp_path))[0].remarks == (f"left out: 11 files ({kinds}, other 3)",)


def test_a_folder_without_images_says_what_is_there(tmp_path):
    (tmp_path / "images.zip").write_text("")
    with pytest.raises(UserError, match=r"no images .*left out: 1 file \(\.zip 1\)"):
        folder(str(tmp_path))


def test_links_that_lead_nowhere_are_errors(tmp_path):
    save_images(tmp_path, numbered_images(3))
    for name, target in (
        ("part2", "/nowhere/part2"),
        ("000009.png", "/nowhere"),
        ("notes.txt", "missing"),
        ("circle.png", "circle.png"),
    ):
        link = tmp_path / name
        link.symlink_to(target)
        with pytest.raises(UserError, match=f"{link} is a link to {target}, which cannot be"):
            folder(str(tmp_path))
        link.unlink()
    (tmp_path / "._000001.png").symlink_to("/nowhere")  # litter may
    assert folder(str(tmp_path))[0].num == 3


def test_pipes_are_not_opened(tmp_path):
    save_images(tmp_path, numbered_images(3))
    os.mkfifo(tmp_path / "x.png")
    assert folder(str(tmp_path))[0].remarks == ("left out: 1 special file",)
    (tmp_path / "y.png").symlink_to(tmp_path / "x.png")
    assert folder(str(tmp_path))[0].remarks == ("left out: 2 special files",)


def test_a_folder_below_that_cannot_be_searched_is_an_error(tmp_path, monkeypatch):
    save_images(tmp_path / "a", numbered_images(3))
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"closed cannot be searched for images: Permission"):
        folder(str(tmp_path))


def output_folders(root):
    """Folders as this project writes them, with pictures inside, and how they are counted."""
    for name, entries in (
        ("run", ("config.json", "versions.json", "rep_00/samples/epoch_0001.png")),
        ("copies/rep_00", ("readings.csv", "checkpoints/0", "samples/epoch_0001.png")),
        ("samples", ("epoch_0001.png", "epoch_0002.png")),
        ("drawn", ("samples.png", "reconstructions.png", "interpolations.png")),
        ("exported", (SAMPLES_MARK, "000000.png")),
        ("report", ("report.html", "figures/kid.png", "tables/kid.csv")),
        ("output", ("likelihood.csv", "likelihood/images.png")),
    ):
        for entry in entries:
            path = root / name / entry
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".png":
                Image.new("L", (8, 8), 200).save(path)
            else:
                path.write_text("{}")


def test_outputs_of_this_project_are_no_part_of_a_data_set(tmp_path):
    save_images(tmp_path / "a", numbered_images(5))
    (tmp_path / "a/config.json").write_text("{}")  # of other programs
    output_folders(tmp_path)
    images, _ = folder(str(tmp_path))
    assert images.num == 5
    assert images.remarks == (
        "left out: 1 file (.json 1), 2 runs, 3 folders of samples, 1 table of likelihoods, "
        "1 report",
    )


def test_a_folder_of_samples_may_be_named(tmp_path):
    output_folders(tmp_path)
    for name, num in (("samples", 2), ("exported", 1), ("drawn", 3)):
        assert folder(str(tmp_path / name))[0].num == num
    for name in ("run", "copies/rep_00"):
        with pytest.raises(UserError, match=f"{tmp_path / name} is the folder of a run; "):
            folder(str(tmp_path / name))


def test_outputs_inside_a_data_set_are_refused(tmp_path):
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(images)
    config = make_config("folder", images)
    for output in (images, images / "runs/1", tmp_path / "link/run", images / "../images/x"):
        with pytest.raises(UserError, match=f"workdir={output}: lies inside data.data_dir="):
            data.check_output(config, output, "workdir")
        data.check_output(make_config("idx", images), output, "workdir")
    for output in (tmp_path, tmp_path / "images2", tmp_path / "runs"):
        data.check_output(config, output, "workdir")


def test_masks_of_levels_0_and_1_are_refused(tmp_path):
    save_images(tmp_path, numbered_images(15) % 2)
    with pytest.raises(UserError, match=f"{tmp_path}: all levels are 0 or 1, of 255: floats in"):
        data.load(make_config("folder", tmp_path))


# Names.


def test_names_with_line_breaks_are_printed_in_one_line(tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"no image")
    (tmp_path / os.fsdecode(b"c\xff.png")).write_bytes(b"no image")
    images, _ = folder(str(tmp_path))
    with pytest.raises(UserError) as error:
        read(images._replace(size=8))
    message = str(error.value)
    assert "a\\nb.png" in message
    assert "c\\udcff.png" in message
    assert "\n" not in message
    message.encode()
    Image.new("L", (8, 8), 9).save(tmp_path / "a\nb.png")
    (tmp_path / os.fsdecode(b"c\xff.png")).unlink()
    assert read(folder(str(tmp_path))[0]._replace(size=8))[0, 0, 0].tolist() == [9, 9, 9]
