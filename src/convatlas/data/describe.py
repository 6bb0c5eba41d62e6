"""What a data set is like, before anything is trained on it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from convatlas.data.check import num_cores
from convatlas.data.image_files import ImageError
from convatlas.data.sets import ImageFileSet, ImageSet, Samples, SkippedImage, Source, counted
from convatlas.data.tables import IntArray

SPLITS = ("train", "test")
# Bytes from the end of a file that tell most files apart.
TAIL = 4096
# Times that the largest class may have the images of the smallest before it is worth a word.
IMBALANCED = 10.0


@dataclasses.dataclass(frozen=True)
class ClassCount:
    """Images of a class.

    Attributes:
        name: of the class.
        train: images to learn from.
        test: images to test on.
    """

    name: str
    train: int
    test: int


@dataclasses.dataclass(frozen=True)
class SizeRange:
    """Sizes of images in px.

    Attributes:
        least: short side of the smallest image.
        median: of the short sides.
        most: long side of the largest.
        widest: the largest ratio of long to short side.
        num_unknown: images whose size is not known without decoding.
    """

    least: int
    median: float
    most: int
    widest: float
    num_unknown: int


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Images that are there more than once, byte for byte.

    Attributes:
        samples: of each, where its copies lie, the split first.
        across: whether it is both learnt from and tested on.
        labels: the classes that it is given; two are a mistake.
    """

    samples: tuple[str, ...]
    across: bool
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DataReport:
    """What a data set is like.

    Attributes:
        name: of the source.
        fingerprint: SHA-256 in hexadecimal.
        train: images to learn from.
        test: images to test on.
        image_size: C, H, W where all images have one size.
        sizes: of the images.
        classes: how many images each class has, in the order of their numbers.
        imbalance: images to learn from in the largest class for each in the smallest.
        duplicates: images that are there more than once; those in both splits come first.
        skipped: images that cannot be used.
    """

    name: str
    fingerprint: str
    train: int
    test: int
    image_size: tuple[int, int, int] | None
    sizes: SizeRange
    classes: tuple[ClassCount, ...]
    imbalance: float
    duplicates: tuple[Duplicates, ...]
    skipped: tuple[SkippedImage, ...]

    def record(self) -> dict[str, Any]:
        """The report as what JSON can hold."""
        return dataclasses.asdict(self)

    def warnings(self) -> tuple[str, ...]:
        """What a person should look at before training, a line each."""
        return tuple(_warnings(self))


def describe(source: Source) -> DataReport:
    """Looks through a data set: counts, sizes, duplicates, imbalance.

    Duplicates are found by content. Of image files only those are read whole that have the size and the
    last bytes of another one; images in memory are compared by their pixels.

    Args:
        source: best loaded with on_bad_image="skip", so that bad images are listed rather than refused.
    """
    counts = [
        np.bincount(split.labels.numpy(), minlength=len(source.class_names)).tolist()
        for split in (source.train, source.test)
    ]
    classes = tuple(ClassCount(*row) for row in zip(source.class_names, *counts, strict=True))
    return DataReport(
        name=source.name,
        fingerprint=source.fingerprint,
        train=len(source.train),
        test=len(source.test),
        image_size=source.image_size,
        sizes=_sizes(source),
        classes=classes,
        imbalance=max(counts[0]) / max(min(counts[0]), 1),
        duplicates=tuple(_duplicates(source)),
        skipped=source.skipped,
    )


def _sizes(source: Source) -> SizeRange:
    rows = [_sides(split) for split in (source.train, source.test)]
    sides = np.concatenate(rows)
    known = sides[(sides > 0).all(axis=1)]
    if not len(known):
        return SizeRange(0, 0.0, 0, 0.0, len(sides))
    short, long = known.min(axis=1), known.max(axis=1)
    widest = float((long / short).max())
    return SizeRange(
        int(short.min()), float(np.median(short)), int(long.max()), round(widest, 2), len(sides) - len(known)
    )


