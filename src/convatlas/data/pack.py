"""Packing a data set into shards."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from convatlas.data.counter_random import permutation
from convatlas.data.sets import DataError, ImageFileSet, ImageSet, Samples, Source
from convatlas.data.shards import CLASSES, INDEX, index_shards, write_index
from convatlas.data.tables import IntArray

SHARD_BYTES = 256 * 1024**2
# A header of a file, the file of its class, and what fills up blocks.
BYTES_PER_SAMPLE = 4 * tarfile.BLOCKSIZE


def write_shards(source: Source, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> tuple[Path, ...]:
    """Packs a data set into shards in webdataset's layout, with an index.

    Image files go in as they are, images in memory as PNG. The archives are train-000000.tar and so on
    and test-000000.tar and so on; in them, samples lie in a random order, for those who read from the
    beginning, and their names give back the order of the source: sample i of a split is i there, too.
    The same source gives the same archives, to the bit. Nothing is left behind where it fails.

    Args:
        source: a data set.
        folder: is made; may be there if it is empty.
        shard_bytes: size at which a shard is full, bytes.

    Returns:
        The shards.

    Raises:
        DataError: the folder is not empty, the disk is too small or full, or an image cannot be read.
    """
    if shard_bytes < 1:
        raise ValueError(f"`shard_bytes`={shard_bytes}; expected at least 1")
    needed = sum(_bytes(split) for split in (source.train, source.test))
    _check_room(folder, needed)
    building = folder.parent / f".{folder.name}.{os.getpid()}"
    try:
        building.mkdir()
        splits = {"train": source.train, "test": source.test}
        sizes = [_write_split(building, name, split, shard_bytes) for name, split in splits.items()]
        (building / CLASSES).write_text("".join(f"{name}\n" for name in source.class_names), encoding="utf-8")
        write_index(building / INDEX, index_shards(building, np.concatenate(sizes)))
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        building.rename(folder)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = f"; about {needed / 1e6:,.1f} MB are needed" if full else ""
        raise DataError(f"{folder}: cannot be written ({error.strerror}){hint}") from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return tuple(sorted(folder.glob("*.tar")))


def _write_split(folder: Path, name: str, split: Samples, shard_bytes: int) -> IntArray:
    """Writes the shards of a split; height and width of its images, (N, 2)."""
    sizes = np.zeros((len(split), 2), dtype=np.int64)
    waiting = permutation(0, 0, len(split), f"pack {name}").tolist()[::-1]
    number = 0
    while waiting:
        with (folder / f"{name}-{number:06d}.tar").open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                while waiting and file.tell() < shard_bytes:
                    index = waiting.pop()
                    suffix, content, sizes[index] = _packed(split, index)
                    _add(archive, f"{index:09d}.{suffix}", content)
                    _add(archive, f"{index:09d}.cls", b"%d" % int(split.labels[index]))
            file.flush()
            os.fsync(file.fileno())
        number += 1
    return sizes


def _packed(split: Samples, index: int) -> tuple[str, bytes, tuple[int, int]]:
    """Suffix and content of the file of a sample, and its height and width."""
    if isinstance(split, ImageFileSet):
        row = int(split.rows[index])
        height, width = split.sizes[index].tolist()
        return split.files.names[row].rsplit(".", 1)[1].lower(), split.files.read(row), (height, width)
    pixels = split.image(index).permute(1, 2, 0).numpy()
    content = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(content, format="png")
    return "png", content.getvalue(), (pixels.shape[0], pixels.shape[1])


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time is 0 and its owner nobody, whoever packs
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _bytes(split: Samples) -> int:
    """Bytes that the shards of a split need; for images that have yet to be packed, at most."""
    size = len(split) * BYTES_PER_SAMPLE
    if isinstance(split, ImageFileSet):
        return size + int(split.files.num_bytes[split.rows].sum())
    if isinstance(split, ImageSet):
        return size + split.images.numel()
    return size


def _check_room(folder: Path, needed: int) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: is there already; expected a new or an empty folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror})") from None
    if free < needed:
        raise DataError(
            f"{folder}: the disk has {free / 1e6:,.1f} MB free; about {needed / 1e6:,.1f} MB are needed"
        )
