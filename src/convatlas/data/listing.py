"""The files under a folder, and what is known of each: looked up once, and kept for the next time."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convatlas.data.sets import DataError
from convatlas.data.tables import NO_FILE, NOT_REGULAR, FolderFiles, IntArray, Names, pack_names
from convatlas.files import cache_folder, write_atomic

SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Beyond this number, files are taken as unchanged while their folders are.
FEW = 20_000
# Folders of Synology, macOS, Windows and QNAP beside the user's own.
SYSTEM = (
    "@eadir",
    "__macosx",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "@recycle",
    ".@__thumb",
)
FORMAT = 2  # of the kept listing; another number makes every kept one void

# What is known of an image, in the order of knowing more.
UNKNOWN, HEADER_READ, DECODED, BAD = range(4)


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """The image files under a folder.

    Attributes:
        root: the folder.
        names: of the files, below `root`, sorted.
        num_bytes: (N,); negative where there is nothing to read.
        times: of the last change, ns, (N,).
        folders: every folder below `root`, and "" for itself.
        folder_times: of the last change of each, ns.
        num_others: files that are no images by their name.
        knowledge: UNKNOWN, HEADER_READ, DECODED or BAD, (N,).
        sizes: height and width in px, 0 where not known, (N, 2).
        reasons: why a bad one cannot be used, by index.
    """

    root: str
    names: Names
    num_bytes: IntArray
    times: IntArray
    folders: Names
    folder_times: IntArray
    num_others: int
    knowledge: NDArray[np.uint8]
    sizes: IntArray
    reasons: dict[int, str]

    @property
    def files(self) -> FolderFiles:
        """The files, to be read."""
        return FolderFiles(self.root, self.names, self.num_bytes)


def list_images(root: Path) -> Listing:
    """Lists the image files under a folder; hidden files are left out, links are followed.

    A listing that was kept is used while every folder under `root` is as it was; of up to 20,000 files
    each is looked at, too, and what was known of one that has changed is forgotten.

    Raises:
        DataError: a folder may not be read.
    """
    root = root.resolve()
    kept = _read(cache_path(root), str(root))
    if kept is not None and _folders_are_as_before(kept):
        if len(kept.names) > FEW:
            return kept
        return _with_knowledge(_restat(kept), kept)
    fresh = _scan(root)
    return fresh if kept is None else _with_knowledge(fresh, kept)


def cache_path(root: Path) -> Path:
    """Where the listing of a folder is kept."""
    return cache_folder() / "listings" / f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:24]}.npz"


def keep(listing: Listing) -> None:
    """Keeps a listing for the next time; where that cannot be done, it is made again then."""
    rows = np.array(sorted(listing.reasons), dtype=np.int64)
    reasons = pack_names(listing.reasons[row] for row in rows.tolist())
    buffer = io.BytesIO()
    np.savez(
        buffer,
        format=np.int64(FORMAT),
        root=_bytes(os.fsencode(listing.root)),
        names=_bytes(listing.names.buffer),
        name_ends=listing.names.ends,
        num_bytes=listing.num_bytes,
        times=listing.times,
        folders=_bytes(listing.folders.buffer),
        folder_ends=listing.folders.ends,
        folder_times=listing.folder_times,
        num_others=np.int64(listing.num_others),
        knowledge=listing.knowledge,
        sizes=listing.sizes,
        bad=rows,
        reasons=_bytes(reasons.buffer),
        reason_ends=reasons.ends,
    )
    path = cache_path(Path(listing.root))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())


def _bytes(value: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(value, dtype=np.uint8)


def _read(path: Path, root: str) -> Listing | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if int(kept["format"]) != FORMAT or kept["root"].tobytes() != os.fsencode(root):
                return None
            reasons = Names(kept["reasons"].tobytes(), kept["reason_ends"]).all()
            return Listing(
                root=root,
                names=Names(kept["names"].tobytes(), kept["name_ends"]),
                num_bytes=kept["num_bytes"],
                times=kept["times"],
                folders=Names(kept["folders"].tobytes(), kept["folder_ends"]),
                folder_times=kept["folder_times"],
                num_others=int(kept["num_others"]),
                knowledge=kept["knowledge"],
                sizes=kept["sizes"],
                reasons=dict(zip(kept["bad"].tolist(), reasons, strict=True)),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # none was kept, or it is damaged: it is made again


def _folders_are_as_before(kept: Listing) -> bool:
    try:
        return all(
            (Path(kept.root) / name).stat().st_mtime_ns == time
            for name, time in zip(kept.folders.all(), kept.folder_times.tolist(), strict=True)
        )
    except OSError:
        return False


def _restat(kept: Listing) -> Listing:
    looks = [_look(f"{kept.root}/{name}") for name in kept.names.all()]
    num_bytes, times = np.array(looks, dtype=np.int64).reshape(-1, 2).T.copy()
    return _fresh(kept.root, kept.names, num_bytes, times, kept.folders, kept.folder_times, kept.num_others)


def _look(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change of a file."""
    try:
        seen = Path(path).stat()
    except OSError:
        return NO_FILE, 0
    return (seen.st_size if stat.S_ISREG(seen.st_mode) else NOT_REGULAR), seen.st_mtime_ns


