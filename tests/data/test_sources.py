import gzip
import hashlib
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from convatlas.data import small
from convatlas.data.image_files import ImageError
from convatlas.data.sets import Chosen, DataError, DatasetSet, ImageSet
from convatlas.data.sources import load_source, source_from
from convatlas.errors import UnknownNameError

Make = Callable[..., Path]

DRAW = np.random.default_rng(0)
IMAGES = {"train": DRAW.integers(0, 256, (30, 28, 28), dtype=np.uint8)}
IMAGES["t10k"] = DRAW.integers(0, 256, (10, 28, 28), dtype=np.uint8)
LABELS = {part: (np.arange(len(images)) % 10).astype(np.uint8) for part, images in IMAGES.items()}


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_idx(folder: Path, pack: Callable[[bytes], bytes] = gzip.compress, suffix: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in IMAGES:
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(idx(IMAGES[part])))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(LABELS[part])))
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No package of Debian's, and no network."""
    monkeypatch.setattr(small, "DEBIAN", {"fashion-mnist": tmp_path / "not-installed"})

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


# Names


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'fashionmnist'; nearest: fashion-mnist, "):
        load_source("fashionmnist")


def test_a_bare_folder_is_told_how_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=rf"; a folder of images is folder:{tmp_path}$"):
        load_source(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        pytest.param("folder:", {}, "'folder:' names no folder; expected folder:PATH", id="no-path"),
        pytest.param("digits", {"test_share": 1.0}, "`test_share`=1.0; expected a share between", id="all"),
        pytest.param("digits", {"test_share": 0.0}, "`test_share`=0.0; expected a share between", id="none"),
        pytest.param("digits", {"on_bad_image": "hide"}, "`on_bad_image`='hide'; expected", id="policy"),
    ],
)
def test_arguments_out_of_range(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_source(name, **settings)


def test_digits_are_what_they_were_and_have_a_size() -> None:
    source = load_source("digits", seed=5, test_share=0.5)
    # Of the first release: runs that were trained on them state it.
    assert source.fingerprint == "fdb9bc0619d166336bcfeb6069faf754eea6d53f53f90bde2225b3cb4465cc06"
    assert source.image_size == (1, 32, 32)


# MNIST and its kin


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize(
    ("below", "pack", "suffix"),
    [
        pytest.param("", gzip.compress, ".gz", id="packed"),
        pytest.param("", bytes, "", id="unpacked"),
        pytest.param("raw", bytes, "", id="in-raw"),
    ],
)
def test_idx_files_in_a_folder_of_the_users(
    tmp_path: Path, name: str, below: str, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    write_idx(tmp_path / below, pack, suffix)
    source = load_source(name, data_dir=tmp_path)
    assert isinstance(source.train, ImageSet)
    assert isinstance(source.test, ImageSet)
    assert source.image_size == (1, 28, 28)
    assert np.array_equal(source.train.images[:, 0].numpy(), IMAGES["train"])
    assert np.array_equal(source.test.labels.numpy(), LABELS["t10k"])
    assert source.test.labels.dtype == torch.int64
    assert len(source.class_names) == 10


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_what_torchvision_downloaded_is_found(tmp_path: Path, name: str, folder: str) -> None:
    write_idx(tmp_path / folder / "raw", bytes, "")
    assert len(load_source(name, data_dir=str(tmp_path)).train) == 30


@pytest.mark.usefixtures("offline")
def test_the_users_cache_is_looked_into(cache: Path) -> None:
    write_idx(cache / "data" / "mnist")
    assert len(load_source("mnist").train) == 30


def test_debians_package_is_found_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "DEBIAN", {"fashion-mnist": write_idx(tmp_path / "datasets")})
    assert len(load_source("fashion-mnist").train) == 30


@pytest.mark.skipif(not small.DEBIAN["fashion-mnist"].is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_is_the_published_one() -> None:
    source = load_source("fashion-mnist")
    assert isinstance(source.train, ImageSet)
    assert isinstance(source.test, ImageSet)
    # Xiao, Rasul and Vollgraf 2017, table 2 and section 2: 7,000 of each class, 6,000 of them to learn from.
    assert source.train.images.shape == (60_000, 1, 28, 28)
    assert source.train.labels.bincount().tolist() == [6_000] * 10
    assert source.test.labels.bincount().tolist() == [1_000] * 10
    # Table 1: label 9 is the ankle boot; the first image to learn from is one.
    assert source.class_names[9] == "ankle boot"
    assert source.train.labels[0] == 9


@pytest.mark.usefixtures("offline")
def test_missing_data_say_how_to_get_them(tmp_path: Path) -> None:
    message = (
        r"data set 'fashion-mnist' is not in \S+ and cannot be downloaded \(.*\); put the four files in idx "
        r"format .* name the folder by --data-dir or install Debian's package dataset-fashion-mnist"
    )
    with pytest.raises(DataError, match=message):
        load_source("fashion-mnist", data_dir=tmp_path)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"<html>", r"ubyte\.gz: is no file of bytes in idx format", id="html"),
        pytest.param(b"", r"ubyte\.gz: is no file of bytes in idx format", id="empty"),
        pytest.param(gzip.compress(idx(LABELS["train"]))[:-12], r"ubyte\.gz: cannot be read", id="cut-off"),
        pytest.param(gzip.compress(idx(LABELS["train"])[:-5]), r"holds 25 bytes for the shape", id="short"),
        pytest.param(gzip.compress(idx(LABELS["t10k"])), r"the labels \(10,\); expected", id="fewer"),
        pytest.param(gzip.compress(idx(LABELS["train"] + 1)), r"go up to 10; expected 0 to 9", id="labels"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, content: bytes, message: str) -> None:
    write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_source("mnist", data_dir=tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_missing_idx_file(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"holds no t10k-images-idx3-ubyte\.gz; expected four files"):
        load_source("mnist", data_dir=tmp_path)


# CIFAR


def write_cifar(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Writes files like the authors', of 10 images each, and makes their checksums the right ones."""
    from torchvision import datasets

    kind = getattr(datasets, small.PUBLISHED[name])
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    pixels: dict[str, np.ndarray] = {}

    def write(file: str, content: dict[str, Any]) -> tuple[str, str]:
        data = pickle.dumps(content)
        (folder / file).write_bytes(data)
        return file, hashlib.md5(data).hexdigest()

    lists: dict[str, list[tuple[str, str]]] = {}
    for number, attribute in enumerate(("train_list", "test_list")):
        lists[attribute] = []
        for file, _ in getattr(kind, attribute):
            rows = np.random.default_rng(number).integers(0, 256, (10, 3072), dtype=np.uint8)
            key = "labels" if name == "cifar10" else "fine_labels"
            lists[attribute].append(write(file, {"data": rows, key: list(range(10))}))
            pixels[attribute] = rows
    count = 10 if name == "cifar10" else 100
    meta = write(kind.meta["filename"], {kind.meta["key"]: [f"class {i}" for i in range(count)]})
    for attribute, entries in lists.items():
        monkeypatch.setattr(kind, attribute, entries)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": meta[1]})
    return pixels


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("name", "count", "num_classes"), [("cifar10", 50, 10), ("cifar100", 10, 100)])
def test_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, count: int, num_classes: int
) -> None:
    pixels = write_cifar(tmp_path, name, monkeypatch)
    source = load_source(name, data_dir=tmp_path)
    assert isinstance(source.test, ImageSet)
    assert (len(source.train), len(source.class_names)) == (count, num_classes)
    assert source.image_size == (3, 32, 32)
    # Krizhevsky's page: 1,024 red values, then green, then blue, row by row.
    assert np.array_equal(source.test.images.numpy(), pixels["test_list"].reshape(10, 3, 32, 32))
    assert source.test.labels.tolist() == list(range(10))


@pytest.mark.usefixtures("offline")
def test_missing_cifar(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'cifar10' is not in .* put the unpacked folder"):
        load_source("cifar10", data_dir=tmp_path)


# Data that Python holds


class Listed(Dataset[Any]):
    """A map-style dataset of a list."""

    def __init__(self, rows: list[tuple[Any, int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.rows[index]


PIXELS = DRAW.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)


def listed(make: Callable[[np.ndarray], Any], count: int = 20) -> Listed:
    return Listed([(make(PIXELS[i]), i % 4) for i in range(count)])


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Image.fromarray, id="pil"),
        pytest.param(lambda pixels: pixels, id="array"),
        pytest.param(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1), id="tensor"),
        pytest.param(lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1) / 255.0, id="float-tensor"),
    ],
)
def test_images_in_any_form(make: Callable[[np.ndarray], Any]) -> None:
    source = source_from(listed(make), listed(make, count=4))
    assert source.image_size == (3, 6, 5)
    assert source.class_names == ("0", "1", "2", "3")
    assert source.train.labels.tolist() == [0, 1, 2, 3] * 5
    assert np.array_equal(source.train.image(7).permute(1, 2, 0).numpy(), PIXELS[7])
    assert source.train.image(7).dtype == torch.uint8


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda pixels: Image.fromarray(pixels[..., 0]), id="pil"),
        pytest.param(lambda pixels: pixels[..., 0].copy(), id="array"),
        pytest.param(lambda pixels: torch.from_numpy(pixels[..., 0].copy()), id="tensor"),
    ],
)
def test_grey_images_stay_grey(make: Callable[[np.ndarray], Any]) -> None:
    source = source_from(listed(make), listed(make))
    assert source.image_size == (1, 6, 5)
    assert np.array_equal(source.train.image(3)[0].numpy(), PIXELS[3, ..., 0])


