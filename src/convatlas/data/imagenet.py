"""ImageNet (ILSVRC 2012) as it is handed out: class folders by WordNet id, and val perhaps without."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from convatlas.data.folder import (
    TEST_NAMES,
    TRAIN_NAMES,
    Labelled,
    check_folder,
    check_test_classes,
    checked,
    class_folders,
    find_split_folder,
    images_source,
    labelled_by_folder,
    settle_bad,
    subfolders,
)
from convatlas.data.listing import Listing, list_images
from convatlas.data.sets import DataError, Note, OnBadImage, Source
from convatlas.data.tables import IntArray
from convatlas.errors import nearest
from convatlas.weights import imagenet_classes

# Below the given folder: as most people unpack it, and as Kaggle's archive does.
ROOTS = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
WORDNET_ID = re.compile(r"n\d{8}")
# First and last of the 1,000 classes in their sorted order.
ENDS = ("n01440764", "n15075141")
# Who wrote them: TensorFlow's scripts, Kaggle, Caffe's scripts.
LABEL_FILES = ("*synset_labels*.txt", "LOC_val_solution.csv", "val.txt", "ILSVRC2012_val.txt")


def read_imagenet(
    path: Path,
    *,
    seed: int = 0,
    test_share: float = 0.2,
    on_bad_image: OnBadImage = "refuse",
    note: Note | None = None,
) -> Source:
    """Reads ImageNet, or a choice of its classes.

    Classes are numbered in the order of their sorted WordNet ids, as every published network numbers them.
    A val without class folders needs a file beside it that gives the class of each image: a line with
    the id for each image in the order of the file names, or lines of name and id, or of name and number.

    Args:
        path: the folder that holds train and val.
        seed: not used; ImageNet has its own split.
        test_share: not used.
        on_bad_image: "refuse" or "skip" images that cannot be read.
        note: is told what takes long.

    Raises:
        DataError: the folder is none of ImageNet, or cannot be used as it is.
    """
    check_folder(path)
    roots = [path / below for below in ROOTS if (path / below).is_dir()]
    found = [(root, train) for root in roots if (train := find_split_folder(root, TRAIN_NAMES)) is not None]
    if not found:
        raise DataError(f"{path}: holds no train with class folders; expected ImageNet's train and val")
    root, train = found[0]
    ids = class_folders(train)
    strange = [name for name in ids if not WORDNET_ID.fullmatch(name)]
    if strange:
        raise DataError(
            f"{train / strange[0]}: is no WordNet id, such as {ENDS[0]}; other images are folder:{path}"
        )
    test = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    if test is None:
        raise DataError(f"{root}: holds train but no val; expected both")
    splits = [labelled_by_folder(train, ids, note), _test_split(path, test, ids, note)]
    skipped = settle_bad(path, splits, on_bad_image)
    return images_source(f"imagenet:{path}", path, splits, _class_names(ids), skipped)


def _class_names(ids: tuple[str, ...]) -> tuple[str, ...]:
    names = imagenet_classes()
    return names if len(ids) == len(names) and (ids[0], ids[-1]) == ENDS else ids


def _test_split(path: Path, test: Path, ids: tuple[str, ...], note: Note | None) -> Labelled:
    if subfolders(test):
        check_test_classes(test, ids)
        return labelled_by_folder(test, ids, note)
    folders = dict.fromkeys((test, *test.parents[: len(test.parts) - len(path.parts)]))
    files = [file for folder in folders for pattern in LABEL_FILES for file in sorted(folder.glob(pattern))]
    if not files:
        raise DataError(
            f"{test}: holds no class folders, and there is no file that gives the class of each image; "
            f"expected {', '.join(LABEL_FILES[:3])} in {path}"
        )
    listing = list_images(test)
    return checked(listing, _read_labels(files[0], listing, ids), note)


def _read_labels(file: Path, listing: Listing, ids: tuple[str, ...]) -> IntArray:
    """The label of each image, from lines of an id, or of a name and an id or number."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from None
    rows = [words for line in lines if (words := re.split(r"[,\s]+", line.strip())) != [""]]
    if rows and rows[0][0] == "ImageId":
        rows = rows[1:]
    names = [name.rsplit(".", 1)[0] for name in listing.names.all()]
    if rows and len(rows[0]) == 1:
        if len(rows) != len(names):
            raise DataError(
                f"{file}: gives {len(rows):,} classes for {len(names):,} images in {listing.root}"
            )
        rows = [[name, row[0]] for name, row in zip(names, rows, strict=True)]
    numbers = {word: number for number, name in enumerate(ids) for word in (name, str(number))}
    labels: dict[str, int] = {}
    for name, word, *_ in rows:
        if word not in numbers:
            raise DataError(
                f"{file}: gives {name} the class {word!r}, which train has not; nearest: {nearest(word, ids)}"
            )
        labels[name.rsplit("/", 1)[-1].rsplit(".", 1)[0]] = numbers[word]
    missing = [name for name in names if name not in labels]
    if missing:
        raise DataError(f"{file}: gives no class for {missing[0]} and {len(missing) - 1} others")
    return np.array([labels[name] for name in names], dtype=np.int64)