def _scan(root: Path) -> Listing:
    folders: dict[str, int] = {}
    found: list[tuple[bytes, str]] = []
    num_others = 0
    for prefix, names, time, others in _walk(root):
        folders[prefix] = time
        found += [(os.fsencode(prefix + name), prefix + name) for name in names]
        num_others += others
    found.sort()
    paths = [name for _, name in found]
    looks = [_look(f"{root}/{name}") for name in paths]
    num_bytes, times = np.array(looks, dtype=np.int64).reshape(-1, 2).T.copy()
    folder_times = np.array(list(folders.values()), dtype=np.int64)
    names = pack_names(paths)
    return _fresh(str(root), names, num_bytes, times, pack_names(folders), folder_times, num_others)


def _walk(root: Path) -> Iterator[tuple[str, list[str], int, int]]:
    """For each folder: its path below `root` with a slash, its images, its time, how many other files."""
    waiting, seen = [""], set[tuple[int, int]]()
    while waiting:
        prefix = waiting.pop()
        folder = root / prefix
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in seen:  # a link back to where we were
                continue
            seen.add((state.st_dev, state.st_ino))
            names, others, below = _entries(folder)
        except PermissionError:
            raise DataError(f"{folder}: may not be read (no permission)") from None
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
        waiting += [f"{prefix}{name}/" for name in sorted(below, reverse=True)]
        yield prefix, names, state.st_mtime_ns, others


def _entries(folder: Path) -> tuple[list[str], int, list[str]]:
    """The images by name, the number of other files, and the folders of a folder."""
    images: list[str] = []
    others, below = 0, list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                below.append(entry.name)
            elif entry.name.lower().endswith(SUFFIXES):
                images.append(entry.name)
            else:
                others += 1
    return images, others, below


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or made by a system or photo manager."""
    return name.startswith(".") or name.casefold() in SYSTEM


def _fresh(
    root: str,
    names: Names,
    num_bytes: IntArray,
    times: IntArray,
    folders: Names,
    folder_times: IntArray,
    num_others: int,
) -> Listing:
    size = len(names)
    knowledge, sizes = np.full(size, UNKNOWN, dtype=np.uint8), np.zeros((size, 2), dtype=np.int64)
    return Listing(
        root, names, num_bytes, times, folders, folder_times, num_others, knowledge, sizes, reasons={}
    )


def _with_knowledge(fresh: Listing, kept: Listing) -> Listing:
    """What was known of each file that is there still, with the same size and time of change."""
    if fresh.names.buffer == kept.names.buffer:
        new = old = np.arange(len(fresh.names))
    else:
        places = {name: row for row, name in enumerate(kept.names.all())}
        pairs = [(row, places[name]) for row, name in enumerate(fresh.names.all()) if name in places]
        new, old = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    same = (fresh.num_bytes[new] == kept.num_bytes[old]) & (fresh.times[new] == kept.times[old])
    new, old = new[same], old[same]
    fresh.knowledge[new], fresh.sizes[new] = kept.knowledge[old], kept.sizes[old]
    moved = dict(zip(old.tolist(), new.tolist(), strict=True))
    fresh.reasons.update({moved[row]: why for row, why in kept.reasons.items() if row in moved})
    return fresh