def test_without_a_test_part_a_fifth_is_split_off() -> None:
    source = source_from(listed(Image.fromarray), class_names=("a", "b", "c", "d"))
    assert isinstance(source.train, Chosen)
    assert source.train.labels.bincount().tolist() == [4, 4, 4, 4]
    assert source.test.labels.bincount().tolist() == [1, 1, 1, 1]
    assert source.class_names == ("a", "b", "c", "d")
    parts = (source.train, source.test)
    seen = [part.image(index).tolist() for part in parts for index in range(len(part))]
    assert sorted(seen) == sorted(PIXELS.transpose(0, 3, 1, 2).tolist())
    assert source.test.name(0).startswith("Listed[")


def test_images_in_memory_stay_there() -> None:
    images = ImageSet(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), torch.arange(20) % 2)
    source = source_from(images)
    assert isinstance(source.train, ImageSet)
    assert (len(source.train), len(source.test), source.image_size) == (16, 4, (3, 6, 5))


def test_images_of_many_sizes_have_none() -> None:
    rows = [(np.zeros((6 + i, 5), dtype=np.uint8), i % 2) for i in range(10)]
    assert source_from(Listed(rows)).image_size is None


def test_the_fingerprint_follows_the_data() -> None:
    first, again = (source_from(listed(Image.fromarray)) for _ in range(2))
    other = source_from(listed(lambda pixels: Image.fromarray(pixels[::-1].copy())))
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda rows: Subset(rows, [5, 6, 7, 9]), id="subset"),
        pytest.param(lambda rows: Listed([rows[i] for i in (5, 6, 7, 9)]), id="read-one-by-one"),
        pytest.param(
            lambda _: TensorDataset(
                torch.from_numpy(PIXELS[[5, 6, 7, 9]]).permute(0, 3, 1, 2), torch.tensor([1, 2, 3, 1])
            ),
            id="tensors",
        ),
    ],
)
def test_labels_of_datasets(make: Callable[[Listed], Any]) -> None:
    part = source_from(listed(Image.fromarray), make(listed(Image.fromarray))).test
    assert isinstance(part, DatasetSet)
    assert part.labels.tolist() == [1, 2, 3, 1]
    assert np.array_equal(part.image(1).permute(1, 2, 0).numpy(), PIXELS[6])


