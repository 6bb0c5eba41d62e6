"""Images and labels that other tools mistake in silence; the right values are computed independently."""

import io
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset, random_split
from torchvision.transforms import v2 as T

from convatlas.data.image_files import (
    BYTES_PER_PX,
    MAX_PIXELS,
    ImageError,
    MemoryBudget,
    decode_image,
    decoding_budget,
    read_image,
)
from convatlas.data.resize import central_crop
from convatlas.data.sets import DataError
from convatlas.data.sources import load_source, source_from


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("px", [224, 227, 33])
@pytest.mark.parametrize(
    "sides", [(375, 500), (500, 375), (333, 500), (257, 311), (300, 451), (224, 225), (64, 90), (101, 600)]
)
def test_the_central_crop_is_torchvisions(sides: tuple[int, int], px: int, interpolation: str) -> None:
    generator = torch.Generator().manual_seed(sides[0])
    image = torch.randint(0, 256, (3, *sides), dtype=torch.uint8, generator=generator)
    short = round(px / 0.875)
    theirs = T.Compose([T.Resize(short, T.InterpolationMode(interpolation)), T.CenterCrop(px)])(image)
    ours = central_crop(image, (px, px), 0.875, interpolation)
    assert ours.shape == theirs.shape
    assert int((ours.int() - theirs.int()).abs().max()) <= 2


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("mode", "ink", "key"),
    [("L", 20, 200), ("RGB", (20, 20, 20), (200, 10, 10)), ("1", 0, 1), ("I;16", 20 * 257, 40_000)],
    ids=["L", "RGB", "1", "I;16"],
)
def test_a_transparent_shade_is_laid_on_white(mode: str, ink: object, key: object) -> None:
    image = Image.new(mode, (6, 4), key)
    image.paste(ink, (0, 0, 3, 4))
    pixels = decode_image(encoded(image, transparency=key), "a.png")
    assert pixels[:, :, 3:].min() == 255
    assert pixels[:, :, :3].max() <= 20


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_no_grey_are_refused(value: float) -> None:
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[1, 2] = value
    with pytest.raises(ImageError, match=r"a\.tif: .*it holds values that are NaN or infinite"):
        decode_image(encoded(Image.fromarray(values), "TIFF"), "a.tif")


def exif(kind: int, value: bytes) -> bytes:
    """One entry, the orientation (0x0112): its type's number, and its value in 4 bytes (TIFF 6.0)."""
    return b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, kind, 1, value, 0)


ODD_NOTES = {
    "text": exif(2, b"L\0\0\0"),
    "nine": exif(3, b"\x09\0\0\0"),
    "zero": exif(3, bytes(4)),
    "far away": exif(12, b"\xff\xff\xff\xff"),
    "bytes": exif(7, b"x\0\0\0"),
    "rational": exif(5, b"\x08\0\0\0"),
    "cut off": b"Exif\0\0II*\0",
    "nonsense": b"Exif\0\0nonsense",
}


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ODD_NOTES)
def test_an_orientation_that_is_none_leaves_the_image_as_it_is(tmp_path: Path, kind: str) -> None:
    pixels = np.arange(40 * 60 * 3).reshape(40, 60, 3).astype(np.uint8)
    data = encoded(Image.fromarray(pixels), "JPEG", exif=ODD_NOTES[kind])
    (tmp_path / "a.jpg").write_bytes(data)
    assert decode_image(data, "a.jpg").shape == (3, 40, 60)
    assert read_image(tmp_path / "a.jpg").size == (60, 40)


def test_more_than_50_mpx_are_refused_by_the_header() -> None:
    data = encoded(Image.new("1", (8000, 6251)))
    with pytest.raises(ImageError, match=r"is 8000x6251 px; .* 50,000,000 px in all"):
        decode_image(data, "a.png")


def test_threads_share_a_budget_of_memory() -> None:
    budget, most, used = MemoryBudget(100), 0, 0
    lock = threading.Lock()

    def work(amount: int) -> None:
        nonlocal most, used
        for _ in range(50):
            with budget.hold(amount):
                with lock:
                    used += min(amount, 100)
                    most = max(most, used)
                with lock:
                    used -= min(amount, 100)

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (30, 40, 60, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used == 0
    assert 0 < most <= 100
    assert decoding_budget().total <= 2 * 1024**3
    assert decoding_budget().total >= BYTES_PER_PX * MAX_PIXELS or decoding_budget().total > 0


PIXELS = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0.7, 1.2] * 4), r"a label is 0\.7; expected whole numbers"),
        (torch.eye(8), r"labels have the shape \(8, 8\); .* of one-hot labels give argmax"),
        (torch.tensor([0, 999_999_999] * 4), "labels go up to 999,999,999; expected at most 999,999"),
    ],
    ids=["floats", "one-hot", "huge"],
)
def test_labels_that_are_no_numbers_of_classes_are_refused(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        source_from(TensorDataset(PIXELS, labels))


@pytest.mark.parametrize("labels", [torch.tensor([0.0, 1.0] * 4), torch.tensor([[0], [1]] * 4)])
def test_whole_numbers_in_any_form_are_labels(labels: torch.Tensor) -> None:
    source = source_from(TensorDataset(PIXELS, labels))
    assert sorted({*source.train.labels.tolist(), *source.test.labels.tolist()}) == [0, 1]


def test_words_as_labels_are_refused() -> None:
    with pytest.raises(DataError, match="sample 0: the label is 'cat'; expected the number of a class"):
        source_from([(np.zeros((8, 8), dtype=np.uint8), name) for name in ("cat", "dog") * 4])


def test_a_random_split_keeps_the_names_of_classes() -> None:
    data = TensorDataset(PIXELS, torch.tensor([0, 1] * 4))
    data.classes = ["cat", "dog"]
    part, _ = random_split(random_split(data, [7, 1])[0], [6, 1])
    assert source_from(part, part).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("seg_train", "seg_test"),
        ("TRAIN", "Val"),
        ("train", "valid"),
    ],
)
def test_parts_are_found_whatever_their_capitals_and_affixes(tmp_path: Path, train: str, test: str) -> None:
    for part, count in ((train, 3), (test, 2)):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                image = Image.new("L", (8, 8), 50 * index + number)
                image.save(tmp_path / part / name / f"{index}.png")
    source = load_source(f"folder:{tmp_path}")
    assert source.class_names == ("cat", "dog")
    assert (len(source.train), len(source.test)) == (6, 4)
