"""Trainings that are done once, whoever asks: each has a folder named after all that it depends on."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from convatlas.data.sets import Chosen, ImageSet, Samples, Source, stratified_mask
from convatlas.data.transforms import Transform
from convatlas.files import write_json
from convatlas.runs.run import RECORD, Run, open_run

ModelFactory = Callable[[], nn.Module]
"""Makes a network of a study's own, with fresh weights."""

ASKED = "asked.json"
"""In the folder of a training: what a study asked for. Its digest is in the folder's name."""

Split = Literal["train", "test"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A network after its training.

    Attributes:
        run: the training.
        net: with the weights of its end, in evaluation mode.
        transform: brings pixels to what it was trained on: `transform.normalise(uint8 images)`.
        source: the images that it was trained and tested on.
    """

    run: Run
    net: nn.Module
    transform: Transform
    source: Source

    @property
    def test_error(self) -> float:
        """Share of the test images that are classified wrongly, in %."""
        return 100.0 * (1.0 - self.run.test_accuracy)

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean training loss of each epoch."""
        return tuple(line["loss"] for line in self.run.metrics() if "test_accuracy" in line)


@dataclasses.dataclass(frozen=True)
class Images:
    """Which images of a data set are used.

    Attributes:
        count: training images; 0 for all.
        test_count: test images; 0 for all.
        px: height and width that they are brought to; 0 for their own.
    """

    count: int = 0
    test_count: int = 0
    px: int = 0


def cut_down(source: Source, images: Images) -> Source:
    """The source with as many images, of such a size.

    Raises:
        ValueError: if it has fewer images, or its images have no one size that could be changed.
    """
    if images == Images():
        return source
    train = _some(source.train, images.count, "images", source.name)
    test = _some(source.test, images.test_count, "test_images", source.name)
    size = source.image_size
    if images.px:
        if size is None:
            raise ValueError(f"`px`={images.px}; only images in memory are resized, and {source.name} is not")
        train, test = _resized(train, images.px), _resized(test, images.px)
        size = (size[0], images.px, images.px)
    facts = f"{source.fingerprint} {images.count} {images.test_count} {images.px}"
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return dataclasses.replace(source, train=train, test=test, image_size=size, fingerprint=digest)


def validation_source(source: Source, share: float) -> Source:
    """The training images alone, a share of each class, always the same, as test split."""
    mask = stratified_mask(source.train.labels, share=share, seed=0)
    if not 0 < int(mask.sum()) < len(mask):
        raise ValueError(
            f"`validation`={share}; of {len(mask)} training images that leaves {int(mask.sum())} to choose a "
            "learning rate by"
        )
    digest = hashlib.sha256(f"{source.fingerprint} validation {share}".encode()).hexdigest()
    return dataclasses.replace(
        source, train=_chosen(source.train, ~mask), test=_chosen(source.train, mask), fingerprint=digest
    )


def _some(part: Samples, count: int, knob: str, name: str) -> Samples:
    """The same share of each class, `count` images in all; all for 0."""
    if count == 0:
        return part
    if count > len(part):
        raise ValueError(f"`{knob}`={count}; {name} has {len(part):,}")
    return _chosen(part, stratified_mask(part.labels, share=count / len(part), seed=0))


def _chosen(part: Samples, mask: torch.Tensor) -> Samples:
    if isinstance(part, ImageSet):
        return ImageSet(part.images[mask], part.labels[mask])
    return Chosen(part, np.flatnonzero(mask.numpy()), part.labels[mask])


def _resized(part: Samples, px: int) -> ImageSet:
    images = torch.stack([part.image(index) for index in range(len(part))]).float()
    small = nn.functional.interpolate(images, size=(px, px), mode="bilinear", antialias=True)
    return ImageSet(small.round().clamp(0.0, 255.0).to(torch.uint8), part.labels)


def digest_of(asked: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that stand for all that a training depends on but its seed."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:10]


@contextlib.contextmanager
def alone(folder: Path) -> Generator[None]:
    """Waits until no other process works on a training, and keeps the others waiting."""
    locks = folder.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    handle = os.open(locks / folder.name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def find_finished(folder: Path, asked: Mapping[str, Any]) -> Run | None:
    """The finished run of a folder, if there is one.

    Raises:
        ValueError: if the folder holds a training of something else than its name says.
    """
    path = folder / ASKED
    if path.is_file() and digest_of(json.loads(path.read_text(encoding="utf-8"))) != digest_of(asked):
        raise ValueError(
            f"{folder}: the stored run was made with other settings than its name says, so that no "
            f"verdict may "
            "rest on it; remove the folder"
        )
    if not (folder / RECORD).is_file():
        return None
    run = open_run(folder)
    return run if run.state == "finished" else None


def work(
    network: str | ModelFactory,
    net: nn.Module,
    folder: Path,
    *,
    source: Source,
    seed: int,
    asked: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Run:
    """Trains, or goes on with a training that was stopped.

    Args:
        network: name in the registry, or what made `net`.
        net: with its first weights; is trained in place if it is not in the registry.
        folder: of the run.
        source: the images.
        seed: of order and augmentation.
        asked: what the study asked for, to be kept in the folder.
        options: `recipe`, `model` and fields of the recipe for `train`.
    """
    from convatlas.training.train import resume, train

    own = None if isinstance(network, str) else net
    if (folder / RECORD).is_file():
        run = resume(folder, network=own, data=source, progress=False)
    else:
        run = train(
            network if isinstance(network, str) else net,
            data=source,
            seed=seed,
            out=folder.parent,
            name=folder.name,
            progress=False,
            keep=1,
            **options,
        )
    write_json(folder / ASKED, dict(asked))
    return run