def test_targets_save_decoding() -> None:
    data = listed(Image.fromarray)
    data.targets = [i % 4 for i in range(20)]
    data.classes = ["a", "b", "c", "d"]
    data.rows[3] = ("decoding this would fail", 3)
    source = source_from(Subset(data, [0, 1, 2]), Subset(data, [4, 5]), ("a", "b", "c", "d"))
    assert source.train.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        pytest.param(5, TypeError, "data of type int; expected the name of a data set", id="no-dataset"),
        pytest.param(Listed([]), DataError, "the dataset is empty", id="empty"),
        pytest.param([5, 6], TypeError, r"gives int; expected \(image, label\)", id="no-pairs"),
        pytest.param([("a", 0)], ImageError, "sample 0: is a str; expected a PIL image", id="no-image"),
        pytest.param([(PIXELS[0, ..., :2], 0)], ImageError, r"\(2, 6, 5\); expected 1 or 3", id="shape"),
        pytest.param(
            [(torch.zeros(5, 5) - 1.5, 0)], ImageError, "from -1.5 to -1.5; .* normalised", id="range"
        ),
        pytest.param([(torch.zeros(5, 5).long(), 0)], ImageError, "holds torch.int64", id="int64"),
    ],
)
def test_data_that_are_none(data: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        source_from(data)


@pytest.mark.parametrize("label", [-1, 7])
def test_labels_that_do_not_fit(label: int) -> None:
    rows = [(PIXELS[i], i % 4) for i in range(20)]
    with pytest.raises(DataError, match=rf"labels go from .*{label}.*; expected 0 to 3, a number"):
        source_from(Listed(rows), Listed([(PIXELS[0], label)]), ("a", "b", "c", "d"))
