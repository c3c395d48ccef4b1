"""Pixels as the files define them: every PNG of its standard, other formats, EXIF orientation."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from thermo_ebm.data.folder import folder
from thermo_ebm.data.images import open_image, prepare_image, read
from thermo_ebm.errors import UserError

SIDE = 16
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
# Every combination of the PNG standard (ISO/IEC 15948, table 11.1), and whether tRNS may occur.
PNGS = [
    (kind, depth, transparent)
    for kind, depths in (
        (GREY, (1, 2, 4, 8, 16)),
        (RGB, (8, 16)),
        (PALETTE, (1, 2, 4, 8)),
        (GREY_ALPHA, (8, 16)),
        (RGBA, (8, 16)),
    )
    for depth in depths
    for transparent in ((False, True) if kind in (GREY, RGB, PALETTE) else (False,))
]


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def encode_png(samples, kind, depth, chunks=b""):
    """Encodes samples, int [height, width, channels], as the standard says."""
    height, width, _ = samples.shape
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def to_8_bits(samples, depth):
    return samples >> 8 if depth == 16 else samples * 255 // (2**depth - 1)


def composited(colours, opacity):
    return np.rint((colours * opacity + 255.0 * (255 - opacity)) / 255)


def test_every_png_has_its_pixels():
    for kind, depth, transparent in PNGS:
        random = np.random.default_rng(depth + 20 * kind)
        shape = (SIDE, SIDE, CHANNELS[kind])
        samples = random.integers(0, 2**depth, shape)
        chunks, opacity = b"", np.full((SIDE, SIDE, 1), 255)
        if kind == PALETTE:
            colours = random.integers(0, 256, (2**depth, 3))
            alphas = random.integers(0, 256, 2**depth)
            chunks = chunk(b"PLTE", colours.astype(np.uint8).tobytes())
            if transparent:
                chunks += chunk(b"tRNS", alphas.astype(np.uint8).tobytes())
                opacity = alphas[samples]
            expected = colours[samples[..., 0]]
        elif kind in (GREY, RGB):
            if transparent:
                samples[: SIDE // 2] = samples[0, 0]
                level = samples[0, 0]
                chunks = chunk(b"tRNS", struct.pack(f">{len(level)}H", *level))
                opacity = np.where((samples == level).all(axis=-1, keepdims=True), 0, 255)
            expected = to_8_bits(samples, depth)
        else:
            expected, opacity = np.split(to_8_bits(samples, depth), [-1], axis=-1)
        expected = np.broadcast_to(composited(expected, opacity), (SIDE, SIDE, 3))
        image = open_image(io.BytesIO(encode_png(samples, kind, depth, chunks)))
        pixels = prepare_image(image, SIDE, 3)
        error = np.abs(pixels.astype(int) - expected)
        rounding = 0 if (opacity % 255 == 0).all() else 1
        assert error.max() <= rounding


def test_neighbours_of_a_transparent_grey_level_of_16_bits_stay():
    samples = 0x1200 + np.arange(SIDE**2).reshape(SIDE, SIDE, 1)  # all 0x12 in 8 bits
    png = encode_png(samples, GREY, 16, chunk(b"tRNS", struct.pack(">H", 0x1203)))
    pixels = prepare_image(open_image(io.BytesIO(png)), SIDE, 1)
    assert np.argwhere(pixels[..., 0] == 255).tolist() == [[0, 3]]
    assert (np.delete(pixels.ravel(), 3) == 0x12).all()


def test_every_raster_format_is_part_of_a_folder(tmp_path):
    grey = Image.fromarray(np.kron([[20, 90], [160, 230]], np.ones((8, 8))).astype(np.uint8))
    kinds = {"jfif": "JPEG", "pnm": "PPM", "pgm": "PPM", "sgi": "SGI"}
    exact = ["png", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "pnm", "tga", "pcx", "sgi"]
    exact += ["jp2", "dib", "ico"]
    lossy = ["jpg", "jpeg", "jfif", "JPG", "webp", "avif"]
    unwritten = []
    for suffix in (*exact, *lossy):
        image = grey if suffix == "pgm" else grey.convert("RGB")
        path = tmp_path / suffix / f"0.{suffix}"
        path.parent.mkdir()
        try:
            image.save(path, kinds.get(suffix))
        except (ValueError, KeyError, OSError):  # this Pillow does not write the format
            unwritten.append(suffix)
            continue
        images, _ = folder(str(path.parent))
        pixels = read(images._replace(size=16, channels=1))[0, ..., 0]
        assert images.remarks == (), suffix
        error = np.abs(pixels.astype(int) - np.asarray(grey)).max()
        assert error <= (4 if suffix in lossy else 0), suffix
    assert {*unwritten} <= {"jp2", "webp", "avif"}


def test_no_other_program_is_started(tmp_path, monkeypatch):
    """Ghostscript would run what a PostScript file says, whatever the file is called."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("was started"))
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("0.png", "1.eps", "2.ps", "3.pdf"):
        (tmp_path / name).write_bytes(script)
    images, _ = folder(str(tmp_path))
    assert images.remarks == ("left out: 3 files (.eps 1, .ps 1, .pdf 1)",)
    with pytest.raises(UserError, match=r"cannot read the image .*0\.png: cannot identify"):
        read(images._replace(size=8))


