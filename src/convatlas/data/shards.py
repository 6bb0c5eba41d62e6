"""Shards: images in tar archives, as webdataset lays them out, each of which can be read on its own.

A sample is an image and a file that ends in .cls with the number of its class, both of the same name up to
the first dot. An index says where each image begins, so that samples are read in any order, and training
on shards can be stopped and goes on like any other. Nothing is ever unpacked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convatlas.data.check import check_files
from convatlas.data.folder import (
    NO_LABEL,
    TEST_NAMES,
    TRAIN_NAMES,
    Labelled,
    check_folder,
    images_source,
    settle_bad,
    split_by_class,
)
from convatlas.data.listing import FEW, SUFFIXES
from convatlas.data.sets import DataError, Note, OnBadImage, Source, counted
from convatlas.data.tables import IntArray, Names, ShardFiles, pack_names
from convatlas.files import cache_folder, write_atomic

INDEX = "index.npz"
CLASSES = "classes.txt"
FORMAT = 1  # of the index; another number makes every kept one void
MAX_CLASS_BYTES = 64  # of a file with the number of a class

# webdataset's rule: the key ends at the first dot of the last part of the name.
# Classes that may be named without asking how many images there are.
FEW_CLASSES = 1000
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, eq=False)
class ShardIndex:
    """Where the images of a folder of shards lie.

    Attributes:
        shard_bytes: size of each shard.
        shard_times: of the last change of each, ns.
        files: the images, in the order of their names; those to learn from come first.
        labels: of each, (N,).
        sizes: height and width of each in px, (N, 2); 0 where it was not looked at.
        reasons: why a bad one cannot be used, by index.
    """

    shard_bytes: IntArray
    shard_times: IntArray
    files: ShardFiles
    labels: IntArray
    sizes: IntArray
    reasons: dict[int, str]


def read_shards(
    path: Path,
    *,
    seed: int = 0,
    test_share: float = 0.2,
    on_bad_image: OnBadImage = "refuse",
    note: Note | None = None,
) -> Source:
    """Reads a folder of shards, ours or anybody's in webdataset's layout.

    Shards whose names begin with train are learnt from, those that begin with val or test are tested on;
    without such names, each class is split by `seed`. `classes.txt` names the classes, one a line.

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
    index = _index(path.resolve(), note)
    class_names = _class_names(path, index.labels)
    images = Labelled(index.files, index.labels, index.sizes, index.reasons)
    skipped = settle_bad(path, [images], on_bad_image)
    shards = index.files.shards
    is_train, is_test = (
        np.array([shard.startswith(names) for shard in shards]) for names in (TRAIN_NAMES, TEST_NAMES)
    )
    if not is_test.any():
        splits = split_by_class(images, seed, test_share)
    elif (is_train | is_test).all():
        masks = [chosen[index.files.shard] for chosen in (is_train, is_test)]
        labels = [np.where(mask, index.labels, NO_LABEL) for mask in masks]
        splits = [dataclasses.replace(images, labels=entry) for entry in labels]
    else:
        strange = path / shards[int(np.flatnonzero(~(is_train | is_test))[0])]
        raise DataError(f"{strange}: to learn from, or to test on? expected train-*.tar or test-*.tar")
    return images_source(f"shards:{path}", path, splits, class_names, skipped)


def index_shards(folder: Path, sizes: IntArray | None = None) -> ShardIndex:
    """Looks through the archives of a folder.

    Args:
        folder: of the shards.
        sizes: height and width of the images in the order of the result, where they are known, (N, 2).

    Raises:
        DataError: an archive is damaged, or an image has no class.
    """
    shards, shard_bytes, times = _shards(folder)
    rows = [
        (name, shard, start, count, label)
        for shard, path in enumerate(shards)
        for name, start, count, label in _samples(folder / path)
    ]
    if not rows:
        raise DataError(f"{folder}: its shards hold no image with a class")
    # Parts first: their samples may have the same names.
    rows.sort(key=lambda row: (not shards[row[1]].startswith(TRAIN_NAMES), os.fsencode(row[0]), row[1]))
    numbers = np.array([row[1:] for row in rows], dtype=np.int64)
    shard, starts, num_bytes, labels = numbers.T.copy()
    names = pack_names(row[0] for row in rows)
    files = ShardFiles(str(folder), shards, shard, starts, num_bytes, names)
    known = np.zeros((len(rows), 2), dtype=np.int64) if sizes is None else sizes
    return ShardIndex(shard_bytes, times, files, labels, known, reasons={})


def write_index(path: Path, index: ShardIndex) -> None:
    """Writes an index, atomically.

    Raises:
        OSError: the folder is missing or may not be written, or the disk is full.
    """
    bad = np.array(sorted(index.reasons), dtype=np.int64)
    reasons = pack_names(index.reasons[row] for row in bad.tolist())
    texts = {"names": index.files.names, "shards": pack_names(index.files.shards), "reasons": reasons}
    buffers = {name: np.frombuffer(text.buffer, dtype=np.uint8) for name, text in texts.items()}
    ends = {f"{name}_ends": text.ends for name, text in texts.items()}
    arrays: dict[str, NDArray[Any]] = {
        "format": np.array(FORMAT),
        "shard_bytes": index.shard_bytes,
        "shard_times": index.shard_times,
        "shard": index.files.shard,
        "starts": index.files.starts,
        "num_bytes": index.files.num_bytes,
        "labels": index.labels,
        "sizes": index.sizes,
        "bad": bad,
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays, **buffers, **ends)
    write_atomic(path, content.getvalue())


