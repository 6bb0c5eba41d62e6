import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convatlas.data import image_files
from convatlas.data.image_files import ImageError, decode_image, image_size, read_image

NOISE = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
# Smooth, so that JPEG keeps it, and of odd sides, so that its blocks are cut.
RAMP = np.stack(np.broadcast_arrays(*np.ogrid[0:37, 0:51], 90), axis=2).astype(np.uint8) * 2


def content(image: Image.Image, form: str = "jpeg", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return content(Image.fromarray(RAMP), exif=exif)


def turned_by_xmp() -> bytes:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    return content(Image.fromarray(RAMP), xmp=packet.encode())


def with_palette(transparent: bool) -> bytes:
    options = {"transparency": 3} if transparent else {}
    return content(Image.fromarray(NOISE).quantize(16), "png", **options)


GREY = Image.fromarray(NOISE[..., 0])
COLOUR = Image.fromarray(NOISE)
ALPHA = Image.fromarray(np.dstack([NOISE, NOISE[..., 0]]))

IMAGES = {
    "jpeg": content(COLOUR),
    "jpeg-grey": content(GREY),
    "jpeg-progressive": content(COLOUR, progressive=True),
    "jpeg-444": content(COLOUR, subsampling=0),
    "jpeg-422": content(COLOUR, subsampling=1),
    "jpeg-rgb": content(COLOUR, keep_rgb=True),
    "jpeg-cmyk": content(COLOUR.convert("CMYK")),
    "jpeg-xmp": turned_by_xmp(),
    **{f"jpeg-exif-{number}": turned(number) for number in range(1, 9)},
    "png": content(COLOUR, "png"),
    "png-grey": content(GREY, "png"),
    "png-16-bit": content(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257), "png"),
    "png-1-bit": content(GREY.convert("1"), "png"),
    "png-palette": with_palette(transparent=False),
    "png-palette-clear": with_palette(transparent=True),
    "png-alpha": content(ALPHA, "png"),
    "png-grey-alpha": content(ALPHA.convert("LA"), "png"),
    "gif": content(COLOUR, "gif"),
    "bmp": content(COLOUR, "bmp"),
    "tiff": content(COLOUR, "tiff"),
    "webp": content(COLOUR, "webp"),
}


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_training_sees_what_prediction_sees(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    expected = np.asarray(read_image(path).convert("RGB"))
    found = decode_image(data, "image")
    assert found.dtype == torch.uint8
    assert found.permute(1, 2, 0).is_contiguous()
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("number", range(1, 9), ids=lambda number: f"exif-{number}")
def test_all_eight_rotations_are_applied(number: int) -> None:
    # EXIF 2.32, table 6: where row 0 and column 0 of what is stored are seen.
    seen = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.transpose(1, 0, 2),
        6: RAMP.transpose(1, 0, 2)[:, ::-1],
        7: RAMP.transpose(1, 0, 2)[::-1, ::-1],
        8: RAMP.transpose(1, 0, 2)[::-1],
    }[number]
    found = decode_image(IMAGES[f"jpeg-exif-{number}"], "turned").permute(1, 2, 0).numpy()
    assert found.shape == seen.shape
    assert np.abs(found.astype(int) - seen).mean() < 3.0


def test_the_usual_jpeg_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    if image_files._torchvision_jpeg() is None:
        pytest.skip("this torchvision decodes no JPEG")
    expected = decode_image(IMAGES["jpeg"], "a")
    monkeypatch.setattr(image_files, "_read", None)
    assert torch.equal(decode_image(IMAGES["jpeg"], "a"), expected)


def test_without_torchvisions_decoder_pillow_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = decode_image(IMAGES["jpeg"], "a")
    monkeypatch.setattr(image_files, "_torchvision_jpeg", lambda: None)
    assert torch.equal(decode_image(IMAGES["jpeg"], "a"), expected)


@pytest.mark.parametrize("data", [IMAGES["jpeg"], IMAGES["png"]], ids=["jpeg", "png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_off_content_is_refused(data: bytes, share: float) -> None:
    with pytest.raises(ImageError, match=r"^cut: damaged or cut off"):
        decode_image(data[: int(share * len(data))], "cut")


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it finds in damaged headers
@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg-progressive", "jpeg-exif-6", "png", "png-palette", "gif", "tiff"]
)
def test_damaged_content_is_decoded_or_refused_but_never_crashes(name: str) -> None:
    draw = np.random.default_rng(0)
    data = np.frombuffer(IMAGES[name], dtype=np.uint8)
    outcomes = set[str]()
    for _ in range(60):
        damaged = data.copy()
        damaged[draw.integers(0, len(data), 4)] = draw.integers(0, 256, 4)
        try:
            outcomes.add(str(decode_image(damaged.tobytes(), "damaged").dtype))
        except ImageError as error:
            outcomes.add(str(error)[:8])
    assert outcomes <= {"torch.uint8", "damaged:"}


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_the_header_tells_the_size(data: bytes) -> None:
    stored = Image.open(io.BytesIO(data)).size
    assert image_size(data, "a") == stored[::-1]


def test_a_fill_byte_and_long_segments_before_the_size_are_passed_over() -> None:
    data = content(COLOUR)
    comment = b"\xff\xff\xfe" + (60_000).to_bytes(2, "big") + bytes(59_998)
    assert image_size(data[:2] + comment + data[2:], "a") == (37, 51)
    assert torch.equal(decode_image(data[:2] + comment + data[2:], "a"), decode_image(data, "a"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", r"^a: is an empty file", id="empty"),
        pytest.param(b"<html>not found</html>", r"^a: is no image in a format that is read", id="html"),
        pytest.param(b"\xff\xd8\xff\xe0", r"^a: (damaged|is no image)", id="nothing-but-a-start"),
    ],
)
def test_what_is_no_image(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        decode_image(data, "a")
    with pytest.raises(ImageError, match=message):
        image_size(data, "a")


def test_a_jpeg_that_claims_too_many_pixels_is_refused_before_decoding() -> None:
    data = bytearray(content(COLOUR))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (60_000).to_bytes(2, "big") * 2
    with pytest.raises(ImageError, match=r"^a: is 60000x60000 px; the largest that is read is 20,000 px"):
        decode_image(bytes(data), "a")