def test_pixels_of_32_bits_are_refused(tmp_path):
    for mode in ["F", "I"]:
        Image.new(mode, (8, 8), 1).save(tmp_path / "0.tif")
        with pytest.raises(UserError, match=r"0\.tif: TIFF with levels of 32 bits"):
            read(folder(str(tmp_path))[0]._replace(size=8))


def tiff_of_12_bits():
    """A grey image of 2 x 2 pixels (3 bytes per row), uncompressed."""
    entries = (
        (256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
        (278, 3, 2), (279, 4, 6),
    )  # fmt: skip
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 14) + b"\xff\xf8\x00" * 2 + directory + bytes(4)


def test_grey_of_12_bits_is_refused(tmp_path):
    (tmp_path / "0.tif").write_bytes(tiff_of_12_bits())
    with pytest.raises(UserError, match=r"0\.tif: TIFF with 12 bits per pixel"):
        read(folder(str(tmp_path))[0]._replace(size=2))


def test_grey_of_16_bits_in_other_formats(tmp_path):
    samples = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1021
    Image.fromarray(samples).save(tmp_path / "0.tif")
    (tmp_path / "1.pgm").write_bytes(b"P5 8 8 65535\n" + samples.astype(">u2").tobytes())
    pixels = read(folder(str(tmp_path))[0]._replace(size=8, channels=1))
    np.testing.assert_array_equal(pixels[..., 0], [samples >> 8] * 2)


# EXIF.


def jpeg_with_exif(entries, tail=b"", size=(16, 8)):
    """A JPEG whose left half is dark, with these EXIF entries (tag, type, count, value)."""
    file = io.BytesIO()
    image = Image.new("L", size, 220)
    image.paste(30, (0, 0, size[0] // 2, size[1]))
    image.save(file, "JPEG", quality=95)
    plain = file.getvalue()
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    block += b"".join(struct.pack("<HHI", *head) + value for *head, value in entries)
    block += bytes(4) + tail
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def orientation(number):
    return (0x0112, 3, 1, struct.pack("<HH", number, 0))


def test_images_are_turned_upright(tmp_path):
    """The dark half moves as the standard's picture of each orientation says."""
    sides = {1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom"}
    for number, side in (sides | {8: "bottom", 9: "left", 0: "left"}).items():
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(jpeg_with_exif([orientation(number)]))
        pixels = np.asarray(open_image(str(path), upright=True)).astype(int)
        assert pixels.shape == ((16, 8) if side in ("top", "bottom") else (8, 16))
        halves = {
            "left": pixels[:, : pixels.shape[1] // 2],
            "right": pixels[:, -(pixels.shape[1] // 2) :],
            "top": pixels[: len(pixels) // 2],
            "bottom": pixels[-(len(pixels) // 2) :],
        }
        assert min(halves, key=lambda half: halves[half].mean()) == side
        assert np.asarray(open_image(str(path))).shape == (8, 16)


def test_other_metadata_do_not_make_an_image_unreadable(tmp_path):
    """A resolution that is text; the orientation beside it is still applied."""
    resolution = (0x011A, 2, 3, b"72\0\0")
    (tmp_path / "0.jpg").write_bytes(jpeg_with_exif([orientation(6), resolution]))
    pixels = read(folder(str(tmp_path))[0]._replace(size=8, channels=1))[0, ..., 0]
    assert pixels[:3].mean() < 60 < 190 < pixels[-3:].mean()


def test_damaged_exif_leaves_the_image_and_is_said(tmp_path, monkeypatch, caplog):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg_with_exif([orientation(1)]))

    def refuse(image):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", refuse)
    with caplog.at_level("WARNING"):
        pixels = read(folder(str(tmp_path))[0]._replace(size=8, channels=1))
    assert pixels.shape == (3, 8, 8, 1)
    assert f"{tmp_path}: 3 images have EXIF data that cannot be read" in caplog.text


def test_every_damage_of_exif_leaves_the_pixels():
    content = jpeg_with_exif([orientation(6)])
    start = content.index(b"Exif\0\0")
    levels = sorted(np.asarray(open_image(io.BytesIO(content))).ravel())
    for place in range(start, start + 32):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, about the metadata
            image = open_image(io.BytesIO(damaged), upright=True)
        assert sorted(np.asarray(image).ravel()) == levels


def test_long_texts_and_profiles_in_a_png_leave_the_pixels():
    samples = np.arange(64).reshape(8, 8, 1) * 4
    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(b"x" * 3_000_000))
    profile = chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(3_000_000)))
    odd = chunk(b"tEXt", b"no separator") + chunk(b"eXIf", b"MM") + chunk(b"pHYs", b"1")
    for chunks in (text, profile, odd):
        image = open_image(io.BytesIO(encode_png(samples, GREY, 8, chunks)), upright=True)
        np.testing.assert_array_equal(prepare_image(image, 8, 1), samples)
    with pytest.raises(OSError, match="truncated"):
        open_image(io.BytesIO(encode_png(samples, GREY, 8, text)[:-40]))
