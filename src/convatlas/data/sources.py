"""Data sets by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.data.crops import with_channels
from convatlas.data.sets import (
    Chosen,
    DataError,
    DatasetSet,
    ImageSet,
    Note,
    OnBadImage,
    Samples,
    Source,
    choose_rows,
    stratified_mask,
    to_pixels,
)
from convatlas.data.small import load_cifar, load_digits, load_mnist_like, memory_source
from convatlas.errors import unknown

MNIST_LIKE = ("fashion-mnist", "mnist")
CIFAR = ("cifar10", "cifar100")
KINDS = ("folder", "imagenet", "shards")
NAMES = ("digits", *MNIST_LIKE, *CIFAR, *(f"{kind}:PATH" for kind in KINDS))

# More would be a mistake, and the names alone would fill the memory.
MAX_CLASSES = 1_000_000
# Samples of a dataset that are looked at to learn the size of its images.
PROBES = 16


def load_source(
    name: str,
    *,
    data_dir: str | Path | None = None,
    seed: int = 0,
    test_share: float = 0.2,
    on_bad_image: OnBadImage = "refuse",
    note: Note | None = None,
) -> Source:
    """Loads a data set.

    Args:
        name: "digits" (1,797 handwritten digits that come with scikit-learn), "fashion-mnist", "mnist",
            "cifar10", "cifar100"; "folder:PATH" (a folder for each class, with or without train and val),
            "imagenet:PATH" (ImageNet's train and val), or "shards:PATH" (tar archives of webdataset).
        data_dir: where "mnist" and its kin lie, or are downloaded to; the user's cache by default.
        seed: of the split of a folder or of shards that have no test split; the other sets come split.
        test_share: share of each class that such a split measures on, in (0, 1).
        on_bad_image: "refuse" a folder with images that cannot be read, or "skip" them.
        note: is told, in a line, what takes long.

    Raises:
        UnknownNameError: there is none of that name.
        DataError: it is not there, or cannot be used as it is.
        ValueError: an argument is out of its range.
    """
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"`test_share`={test_share!r}; expected a share between 0 and 1, such as 0.2")
    if on_bad_image not in ("refuse", "skip"):
        raise ValueError(f"`on_bad_image`={on_bad_image!r}; expected 'refuse' or 'skip'")
    kind, colon, path = name.partition(":")
    if colon and kind in KINDS:
        if not path:
            raise ValueError(f"data set {name!r} names no folder; expected {kind}:PATH")
        return _reader(kind)(
            Path(path).expanduser(), seed=seed, test_share=test_share, on_bad_image=on_bad_image, note=note
        )
    if name == "digits":
        return load_digits()
    folder = None if data_dir is None else Path(data_dir).expanduser()
    if name in MNIST_LIKE:
        return load_mnist_like(name, folder)
    if name in CIFAR:
        return load_cifar(name, folder)
    hint = f"a folder of images is folder:{name}" if Path(name).is_dir() else ""
    raise unknown("data set", name, NAMES, hint)


def _reader(kind: str) -> Callable[..., Source]:
    # Imported when it is needed: it takes as long as reading the digits.
    if kind == "folder":
        from convatlas.data.folder import read_folder

        return read_folder
    if kind == "imagenet":
        from convatlas.data.imagenet import read_imagenet

        return read_imagenet
    from convatlas.data.shards import read_shards

    return read_shards


def source_from(
    train: Any, test: Any = None, class_names: tuple[str, ...] | None = None, *, seed: int = 0
) -> Source:
    """Makes a source of data that Python holds.

    Args:
        train: a map-style dataset that gives (image, label) as `DatasetSet` takes them, or `Samples`.
        test: a dataset of the same kind; a fifth of each class of `train`, chosen by `seed`, where not given.
        class_names: a name for each label; the dataset's `classes`, or the numbers, where not given.
        seed: of the split.

    Where some images are grey and some are coloured, in one split or between the two, all are brought to
    three channels; a coloured one among images that looked grey becomes its luminance.

    Raises:
        TypeError: it is no map-style dataset.
        DataError: labels do not fit the classes, or an image is none.
    """
    first = as_samples(train)
    if test is None:
        is_test = stratified_mask(first.labels, share=0.2, seed=seed).numpy()
        first, second = (choose_rows(first, np.flatnonzero(mask)) for mask in (~is_test, is_test))
    else:
        second = as_samples(test)
    for split, use in ((first, "learn from"), (second, "test on")):
        if not len(split):
            raise DataError(f"there is no sample to {use}")
    chans = max(_channels(split) for split in (first, second))
    first, second = (_in_channels(split, chans) for split in (first, second))
    known = _class_names(train) if class_names is None else class_names
    least, most = (
        int(f(torch.stack([f(split.labels) for split in (first, second)]))) for f in (torch.amin, torch.amax)
    )
    if known is None and most >= MAX_CLASSES:
        raise DataError(f"labels go up to {most:,}; expected at most {MAX_CLASSES - 1:,}, numbers of classes")
    names = tuple(map(str, range(most + 1) if known is None else known))
    if least < 0 or most >= len(names):
        raise DataError(
            f"labels go from {least} to {most}; expected 0 to {len(names) - 1}, a number for each class"
        )
    if isinstance(first, ImageSet) and isinstance(second, ImageSet):
        return memory_source("dataset", first, second, names)
    digest = hashlib.sha256(json.dumps(names).encode())
    sizes = {size for split in (first, second) for size in _probe(split, digest)}
    return Source(
        "dataset", first, second, names, digest.hexdigest(), sizes.pop() if len(sizes) == 1 else None
    )


def _channels(split: Samples) -> int:
    """Channels that the images of a split have; those of colour where some are grey and some are not."""
    if isinstance(split, ImageSet):
        return split.images.shape[1]
    return max(split.image(index).shape[0] for index in _probed(len(split)))


def _in_channels(split: Samples, chans: int) -> Samples:
    """A split whose images all have `chans` channels; samples of the user's own class stay as they are."""
    if isinstance(split, Chosen):
        return dataclasses.replace(split, samples=_in_channels(split.samples, chans))
    if isinstance(split, DatasetSet):
        return dataclasses.replace(split, chans=chans)
    if isinstance(split, ImageSet) and split.images.shape[1] != chans:
        return ImageSet(torch.stack([with_channels(image, chans) for image in split.images]), split.labels)
    return split


def _probed(count: int) -> list[int]:
    """The numbers of some samples, evenly spread."""
    return np.unique(np.linspace(0, count - 1, PROBES).round().astype(np.int64)).tolist()


def as_samples(data: Any) -> Samples:
    """Makes samples of a map-style dataset; samples stay what they are.

    Raises:
        TypeError: it is no map-style dataset.
        ImageError: it does not give images with labels.
    """
    if hasattr(data, "image") and hasattr(data, "labels"):
        return data
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(
            f"data of type {type(data).__name__}; expected the name of a data set, a `Source`, "
            "or a map-style dataset, which has `__len__` and `__getitem__`"
        )
    if not len(data):
        raise DataError("the dataset is empty")
    first = data[0]
    if not isinstance(first, Sequence) or len(first) < 2:
        raise TypeError(f"the dataset gives {type(first).__name__}; expected (image, label)")
    to_pixels(first[0], "sample 0")
    return DatasetSet(data, _whole_numbers(_labels(data)))


def _class_names(dataset: Any) -> Any:
    """The names of a dataset's classes, of the whole one where this is a part of it; None for none."""
    found = getattr(dataset, "classes", None)
    whole = getattr(dataset, "dataset", None)
    return _class_names(whole) if found is None and whole is not None else found


def _whole_numbers(labels: Tensor) -> Tensor:
    """Labels as int64.

    Raises:
        DataError: a label is no whole number, or there is not one for each sample.
    """
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() != 1:
        raise DataError(
            f"labels have the shape {tuple(labels.shape)}; expected one number for each sample, (N,): "
            "of one-hot labels give argmax(dim=1)"
        )
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        odd = labels[labels != labels.round()][0]
        raise DataError(f"a label is {float(odd):g}; expected whole numbers, one for each class")
    return labels.long()


def _label(value: Any, index: int) -> float | int:
    """One label as a number; whether it is a whole one is looked at later."""
    try:
        number = value.item() if hasattr(value, "item") else value
        return number if isinstance(number, int | float) else int(number)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"sample {index}: the label is {value!r}; expected the number of a class") from None


def _labels(dataset: Any) -> Tensor:
    """The labels of a map-style dataset, without decoding its images where it tells them apart."""
    from torch.utils.data import Subset, TensorDataset

    if isinstance(dataset, Subset):
        return _labels(dataset.dataset)[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[1]
    for name in ("targets", "labels"):
        found = getattr(dataset, name, None)
        whole = found is not None and not callable(found) and len(found) == len(dataset)
        if whole and getattr(dataset, "target_transform", None) is None:
            return _as_tensor(found)
    return torch.tensor([_label(dataset[index][1], index) for index in range(len(dataset))])


def _as_tensor(labels: Any) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        first = next((label for label in labels if not isinstance(label, int | float)), labels)
        raise DataError(f"a label is {first!r}; expected the number of a class") from None


def _probe(split: Samples, digest: Any) -> list[tuple[int, int, int]]:
    """The sizes (C, H, W) of some images, evenly spread; they and all labels go into the fingerprint."""
    digest.update(split.labels.numpy().tobytes())
    sizes: list[tuple[int, int, int]] = []
    for index in _probed(len(split)):
        image = split.image(index)
        digest.update(image.contiguous().numpy().tobytes())
        chans, height, width = image.shape
        sizes.append((chans, height, width))
    return sizes
