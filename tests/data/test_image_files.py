import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convatlas.data.image_files import ImageError, read_image

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif", "gif", "jpg"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    Image.fromarray(GREY).save(path, **options)
    found = np.asarray(read_image(path).convert("L")).astype(int)
    assert np.abs(found - GREY).max() <= 2


def test_the_name_does_not_decide_the_format(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(GREY).save(path, format="png")
    assert np.array_equal(np.asarray(read_image(path)), GREY)


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(GREY.astype(np.uint16) * 257).save(path)
    assert np.array_equal(np.asarray(read_image(path)), GREY)


def test_palette_becomes_colour(tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 30, 10])
    image.save(path)
    assert read_image(path).getpixel((0, 0)) == (200, 30, 10)


@pytest.mark.parametrize(
    ("ink", "background"),
    [pytest.param(0, 255, id="dark-ink"), pytest.param(255, 0, id="light-ink")],
)
def test_transparent_images_are_laid_on_what_shows_the_ink(tmp_path: Path, ink: int, background: int) -> None:
    pixels = np.zeros((8, 8, 4), dtype=np.uint8)
    pixels[2:6, 2:6] = (ink, ink, ink, 255)
    path = tmp_path / "clear.png"
    Image.fromarray(pixels).save(path)
    found = np.asarray(read_image(path).convert("L"))
    assert (found[0, 0], found[3, 3]) == (background, ink)


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(path)
    found = read_image(path)
    assert found.mode == "RGB"
    assert min(found.getpixel((4, 4))) > 250


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    image = Image.fromarray(np.vstack([np.full((20, 60), 255), np.zeros((40, 60))]).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(path, exif=exif, quality=95)
    found = np.asarray(read_image(path))
    assert found.shape == (60, 60)
    assert found[:, 50].mean() > 250  # the white top is now on the right
    assert found[:, 10].mean() < 5


def bare_png(path: Path, width: int, height: int) -> Path:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        pytest.param(0, 10, r"is 0x10 px; an image has at least one px a side", id="no-width"),
        pytest.param(10, 0, r"is 10x0 px; an image has at least one px a side", id="no-height"),
        pytest.param(
            100_000, 100, r"is 100000x100 px; the largest that is read is 20,000 px a side", id="too-wide"
        ),
        pytest.param(100_000, 100_000, r"the largest that is read|more pixels than", id="bomb"),
        pytest.param(15_000, 15_000, r"the largest that is read|more pixels than", id="too-many-px"),
    ],
)
def test_impossible_sizes(tmp_path: Path, width: int, height: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(bare_png(tmp_path / "size.png", width, height))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_cut_off_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"whole.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=rf"whole\.{suffix}: (damaged or cut off|is no image)"):
        read_image(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    text, empty = tmp_path / "notes.png", tmp_path / "empty.png"
    text.write_text("not an image")
    empty.write_bytes(b"")
    with pytest.raises(ImageError, match=r"notes\.png: is no image in a format that is read"):
        read_image(text)
    with pytest.raises(ImageError, match=r"empty\.png: is an empty file"):
        read_image(empty)
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="is a folder, not an image"):
        read_image(tmp_path)


def test_formats_that_are_not_needed_stay_shut(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    Image.fromarray(GREY).save(path, format="eps")
    with pytest.raises(ImageError, match="is no image in a format that is read"):
        read_image(path)