def _sides(split: Samples) -> IntArray:
    if isinstance(split, ImageSet):
        return np.tile(np.array(split.images.shape[-2:], dtype=np.int64), (len(split), 1))
    return split.sizes if isinstance(split, ImageFileSet) else np.zeros((len(split), 2), dtype=np.int64)


def _duplicates(source: Source) -> list[Duplicates]:
    splits = (source.train, source.test)
    places = [(split, index) for split in range(2) for index in range(len(splits[split]))]
    if isinstance(source.train, ImageFileSet) and isinstance(source.test, ImageFileSet):
        images = (source.train, source.test)
        keys: list[Hashable] = np.concatenate([p.files.num_bytes[p.rows] for p in images]).tolist()
        rows, keys = _repeated(list(range(len(places))), keys)
        with ThreadPoolExecutor(num_cores()) as pool:
            for whole in (False, True):
                here = [places[row] for row in rows]
                look = functools.partial(_file_hash, images, whole)
                rows, keys = _repeated(rows, list(zip(keys, pool.map(look, here), strict=True)))
    else:
        keys = [_pixel_hash(splits[split], index) for split, index in places]
        rows, keys = _repeated(list(range(len(places))), keys)
    groups: defaultdict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(places[row])
    found = [_found(source, group) for group in groups.values()]
    return sorted(found, key=lambda entry: (not entry.across, entry.samples))


def _repeated(rows: list[int], keys: list[Hashable]) -> tuple[list[int], list[Hashable]]:
    """The rows, and their keys, whose key is that of another one, too."""
    counts = Counter(keys)
    kept = [place for place, key in enumerate(keys) if counts[key] > 1]
    return [rows[place] for place in kept], [keys[place] for place in kept]


def _file_hash(splits: tuple[ImageFileSet, ImageFileSet], whole: bool, place: tuple[int, int]) -> Hashable:
    split, index = splits[place[0]], place[1]
    row = int(split.rows[index])
    size = int(split.files.num_bytes[row])
    try:
        content = split.files.read(row, start=0 if whole else max(size - TAIL, 0))
    except ImageError:  # gone since it was loaded; it is like no other
        return place
    return hashlib.blake2b(content, digest_size=16).digest()


def _pixel_hash(split: Samples, index: int) -> Hashable:
    image = split.image(index).contiguous()
    return tuple(image.shape), hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()


def _found(source: Source, group: list[tuple[int, int]]) -> Duplicates:
    splits = (source.train, source.test)
    names = tuple(f"{SPLITS[split]}: {splits[split].name(index)}" for split, index in group)
    labels = {int(splits[split].labels[index]) for split, index in group}
    across = len({split for split, _ in group}) == 2
    return Duplicates(names, across, tuple(source.class_names[label] for label in sorted(labels)))


def _warnings(report: DataReport) -> Iterator[str]:
    if report.skipped:
        yield f"{counted(len(report.skipped), 'image')} cannot be used"
    across = sum(entry.across for entry in report.duplicates)
    if across:
        yield f"{counted(across, 'image is', 'images are')} both learnt from and tested on"
    torn = sum(len(entry.labels) > 1 for entry in report.duplicates)
    if torn:
        yield f"{counted(torn, 'image is', 'images are')} there under more than one class"
    if report.imbalance > IMBALANCED:
        yield f"the largest class has {report.imbalance:,.0f} times the images of the smallest"
    untested = [entry.name for entry in report.classes if not entry.test]
    if untested:
        classes = counted(len(untested), "class has", "classes have")
        yield f"{classes} no image to test on, such as {untested[0]!r}"
    folded = Counter(entry.name.casefold() for entry in report.classes)
    alike = [entry.name for entry in report.classes if folded[entry.name.casefold()] > 1]
    if alike:
        yield f"names of classes differ in capitals alone: {', '.join(alike[:4])}"
