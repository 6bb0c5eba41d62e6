"""Batches of images that threads read while the network runs."""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from convatlas.data.image_files import ImageError
from convatlas.predict.inputs import Item

AHEAD = 2
"""Batches that are read ahead of the one in the network."""

Pixels = TypeVar("Pixels")
"""What an image is brought to, such as a tensor (C, H, W)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Batch(Generic[Pixels]):
    """Images that were read.

    Attributes:
        items: what they were read from, in order.
        pixels: what each that could be read was brought to, by its place in `items`.
        reasons: why each of the others could not, by its place in `items`.
    """

    items: list[Item]
    pixels: dict[int, Pixels]
    reasons: dict[int, str]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_batches(
    items: Iterable[Item], prepare: Callable[[Item], Pixels], batch_size: int, workers: int
) -> Iterator[Batch[Pixels]]:
    """Reads images in threads, ahead of whoever takes the batches; the order is kept.

    Decoding and resizing happen outside Python's lock, so that threads run side by side with the network.

    Args:
        items: taken in a thread of its own, since frames of a film are decoded as they are taken.
        prepare: brings an image to pixels; raises `ImageError` for one that cannot be used.
        batch_size: images in each batch but the last.
        workers: threads that read.
    """
    ready: queue.Queue[list[tuple[Item, Future[Pixels]]] | BaseException | None] = queue.Queue(AHEAD)
    is_over = threading.Event()

    def put(entry: Any) -> None:
        while not is_over.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue

    def feed() -> None:
        try:
            taken = iter(items)
            while not is_over.is_set():
                batch = [(item, pool.submit(prepare, item)) for item in itertools.islice(taken, batch_size)]
                put(batch or None)
                if not batch:
                    return
        except BaseException as error:  # Belongs to whoever takes the batches.
            put(error)

    with ThreadPoolExecutor(workers, thread_name_prefix="convatlas-read") as pool:
        feeder = threading.Thread(target=feed, name="convatlas-feed", daemon=True)
        feeder.start()
        try:
            while (entry := ready.get()) is not None:
                if isinstance(entry, BaseException):
                    raise entry
                yield _collected(entry)
        finally:
            is_over.set()
            pool.shutdown(wait=False, cancel_futures=True)
            feeder.join(timeout=1.0)


def _collected(entry: list[tuple[Item, Future[Pixels]]]) -> Batch[Pixels]:
    pixels: dict[int, Pixels] = {}
    reasons: dict[int, str] = {}
    for place, (item, future) in enumerate(entry):
        try:
            pixels[place] = future.result()
        except ImageError as error:
            reasons[place] = str(error)
        except MemoryError:
            reasons[place] = f"{item.name}: there is not enough memory to decode it"
    return Batch([item for item, _ in entry], pixels, reasons)