def _index(folder: Path, note: Note | None) -> ShardIndex:
    """The index that lies beside the shards, or that was kept for this user, or a new one."""
    shards, shard_bytes, times = _shards(folder)
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:24]
    kept = cache_folder() / "shards" / f"{key}.npz"
    for path in (folder / INDEX, kept):
        index = _read_index(path, folder)
        # Times change where a folder is copied; an index that came with it is trusted by the sizes.
        if index is None or index.files.shards != shards or (index.shard_bytes != shard_bytes).any():
            continue
        if path.parent == folder or (index.shard_times == times).all():
            return index
    if note is not None:
        note(f"looking through {len(shards):,} shards once")
    index = index_shards(folder)
    rows = np.arange(len(index.files))
    sizes, reasons = check_files(index.files, rows, full=len(rows) <= FEW, note=note)
    index = dataclasses.replace(index, sizes=sizes, reasons=reasons)
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_index(kept, index)
    return index


def _shards(folder: Path) -> tuple[tuple[str, ...], IntArray, IntArray]:
    """Name, size and time of change of each shard."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix == ".tar")
        looks = [(folder / name).stat() for name in names]
        others = [entry.name for entry in folder.iterdir() if ".tar." in entry.name or entry.suffix == ".tgz"]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    if not names:
        packed = f"; {others[0]} is compressed: unpack it to a .tar" if others else ""
        raise DataError(f"{folder}: holds no shard, which is a file that ends in .tar{packed}")
    sizes, times = ([getattr(look, name) for look in looks] for name in ("st_size", "st_mtime_ns"))
    return tuple(names), np.array(sizes, dtype=np.int64), np.array(times, dtype=np.int64)


def _samples(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """For each image of a shard: its name, where it begins, its size in bytes, its label."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive, path.open("rb") as file:
            for member in archive:
                match = _NAME.fullmatch(member.name)
                if match is None or not member.isreg() or member.issparse():
                    continue
                key, kind = match[1], match[2].lower()
                if kind == "cls":
                    file.seek(member.offset_data)
                    content = file.read(min(member.size, MAX_CLASS_BYTES))
                    labels[key] = _label(f"{path}:{member.name}", content)
                elif f".{kind}" in SUFFIXES:
                    if key in images:
                        raise DataError(f"{path}:{key}: has two images; expected one for each sample")
                    images[key] = member.name, member.offset_data, member.size
            # Python takes a damaged header for the end.
            file.seek(archive.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise DataError(f"{path}: is damaged at byte {archive.offset:,}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: is no tar archive, or is cut off ({error})") from None
    alone = sorted(images.keys() ^ labels.keys())
    if alone:
        has, lacks = ("an image", "class (.cls)") if alone[0] in images else ("a class", "image")
        raise DataError(f"{path}:{alone[0]}: has {has} but no {lacks}; {len(alone)} such in this shard")
    return ((*images[key], labels[key]) for key in images)


def _label(name: str, content: bytes) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 9:
        raise DataError(f"{name}: holds {text[:20]!r}; expected the number of a class")
    return int(text)


def _class_names(folder: Path, labels: IntArray) -> tuple[str, ...]:
    path, count = folder / CLASSES, 1 + int(labels.max())
    if count > max(len(labels), FEW_CLASSES):  # Refused before anything is made for each class.
        raise DataError(
            f"{folder}: a label is {count - 1:,}, and there are {counted(len(labels), 'image')}; "
            "expected the numbers of classes from 0 on, each with an image"
        )
    if not path.is_file():
        return tuple(map(str, range(count)))
    try:
        names = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if count > len(names):
        raise DataError(f"{path}: names {len(names)} classes, and the labels go up to {count - 1}")
    return names


def _read_index(path: Path, folder: Path) -> ShardIndex | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            arrays: Mapping[str, NDArray[Any]] = {name: kept[name] for name in kept.files}
        if int(arrays["format"]) != FORMAT:
            return None
        names, shards, reasons = (
            Names(arrays[name].tobytes(), arrays[f"{name}_ends"]) for name in ("names", "shards", "reasons")
        )
        shard, starts, num_bytes = (arrays[name] for name in ("shard", "starts", "num_bytes"))
        files = ShardFiles(str(folder), tuple(shards.all()), shard, starts, num_bytes, names)
        bad = dict(zip(arrays["bad"].tolist(), reasons.all(), strict=True))
        times, sizes = arrays["shard_times"], arrays["shard_bytes"]
        return ShardIndex(sizes, times, files, arrays["labels"], arrays["sizes"], bad)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # there is none, or it is damaged: it is made again
