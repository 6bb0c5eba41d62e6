"""Folders of images: a folder for each class, with or without a training and a test split."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convatlas.data.check import check_listing
from convatlas.data.listing import SUFFIXES, Listing, is_hidden, list_images
from convatlas.data.sets import (
    DataError,
    ImageFileSet,
    Note,
    OnBadImage,
    SkippedImage,
    Source,
    counted,
    stratified_mask,
)
from convatlas.data.tables import Files, IntArray
from convatlas.errors import nearest

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("val", "valid", "validation", "test", "testing")
LAYOUT = "expected a folder for each class, or train and val with a folder for each class in both"

Digest = Any  # hashlib gives its own type no public name

NO_LABEL = -1  # of an image that is not part of what is made
SHOWN = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """Images that were checked, with labels.

    Attributes:
        files: where they lie.
        labels: (N,).
        sizes: height and width in px, (N, 2).
        reasons: why a bad one cannot be used, by index.
    """

    files: Files
    labels: IntArray
    sizes: IntArray
    reasons: dict[int, str]


def read_folder(
    path: Path,
    *,
    seed: int = 0,
    test_share: float = 0.2,
    on_bad_image: OnBadImage = "refuse",
    note: Note | None = None,
) -> Source:
    """Reads images that lie in a folder for each class.

    Classes are numbered in the order of their sorted names. Where `path` holds train and val (or test),
    these are the splits; else a share of each class, chosen by `seed`, is the test split.

    Args:
        path: the folder.
        seed: of the split.
        test_share: share of each class that is only measured on.
        on_bad_image: "refuse" or "skip" images that cannot be read.
        note: is told what takes long.

    Raises:
        DataError: the folder cannot be used as it is.
    """
    check_folder(path)
    train, test = (find_split_folder(path, names) for names in (TRAIN_NAMES, TEST_NAMES))
    if train is None and test is not None and len(subfolders(path)) == 1:
        raise DataError(f"{path}: holds {test.name} but no train; {LAYOUT}")
    if train is not None and test is None and _others_hold_images(path, train):
        train = None  # A class that is called "train", among other classes.
    if train is None:
        train, test = path, None
    if note is not None:
        _tell_layout(path, train, test, note)
    class_names = class_folders(train)
    splits = [labelled_by_folder(train, class_names, note)]
    if test is not None:
        check_test_classes(test, class_names)
        splits.append(labelled_by_folder(test, class_names, note))
    skipped = settle_bad(path, splits, on_bad_image)
    if test is None:
        splits = split_by_class(splits[0], seed, test_share)
    return images_source(f"folder:{path}", path, splits, class_names, skipped)


def check_folder(path: Path) -> None:
    """Refuses what is no folder.

    Raises:
        DataError: it is missing, a file, or may not be read.
    """
    try:
        if path.is_dir():
            return
        if path.exists():
            raise DataError(f"{path}: is a file; {LAYOUT}")
        there = subfolders(path.parent) if path.parent.is_dir() else ()
    except PermissionError:
        raise DataError(f"{path}: may not be read (no permission)") from None
    hint = f"; nearest: {nearest(path.name, there)}" if there else ""
    raise DataError(f"{path}: no such folder{hint}")


def subfolders(path: Path) -> tuple[str, ...]:
    """The folders in a folder, sorted; hidden ones are left out.

    Raises:
        DataError: it may not be read.
    """
    try:
        with os.scandir(path) as entries:
            return tuple(sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def find_split_folder(path: Path, names: tuple[str, ...]) -> Path | None:
    """The split with one of these names; a class may be called "train", too, but holds no classes.

    Capitals do not matter, and a word may stand before the name or behind it, as in `seg_train`.
    """
    there = subfolders(path)
    exact = [name for name in names if name in there]
    others = [each for name in names for each in there if name in re.split(r"[_\-. ]", each.casefold())]
    for name in (*exact, *others):
        split = path / name
        if subfolders(split) and not _holds_images(split):
            return split
    return None


def _others_hold_images(path: Path, train: Path) -> bool:
    """Whether images lie in a folder beside the part to learn: then all of them are classes."""
    return any(_holds_images(path / name) for name in subfolders(path) if name != train.name)


def class_folders(path: Path) -> tuple[str, ...]:
    """The classes of a folder with a folder for each.

    Raises:
        DataError: there are fewer than two.
    """
    names = subfolders(path)
    if len(names) >= 2:
        return names
    found = "images but no folder" if _holds_images(path) and not names else f"{len(names)} folders"
    found = f"one folder ({names[0]})" if len(names) == 1 else found
    raise DataError(f"{path}: holds {found}; {LAYOUT}, and at least two classes")


def check_test_classes(path: Path, class_names: tuple[str, ...]) -> None:
    """Refuses a test split with a class that the training split has not.

    Raises:
        DataError: there is one.
    """
    known = {_composed(name) for name in class_names}
    for name in subfolders(path):
        if _composed(name) not in known:
            raise DataError(
                f"{path / name}: there is no class of that name to learn from; "
                f"nearest: {nearest(name, class_names)}"
            )


def labelled_by_folder(path: Path, class_names: tuple[str, ...], note: Note | None) -> Labelled:
    """The images of a folder, each with the class in whose folder it lies.

    Raises:
        DataError: a class has no images.
    """
    listing = list_images(path)
    numbers = {_composed(name): number for number, name in enumerate(class_names)}
    # Images beside the class folders have no class; they are left out.
    labels = [numbers.get(_composed(name.split("/", 1)[0]), NO_LABEL) for name in listing.names.all()]
    labels = np.array(labels, dtype=np.int64)
    here = set(map(_composed, subfolders(path)))
    for number, count in enumerate(np.bincount(labels[labels >= 0], minlength=len(class_names))):
        if count == 0 and _composed(class_names[number]) in here:
            raise DataError(
                f"{path / class_names[number]}: class folder without images (files that end in "
                f"{', '.join(SUFFIXES)}); put some there or remove it"
            )
    return checked(listing, labels, note)


def checked(listing: Listing, labels: IntArray, note: Note | None) -> Labelled:
    """Checks the images of a listing that have a label, which is 0 or more."""
    listing = check_listing(listing, note)
    reasons = {row: why for row, why in listing.reasons.items() if labels[row] >= 0}
    return Labelled(listing.files, labels, listing.sizes, reasons)


def split_by_class(images: Labelled, seed: int, test_share: float) -> list[Labelled]:
    """Splits images into a training and a test split; bad ones count: mending them moves none."""
    labels = images.labels
    is_test = stratified_mask(torch.from_numpy(labels), share=test_share, seed=seed).numpy()
    masks = (~is_test, is_test)
    return [dataclasses.replace(images, labels=np.where(mask, labels, NO_LABEL)) for mask in masks]


def settle_bad(path: Path, splits: Sequence[Labelled], on_bad_image: OnBadImage) -> tuple[SkippedImage, ...]:
    """The bad images of all splits, where they are to be skipped.

    Raises:
        DataError: there are some, and they are to be refused.
    """
    skipped = tuple(
        SkippedImage(split.files.name(row), split.reasons[row])
        for split in splits
        for row in sorted(split.reasons)
    )
    if not skipped or on_bad_image == "skip":
        return skipped
    shown = "; ".join(f"{entry.path}: {entry.reason}" for entry in skipped[:SHOWN])
    more = f"; and {len(skipped) - SHOWN} more, which `convatlas data` lists" if len(skipped) > SHOWN else ""
    raise DataError(
        f"{path}: {counted(len(skipped), 'image')} cannot be used: {shown}{more}; mend or remove, "
        "or leave out by --on-bad-image skip (from Python, on_bad_image='skip')"
    )


def images_source(
    name: str,
    path: Path,
    splits: Sequence[Labelled],
    class_names: tuple[str, ...],
    skipped: tuple[SkippedImage, ...],
) -> Source:
    """Makes a source of a training and a test split, without their bad images.

    Raises:
        DataError: nothing is left to learn or to test.
    """
    digest = hashlib.sha256(json.dumps(class_names).encode())
    train, test = (_usable(split, digest) for split in splits)
    for number, count in enumerate(np.bincount(train.labels.numpy(), minlength=len(class_names))):
        if count == 0:
            raise DataError(f"{path}: there is no image of {class_names[number]!r} to learn from")
    if not len(test):
        raise DataError(f"{path}: there is no image to test on; expected more images in each class")
    return Source(name, train, test, class_names, digest.hexdigest(), None, skipped)


def _usable(split: Labelled, digest: Digest) -> ImageFileSet:
    """The good images of a split; their names, sizes in bytes and labels go into the fingerprint."""
    is_good = split.labels >= 0
    is_good[list(split.reasons)] = False
    rows = np.flatnonzero(is_good)
    labels = split.labels[rows]
    names = split.files.names.all()
    digest.update(os.fsencode("\0".join([names[row] for row in rows.tolist()])))
    digest.update(split.files.num_bytes[rows].tobytes() + labels.tobytes())
    return ImageFileSet(split.files, rows, torch.from_numpy(labels), split.sizes[rows])


@functools.cache
def _composed(name: str) -> str:
    """A name with its accents composed: macOS writes them apart, and both are one class."""
    return unicodedata.normalize("NFC", name)


def _tell_layout(path: Path, train: Path, test: Path | None, note: Note) -> None:
    """Tells which folders are no classes, and where all classes look like parts."""
    parts = {part.name for part in (train, test) if part is not None}
    beside = [name for name in subfolders(path) if name not in parts] if train != path else []
    if beside:
        shown = ", ".join(beside[:SHOWN]) + (
            f" and {len(beside) - SHOWN} more" if len(beside) > SHOWN else ""
        )
        note(f"{path}: {shown}: left out, since the classes are in {', '.join(sorted(parts))}")
    below = {subfolders(train / name) for name in subfolders(train)}
    if len(below) == 1 and len(subfolders(train)) > 1 and (names := next(iter(below))):
        note(
            f"{train}: every class folder holds the folders {', '.join(names[:SHOWN])} and may be no class; "
            f"{LAYOUT}"
        )


def _holds_images(path: Path) -> bool:
    with os.scandir(path) as entries:
        return any(entry.name.lower().endswith(SUFFIXES) and entry.is_file() for entry in entries)
