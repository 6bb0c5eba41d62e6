import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from convatlas.data.describe import ClassCount, describe
from convatlas.data.sets import ImageSet
from convatlas.data.small import memory_source
from convatlas.data.sources import load_source, source_from

Make = Callable[..., Path]


@pytest.fixture
def root(make_folder: Make) -> Path:
    """A set without fault: train with 6 images of each class and val with 2."""
    make_folder("set/train", count=6)
    for path in sorted((make_folder("more", count=8)).rglob("00[67].*")):
        target = path.parent.parent.parent / "set" / "val" / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.name)
    return (make_folder("set/train", count=6)).parent


def test_a_clean_set(root: Path) -> None:
    report = describe(load_source(f"folder:{root}"))
    assert (report.train, report.test, report.imbalance) == (18, 6, 1.0)
    assert report.classes == tuple(ClassCount(name, 6, 2) for name in ("cat", "dog", "owl"))
    assert report.duplicates == report.skipped == report.warnings() == ()


def test_sizes(root: Path, make_image: Make) -> None:
    make_image(root / "train" / "cat" / "small.png", width=10, height=16)
    make_image(root / "val" / "dog" / "wide.png", width=90, height=30)
    sizes = describe(load_source(f"folder:{root}")).sizes
    # 24 images are 24x20.
    assert (sizes.least, sizes.median, sizes.most, sizes.widest, sizes.num_unknown) == (10, 20.0, 90, 3.0, 0)


def test_copies_in_both_parts(root: Path) -> None:
    shutil.copy(root / "train" / "cat" / "002.png", root / "val" / "cat" / "copy.png")
    report = describe(load_source(f"folder:{root}"))
    (found,) = report.duplicates
    assert found.samples == (f"train: {root}/train/cat/002.png", f"test: {root}/val/cat/copy.png")
    assert (found.across, found.labels) == (True, ("cat",))
    assert report.warnings() == ("1 image is both learnt from and tested on",)


def test_copies_under_two_classes(root: Path) -> None:
    for name in ("one.jpg", "two.jpg"):
        shutil.copy(root / "train" / "cat" / "001.jpg", root / "train" / "owl" / name)
    report = describe(load_source(f"folder:{root}"))
    (found,) = report.duplicates
    assert len(found.samples) == 3
    assert (found.across, found.labels) == (False, ("cat", "owl"))
    assert report.warnings() == ("1 image is there under more than one class",)


def test_files_of_one_length_that_differ_are_no_copies(root: Path) -> None:
    data = (root / "train" / "cat" / "000.png").read_bytes()
    for i in range(3):  # the same but for one byte, behind the end and before the last 4 KiB
        (root / "train" / "cat" / f"x{i}.png").write_bytes(data + bytes([i]) + bytes(5_000))
    assert describe(load_source(f"folder:{root}")).duplicates == ()


def test_damaged_images_are_listed(root: Path) -> None:
    (root / "val" / "cat" / "006.png").write_bytes(b"<html>")
    report = describe(load_source(f"folder:{root}", on_bad_image="skip"))
    (entry,) = report.skipped
    assert (Path(entry.path).name, entry.reason[:11]) == ("006.png", "is no image")
    assert report.warnings() == ("1 image cannot be used",)


def test_imbalance_and_classes_without_test(root: Path, make_image: Make) -> None:
    for i in range(60):
        make_image(root / "train" / "cat" / f"n{i}.png", seed=5_000 + i)
    shutil.rmtree(root / "val" / "owl")
    report = describe(load_source(f"folder:{root}"))
    assert report.imbalance == 11.0
    assert report.warnings() == (
        "the largest class has 11 times the images of the smallest",
        "1 class has no image to test on, such as 'owl'",
    )


def test_names_that_differ_in_capitals_alone(make_folder: Make) -> None:
    root = make_folder(classes=("Cat", "cat", "dog"))
    (warning,) = [line for line in describe(load_source(f"folder:{root}")).warnings() if "capitals" in line]
    assert warning == "names of classes differ in capitals alone: Cat, cat"


def test_images_in_memory_are_compared_by_their_pixels() -> None:
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 4, 4)
    images[7] = images[2]
    train = ImageSet(images[:5], torch.arange(5) % 2)
    report = describe(memory_source("made", train, ImageSet(images[5:], torch.arange(5) % 2), "ab"))
    assert report.image_size == (1, 4, 4)
    assert (report.sizes.least, report.sizes.most) == (4, 4)
    assert [found.samples for found in report.duplicates] == [("train: image 2", "test: image 2")]
    assert report.duplicates[0].across


def test_data_of_pythons_are_compared_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    pixels[11] = pixels[3]
    report = describe(source_from([(image, i % 2) for i, image in enumerate(pixels)]))
    assert report.sizes.num_unknown == 20
    assert [sorted(name.split(": ")[1] for name in found.samples) for found in report.duplicates] == [
        ["list[11]", "list[3]"]
    ]


def test_the_report_as_json(root: Path) -> None:
    shutil.copy(root / "train" / "cat" / "002.png", root / "val" / "cat" / "copy.png")
    record = json.loads(json.dumps(describe(load_source(f"folder:{root}")).record()))
    assert record["classes"][1] == {"name": "dog", "train": 6, "test": 2}
    assert record["duplicates"][0]["across"] is True
    assert record["sizes"]["least"] == 20
    assert record["image_size"] is None
