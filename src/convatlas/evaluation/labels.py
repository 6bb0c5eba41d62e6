"""Which images of a data set are measured, and which logit of a network belongs to which of its classes."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from convatlas.data.sets import Samples, Source
from convatlas.errors import nearest

Split = Literal["test", "train", "all"]
Match = Literal["names", "index"]


@dataclasses.dataclass(frozen=True, eq=False)
class Relabelled:
    """The samples of some splits in a row, with labels of a network's.

    Attributes:
        splits: of a source.
        labels: (N,) of int64, N being the samples of all splits.
    """

    splits: tuple[Samples, ...]
    labels: Tensor

    def __len__(self) -> int:
        """N, the number of samples."""
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """The image of a sample: (C, H, W) of uint8.

        Raises:
            ImageError: it cannot be read.
        """
        split, row = self._find(index)
        return split.image(row)

    def name(self, index: int) -> str:
        """Where a person finds the image."""
        split, row = self._find(index)
        return split.name(row)

    def _find(self, index: int) -> tuple[Samples, int]:
        ends = list(itertools.accumulate(map(len, self.splits)))
        place = bisect.bisect_right(ends, index)
        return self.splits[place], index - (ends[place - 1] if place else 0)


def choose_split(source: Source, split: Split, classes: Sequence[int]) -> Relabelled:
    """The samples of a split, with the network's numbers for their classes.

    Args:
        source: the data.
        split: "test", "train", or "all" for both.
        classes: for each class of the data, its number in the network.

    Raises:
        ValueError: there is no such split, or nothing in it.
    """
    known = {"test": (source.test,), "train": (source.train,), "all": (source.train, source.test)}
    if split not in known:
        raise ValueError(f"`split`={split!r}; expected 'test', 'train' or 'all'")
    labels = torch.cat([each.labels for each in known[split]])
    if not len(labels):
        raise ValueError(f"{source.name}: has no image in its split {split!r}")
    return Relabelled(known[split], torch.tensor(classes, dtype=torch.int64)[labels])


def match_classes(data: Sequence[str], network: Sequence[str], match: Match = "names") -> list[int]:
    """For each class of the data, its number in the network.

    Names may differ in case, and in "_", "-" and spaces; of "tench, Tinca tinca" either will do. A network
    without names, whose classes are called 0, 1, 2, ..., is matched by numbers if it has as many.

    Args:
        data: names of the data's classes.
        network: names of the network's.
        match: "names", or "index" where names say nothing.

    Raises:
        ValueError: a class of the data is not, or not unambiguously, one of the network's.
    """
    if match not in ("names", "index"):
        raise ValueError(f"`match`={match!r}; expected 'names' or 'index'")
    same_count = len(data) == len(network)
    nameless = same_count and tuple(network) == tuple(map(str, range(len(network))))
    if tuple(data) == tuple(network) or nameless:
        return list(range(len(data)))
    if match == "index":
        if len(data) > len(network):
            raise ValueError(f"the data have {len(data)} classes, and the network {len(network)}")
        return list(range(len(data)))
    places: dict[str, set[int]] = {}
    for number, name in enumerate(network):
        for key in _keys(name):
            places.setdefault(key, set()).add(number)
    return [_find(name, places, network) for name in data]


def _find(name: str, places: dict[str, set[int]], network: Sequence[str]) -> int:
    for key in _keys(name):
        found = places.get(key, set())
        if len(found) == 1:
            return next(iter(found))
        if found:
            raise ValueError(
                f"class {name!r} of the data is the name of {len(found)} classes of the network: numbers "
                f"{', '.join(map(str, sorted(found)))}; `match`='index' goes by their order"
            )
    raise ValueError(
        f"class {name!r} of the data is none of the network's {len(network)}; nearest: "
        f"{nearest(name, network)}; where the order is the same, `match`='index' goes by it"
    )


def _keys(name: str) -> list[str]:
    """A name as it is compared, and each of its synonyms."""
    words = [name, *name.split(",")] if "," in name else [name]
    return [" ".join(word.replace("_", " ").replace("-", " ").casefold().split()) for word in words]
