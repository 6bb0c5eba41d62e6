"""Where the images of a large set lie: compact tables, which stay as small in many processes as in one.

A list of a million paths is a million Python objects, each of which a worker copies as soon as it looks
at it. One buffer of bytes with offsets is copied by none.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from convatlas.data.image_files import ImageError

IntArray = NDArray[np.int64]

# Sizes in bytes that stand for "cannot be read", with why.
NO_FILE = -1
NOT_REGULAR = -2
_REASONS = {
    NO_FILE: "cannot be read (a broken link, or no permission)",
    NOT_REGULAR: "is no regular file, so no image",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Names:
    """Many names in one buffer.

    Attributes:
        buffer: all names, one after the other, as the file system writes them.
        ends: where each ends, (N,).
    """

    buffer: bytes
    ends: IntArray

    def __len__(self) -> int:
        """N."""
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        """The name at an index in [0, N)."""
        start = int(self.ends[index - 1]) if index > 0 else 0
        return os.fsdecode(self.buffer[start : int(self.ends[index])])

    def all(self) -> list[str]:
        """Every name."""
        starts = np.concatenate([[0], self.ends[:-1]]).tolist()
        slices = zip(starts, self.ends.tolist(), strict=True)
        return [os.fsdecode(self.buffer[start:end]) for start, end in slices] if len(self) else []


def pack_names(names: Iterable[str]) -> Names:
    """Puts names into one buffer."""
    rows = [os.fsencode(name) for name in names]
    return Names(b"".join(rows), np.cumsum([len(row) for row in rows], dtype=np.int64))


class Files(Protocol):
    """Files that hold an image each."""

    @property
    def names(self) -> Names:
        """Of each file, below the folder or in its archive."""
        ...

    @property
    def num_bytes(self) -> IntArray:
        """Size of each file, (N,)."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def name(self, index: int) -> str:
        """Where a person finds the file."""
        ...

    def read(self, index: int, start: int = 0, limit: int = -1) -> bytes:
        """The content of the file from `start` on, or `limit` bytes of it.

        Raises:
            ImageError: it cannot be read.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class FolderFiles:
    """Files under a folder.

    Attributes:
        root: the folder.
        names: of the files, below `root`.
        num_bytes: (N,); negative where there is nothing to read.
    """

    root: str
    names: Names
    num_bytes: IntArray

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def name(self, index: int) -> str:
        """The path."""
        return f"{self.root}/{self.names[index]}"

    def read(self, index: int, start: int = 0, limit: int = -1) -> bytes:
        """The content of the file from `start` on, or `limit` bytes of it.

        Raises:
            ImageError: it cannot be read.
        """
        path = self.name(index)
        if self.num_bytes[index] < 0:
            raise ImageError(f"{path}: {_REASONS[int(self.num_bytes[index])]}")
        return read_bytes(path, start, limit)


@dataclasses.dataclass(frozen=True, eq=False)
class ShardFiles:
    """Files inside tar archives.

    Attributes:
        root: the folder of the archives.
        shards: their names.
        shard: the archive of each file, (N,).
        starts: where its content begins there, bytes, (N,).
        num_bytes: (N,).
        names: of each file in its archive.
    """

    root: str
    shards: tuple[str, ...]
    shard: IntArray
    starts: IntArray
    num_bytes: IntArray
    names: Names

    def __len__(self) -> int:
        """N."""
        return len(self.names)

    def name(self, index: int) -> str:
        """The archive and the name in it."""
        return f"{self.root}/{self.shards[self.shard[index]]}:{self.names[index]}"

    def read(self, index: int, start: int = 0, limit: int = -1) -> bytes:
        """The content of the file from `start` on, or `limit` bytes of it.

        Raises:
            ImageError: it cannot be read.
        """
        path = f"{self.root}/{self.shards[self.shard[index]]}"
        left = max(int(self.num_bytes[index]) - start, 0)
        return read_bytes(path, int(self.starts[index]) + start, left if limit < 0 else min(limit, left))


def read_bytes(path: str, start: int, count: int) -> bytes:
    """Reads `count` bytes of a file from `start` on, or all where `count` is negative.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            if start:
                file.seek(start)
            return file.read(count) or b""
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not an image") from None
    except PermissionError:
        raise ImageError(f"{path}: may not be read (no permission)") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
