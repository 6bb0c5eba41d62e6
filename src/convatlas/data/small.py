"""Small data sets, which live in memory: digits, MNIST and its kin, CIFAR."""

from __future__ import annotations

import gzip
import hashlib
import math
import textwrap
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.data.digits import read_digits
from convatlas.data.sets import DataError, ImageSet, Source, stratified_mask
from convatlas.files import cache_folder

DIGIT_NAMES = tuple("0123456789")
FASHION_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
# Where Debian's package dataset-fashion-mnist puts it.
DEBIAN = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
# Names of torchvision's classes for what it downloads.
PUBLISHED = {"fashion-mnist": "FashionMNIST", "mnist": "MNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}
IDX_SPLITS = ("train", "t10k")
UNSIGNED_BYTE = 0x08


def load_digits() -> Source:
    """The digits of scikit-learn with the split that they always have."""
    images, labels = read_digits()
    is_test = stratified_mask(labels, share=0.2, seed=0)
    train, test = (ImageSet(images[mask], labels[mask]) for mask in (~is_test, is_test))
    return memory_source("digits", train, test, DIGIT_NAMES)


def load_mnist_like(name: str, data_dir: Path | None) -> Source:
    """MNIST or Fashion-MNIST, from files in idx format, packed or not.

    Args:
        name: "mnist" or "fashion-mnist".
        data_dir: where the files lie, or are to be downloaded to; None looks where Debian's package puts
            them, then in the user's cache.

    Raises:
        DataError: they are not there and cannot be downloaded, or are damaged.
    """
    folder = _find_idx(name, data_dir)
    if folder is None:
        root = data_dir or cache_folder() / "data"
        _download(name, root, "the four files in idx format (train-images-idx3-ubyte.gz and so on)")
        folder = root / PUBLISHED[name] / "raw"
    train, test = (_read_split(folder, split) for split in IDX_SPLITS)
    return memory_source(name, train, test, DIGIT_NAMES if name == "mnist" else FASHION_NAMES)


def load_cifar(name: str, data_dir: Path | None) -> Source:
    """CIFAR-10 or CIFAR-100, read by torchvision, which checks the files' checksums.

    Args:
        name: "cifar10" or "cifar100".
        data_dir: the folder that holds the unpacked folder, or is to hold it; None is the user's cache.

    Raises:
        DataError: the files are not there and cannot be downloaded, or are damaged.
    """
    root = data_dir or cache_folder() / "data"
    expected = "the unpacked folder (cifar-10-batches-py or cifar-100-python)"
    train, test = _download(name, root, expected)
    splits = [
        ImageSet(torch.from_numpy(split.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(split.targets))
        for split in (train, test)
    ]
    return memory_source(name, splits[0], splits[1], tuple(train.classes))


def memory_source(name: str, train: ImageSet, test: ImageSet, class_names: Sequence[str]) -> Source:
    """A source of two splits in memory."""
    digest = hashlib.sha256()
    for split in (train.images, train.labels, test.images, test.labels):
        digest.update(split.contiguous().numpy().data)
    chans, height, width = train.images.shape[1:]
    return Source(name, train, test, tuple(class_names), digest.hexdigest(), (chans, height, width))


def _find_idx(name: str, data_dir: Path | None) -> Path | None:
    given = data_dir or cache_folder() / "data"
    folders = [given, given / name, given / "raw", given / PUBLISHED[name] / "raw", given / PUBLISHED[name]]
    if data_dir is None and name in DEBIAN:
        folders.insert(0, DEBIAN[name])
    first = f"{IDX_SPLITS[0]}-images-idx3-ubyte"
    return next((folder for folder in folders if _find_packed(folder, first) is not None), None)


def _find_packed(folder: Path, stem: str) -> Path | None:
    # Some archives write a dot for the last hyphen.
    stems = (stem, ".idx".join(stem.rsplit("-idx", 1)))
    paths = (folder / f"{name}{suffix}" for name in stems for suffix in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _read_split(folder: Path, split: str) -> ImageSet:
    images, labels = (
        _read_found(folder, f"{split}-{stem}") for stem in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(labels):
        raise DataError(
            f"{folder}: the images of {split} have the shape {tuple(images.shape)} and the labels "
            f"{tuple(labels.shape)}; expected (N, H, W) and (N,)"
        )
    if int(labels.max()) > 9:
        raise DataError(f"{folder}: the labels of {split} go up to {int(labels.max())}; expected 0 to 9")
    return ImageSet(images[:, None], labels.long())


def _read_found(folder: Path, stem: str) -> Tensor:
    path = _find_packed(folder, stem)
    if path is None:
        raise DataError(f"{folder}: holds no {stem}.gz; expected four files in idx format")
    return read_idx(path)


def read_idx(path: Path) -> Tensor:
    """Reads a file in idx format, packed with gzip or not: uint8.

    Source: LeCun, Cortes and Burges, "The MNIST database": two zeros, the type, the number of dimensions,
    each dimension in 4 bytes, most significant first, then the values.

    Raises:
        DataError: it is damaged, or of another format.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, UNSIGNED_BYTE]) or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path}: is no file of bytes in idx format")
    shape = np.frombuffer(data, dtype=">u4", count=data[3], offset=4).tolist()
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * len(shape))
    if len(values) != math.prod(shape):
        raise DataError(f"{path}: holds {len(values):,} bytes for the shape {tuple(shape)}; it is cut off")
    return torch.from_numpy(values.reshape(shape).copy())


def _download(name: str, root: Path, expected: str) -> tuple[Any, Any]:
    """Both splits from torchvision, which downloads what is missing and checks it."""
    from torchvision import datasets

    make = getattr(datasets, PUBLISHED[name])
    try:
        root.mkdir(parents=True, exist_ok=True)
        return tuple(make(str(root), train=split, download=True) for split in (True, False))
    except (OSError, RuntimeError) as error:
        debian = " or install Debian's package dataset-fashion-mnist" if name in DEBIAN else ""
        why = textwrap.shorten(str(error), 160)
        raise DataError(
            f"data set {name!r} is not in {root} and cannot be downloaded ({why}); "
            f"put {expected} somewhere and name the folder by --data-dir{debian}"
        ) from None
