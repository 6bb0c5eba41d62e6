"""Looking at every image before training does, so that a damaged one is known at the start."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from convatlas.data.image_files import ImageError, decode_image, image_size
from convatlas.data.listing import BAD, DECODED, FEW, HEADER_READ, Listing, keep
from convatlas.data.sets import Note
from convatlas.data.tables import Files, IntArray

HEAD_BYTES = 65_536
MANY = 2_000  # images, which take long enough to say so

# Their header lies at the beginning; of the other formats the whole file is needed to be sure.
_HEAD_FIRST = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM")


def check_listing(listing: Listing, note: Note | None = None) -> Listing:
    """Checks the images that are not known yet, and keeps what was found.

    Up to 20,000 files are decoded; of more, the headers are read.

    Args:
        listing: of the files.
        note: is told when this takes long.
    """
    wanted = DECODED if len(listing.names) <= FEW else HEADER_READ
    rows = np.flatnonzero(listing.knowledge < wanted)
    if not len(rows):
        return listing
    sizes, reasons = check_files(listing.files, rows, full=wanted == DECODED, note=note)
    known, all_sizes = listing.knowledge.copy(), listing.sizes.copy()
    known[rows], all_sizes[rows] = wanted, sizes
    known[list(reasons)] = BAD
    checked = dataclasses.replace(
        listing, knowledge=known, sizes=all_sizes, reasons=listing.reasons | reasons
    )
    keep(checked)
    return checked


def check_files(
    files: Files, rows: IntArray, *, full: bool, note: Note | None = None
) -> tuple[IntArray, dict[int, str]]:
    """Decodes images, or reads their headers.

    Args:
        files: where they lie.
        rows: which of them, (M,).
        full: decode, rather than read the header.
        note: is told when there are many.

    Returns:
        Height and width of each, (M, 2), 0 for a bad one; and why each bad one is bad, by its row.
    """
    if note is not None and len(rows) > MANY:
        what = "decoding" if full else "reading the headers of"
        note(f"{what} {len(rows):,} images once, to find damaged ones")

    def look(row: int) -> tuple[int, int] | str:
        try:
            if full:
                height, width = decode_image(files.read(row), files.name(row)).shape[1:]
                return height, width
            return header_size(files, row)
        except ImageError as error:
            return str(error).removeprefix(f"{files.name(row)}: ")

    with ThreadPoolExecutor(num_cores()) as pool:
        found = list(pool.map(look, rows.tolist()))
    reasons = {row: entry for row, entry in zip(rows.tolist(), found, strict=True) if isinstance(entry, str)}
    sizes = [(0, 0) if isinstance(entry, str) else entry for entry in found]
    return np.array(sizes, dtype=np.int64).reshape(-1, 2), reasons


def header_size(files: Files, row: int) -> tuple[int, int]:
    """Height and width as the header states them, before any rotation by EXIF.

    Raises:
        ImageError: it is no image, too large, or cannot be read.
    """
    name, head = files.name(row), files.read(row, limit=HEAD_BYTES)
    if head.startswith(_HEAD_FIRST):
        try:
            return image_size(head, name)
        except ImageError:
            if len(head) < HEAD_BYTES:
                raise
    return image_size(files.read(row), name)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
