"""Batches of images, in a planned order; what is in them does not depend on who reads them."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.data.image_files import ImageError
from convatlas.data.sets import DataError, ImageSet, OnBadImage, Samples, SkippedImage
from convatlas.data.tables import IntArray

Fit = Callable[[Tensor, int, int | None], Tensor]
Plan = Sequence[tuple[IntArray, int | None]]

# Batches that each worker has ready or in work.
AHEAD = 3
# After so long without a batch, a worker is taken for stuck, s.
PATIENCE = 300
# How long a worker goes on after it was asked to end, so that training can finish its step, s.
GRACE = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Images of one size, with labels.

    Attributes:
        images: (B, C, H, W) of uint8.
        labels: (B,) of int64.
        samples: index of each in its split, (B,).
        skipped: the images that were to be in it but cannot be read.
    """

    images: Tensor
    labels: Tensor
    samples: IntArray
    skipped: tuple[SkippedImage, ...] = ()


def read_batches(
    split: Samples,
    plan: Plan,
    fit: Fit | None = None,
    *,
    workers: int = 0,
    on_bad_image: OnBadImage = "refuse",
) -> Iterator[Batch]:
    """Reads the batches of a plan, in its order.

    Images in memory are picked at once, in this process. Images on disk are decoded and fitted one by
    one, by `workers` processes where there are any; the batches are the same to the bit. A plan and a
    `fit` that are the same give the same batches.

    Args:
        split: of a source.
        plan: of each batch the indices of its samples (B,), and the height and width in px that its
            images shall have; None for the size that they have.
        fit: brings an image (C, H, W) of uint8, the sample of that index, to a size in px; needs to be
            picklable where there are workers. Without it, images in memory are resized, and images on
            disk must have one size.
        workers: processes that decode; 0 decodes in this process.
        on_bad_image: "refuse" an image that cannot be read, or "skip" it: the batch is smaller then.

    Raises:
        ImageError: an image cannot be read, and is to be refused.
        DataError: images of a batch differ in size, or a worker died.
    """
    if workers < 0:
        raise ValueError(f"`workers`={workers}; expected 0 or more")
    if isinstance(split, ImageSet) and fit is None:
        yield from (_pick(split, samples, px) for samples, px in plan)
        return
    reader = _Reader(split, fit, on_bad_image)
    source = map(reader.read, plan) if workers == 0 else _read_by_workers(reader, plan, workers)
    for result in source:
        if isinstance(result, _Refused):
            raise (ImageError if result.is_image else DataError)(result.message)
        yield result


def _pick(split: ImageSet, samples: IntArray, px: int | None) -> Batch:
    rows = torch.from_numpy(samples)
    images = split.images.index_select(0, rows)  # whole rows: ten times as fast as indexing
    if px is not None and images.shape[-2:] != (px, px):
        images = F.interpolate(images, (px, px), mode="bilinear", antialias=True)
    return Batch(images, split.labels[rows], samples)


@dataclasses.dataclass(frozen=True)
class _Refused:
    """Why a batch could not be read; an exception would bring a worker's traceback with it."""

    message: str
    is_image: bool


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Reads a batch, here or in a worker."""

    split: Samples
    fit: Fit | None
    on_bad_image: OnBadImage

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, entry: tuple[IntArray, int | None]) -> Batch | _Refused:
        return self.read(entry)

    def read(self, entry: tuple[IntArray, int | None]) -> Batch | _Refused:
        samples, px = entry
        decoded: list[Tensor] = []
        kept: list[int] = []
        skipped: list[SkippedImage] = []
        for sample in samples.tolist():
            try:
                image = self.split.image(sample)
            except ImageError as error:
                if self.on_bad_image == "refuse":
                    return _Refused(str(error), is_image=True)
                name = self.split.name(sample)
                skipped.append(SkippedImage(name, str(error).removeprefix(f"{name}: ")))
                continue
            decoded.append(image if self.fit is None else self.fit(image, sample, px))
            kept.append(sample)
            if decoded[-1].shape != decoded[0].shape:
                return _Refused(self._mismatch(kept, decoded), is_image=False)
        rows = np.array(kept, dtype=np.int64)
        images = torch.stack(decoded) if decoded else torch.empty(0, 3, px or 1, px or 1, dtype=torch.uint8)
        return Batch(images, self.split.labels[torch.from_numpy(rows)], rows, tuple(skipped))

    def _mismatch(self, kept: list[int], decoded: list[Tensor]) -> str:
        first, last = (tuple(decoded[i].shape) for i in (0, -1))
        return (
            f"{self.split.name(kept[-1])} has the shape {last} and {self.split.name(kept[0])} {first}; "
            "a batch needs one: say which size, by --input (from Python, input_size=...)"
        )


def _read_by_workers(reader: _Reader, plan: Plan, workers: int) -> Iterator[Batch | _Refused]:
    from torch.utils.data import DataLoader

    with warnings.catch_warnings():
        # It warns of more workers than cores; how many is the caller's choice.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Any] = DataLoader(
            reader,  # pyright: ignore[reportArgumentType]  # it asks for a class where a method will do
            batch_size=None,
            sampler=plan,  # pyright: ignore[reportArgumentType]
            num_workers=workers,
            collate_fn=_as_it_is,
            prefetch_factor=AHEAD,
            timeout=PATIENCE,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else it takes a number from torch's own
        )
        batches = iter(loader)
    try:
        yield from batches
    except RuntimeError as error:
        raise DataError(_worker_failure(error)) from error
    finally:
        del batches


def _worker_failure(error: RuntimeError) -> str:
    text = " ".join(str(error).split())
    if "shared memory" in text or "Bus error" in text or "bus error" in text:
        return f"a worker ran out of shared memory (/dev/shm): fewer --workers, or a smaller batch ({text})"
    if "timed out" in text:
        return f"a worker gave no batch for {PATIENCE} s: is the disk still there? ({text})"
    return f"a worker that reads images died: fewer --workers need less memory; 0 shows why ({text})"


def _as_it_is(value: Any) -> Any:
    return value


def _start_worker(_: int) -> None:
    """What stops training reaches its workers, too; they go on, so that it can finish its step and save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_asked, daemon=True).start()


def _end_when_asked() -> None:
    if signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        time.sleep(GRACE)
    os._exit(0)
