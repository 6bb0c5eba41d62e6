"""A folder as the world fills it: each odd file is predicted as it is meant to be seen, or refused."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convatlas import Predictor
from convatlas.predict.outputs import Prediction, Skipped
from made_images import pixels, small_network

# Of 64x64 px in blocks, so that JPEG keeps what the network sees.
COLOURS = np.kron(pixels(3, 4, 4), np.ones((16, 16, 1), np.uint8))
GREY = np.repeat(COLOURS[..., :1], 3, axis=2)


def bomb(path: Path, side: int = 20_000) -> None:
    """A PNG of so many px a side, in some kB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    content = b"".join(rows.compress(bytes(1 + side // 8)) for _ in range(side)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )


def turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(COLOURS).copy()).save(path, exif=exif, quality=100, subsampling=0)


def animated(path: Path) -> None:
    frames = [Image.fromarray(image) for image in (COLOURS, COLOURS[::-1].copy())]
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)


def sixteen_bits(path: Path) -> None:
    Image.fromarray(GREY[..., 0].astype(np.uint16) * 257).save(path)


def truncated(path: Path) -> None:
    Image.fromarray(COLOURS).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:700])


GOOD: dict[str, tuple[Any, Any]] = {
    "animated.webp": (animated, COLOURS),
    "cmyk.jpg": (lambda path: Image.fromarray(COLOURS).convert("CMYK").save(path, quality=100), COLOURS),
    "grey.jpg": (lambda path: Image.fromarray(GREY[..., 0]).save(path, quality=100), GREY),
    "sixteen.png": (sixteen_bits, GREY),
    "sixteen.tif": (sixteen_bits, GREY),
    "turned.jpg": (turned, COLOURS),
    "png.jpg": (lambda path: Image.fromarray(COLOURS).save(path, format="png"), COLOURS),
}
BAD: dict[str, tuple[Any, str]] = {
    "bomb.png": (bomb, "is 20000x20000 px; the largest that is read is"),
    "large.png": (lambda path: bomb(path, 10_000), "is 10000x10000 px; the largest that is read is"),
    "empty.jpg": (lambda path: path.touch(), "is an empty file"),
    "page.jpg": (lambda path: path.write_text("<!DOCTYPE html>"), "is no image in a format that is read"),
    "pipe.png": (os.mkfifo, "is no regular file, so no image"),
    "script.png": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n"), "is no image in a format"),
    "truncated.jpg": (truncated, "damaged or cut off"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prediction | Skipped]:
    folder = tmp_path_factory.mktemp("odd")
    for name, (make, _) in (GOOD | BAD).items():
        make(folder / name)
    return {Path(entry.image).name: entry for entry in Predictor(small_network()).predict(folder, top=10)}


def test_every_file_is_accounted_for(results: dict[str, Prediction | Skipped]) -> None:
    assert list(results) == sorted([*GOOD, *BAD])


@pytest.mark.parametrize("name", GOOD)
def test_predicted_as_it_is_meant_to_be_seen(results: dict[str, Prediction | Skipped], name: str) -> None:
    entry = results[name]
    assert isinstance(entry, Prediction), entry
    (wanted,) = Predictor(small_network()).predict(GOOD[name][1], top=10)
    assert isinstance(wanted, Prediction)
    assert entry.label == wanted.label
    assert dict(entry.top) == pytest.approx(dict(wanted.top), abs=0.05)


@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_reason(results: dict[str, Prediction | Skipped], name: str) -> None:
    entry = results[name]
    assert isinstance(entry, Skipped), entry
    assert entry.reason.startswith(f"{entry.image}: ")
    assert BAD[name][1] in entry.reason
    assert "\n" not in entry.reason
