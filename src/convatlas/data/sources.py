"""Data sets by name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from convatlas.data.digits import read_digits
from convatlas.data.draws import permutation
from convatlas.errors import unknown


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Labelled images in memory.

    Attributes:
        images: (N, C, H, W) of uint8.
        labels: (N,) of int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set with its split.

    Attributes:
        name: as `load_source` knows it.
        train: what is trained on.
        test: what is only measured on.
        class_names: a name for each label.
        fingerprint: SHA-256 over both parts, in hexadecimal; the same data have the same.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    fingerprint: str


def load_source(name: str) -> Source:
    """Loads a data set.

    Args:
        name: "digits" (1,797 handwritten digits that come with scikit-learn).

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in SOURCES:
        raise unknown("data set", name, SOURCES)
    return SOURCES[name]()


def _digits() -> Source:
    images, labels = read_digits()
    is_test = stratified_mask(labels, share=0.2, seed=0)
    names = tuple(str(digit) for digit in range(10))
    return make_source("digits", images, labels, is_test, names)


def make_source(
    name: str, images: Tensor, labels: Tensor, is_test: Tensor, class_names: tuple[str, ...]
) -> Source:
    """Splits labelled images (N, C, H, W) by a mask (N,)."""
    train = ImageSet(images[~is_test], labels[~is_test])
    test = ImageSet(images[is_test], labels[is_test])
    digest = hashlib.sha256()
    for part in (train.images, train.labels, test.images, test.labels):
        digest.update(part.contiguous().numpy().tobytes())
    return Source(name, train, test, class_names, digest.hexdigest())


def stratified_mask(labels: Tensor, *, share: float, seed: int) -> Tensor:
    """Marks the same share of each class, chosen by `seed`: (N,) of bool."""
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = np.flatnonzero(labels.numpy() == label)
        order = permutation(seed, 0, len(members), f"split {label}")
        mask[torch.from_numpy(members[order[: round(len(members) * share)]])] = True
    return mask


SOURCES: dict[str, Callable[[], Source]] = {"digits": _digits}
