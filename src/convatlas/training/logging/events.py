"""What the training loop tells while it runs, and the faces of those that listen.

Everything here is told by rank 0 alone, and needs no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known before the first step.

    Attributes:
        network: name of the network.
        data: name of the data set.
        folder: of the run.
        num_images: training images in one epoch.
        num_test_images: images that each evaluation measures.
        num_epochs: epochs in all.
        num_steps: steps in all.
        first_step: steps that an earlier process has done already; 0 for a fresh run.
        batch_size: images of one step, over all processes.
        world_size: processes that train together.
        device: what they train on, for example "cpu" or "cuda".
        rate: the learning rate where it is largest, and its schedule, in words.
        execution: what was chosen to be fast, one line for each choice, with its reason.
    """

    network: str
    data: str
    folder: Path
    num_images: int
    num_test_images: int
    num_epochs: int
    num_steps: int
    first_step: int
    batch_size: int
    world_size: int
    device: str
    rate: str = ""
    execution: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepDone:
    """A step is done. Steps follow each other fast: a listener shows what it likes of them.

    Attributes:
        step: steps done so far, from 1.
        num_steps: steps in all.
        epoch: of this step, from 0.
        num_epochs: epochs in all.
        images: images seen so far in this epoch, by all processes.
        loss: mean over the steps since the last line of `metrics.jsonl`.
        lr: learning rate of the step.
        images_per_s: of training, over all processes, since the epoch began.
        data_share: share of that time spent on waiting for images and on augmentation, in [0, 1].
        memory_bytes: the most that this process has held: of the GPU if there is one, else of main memory.
        left_s: estimate of the time left, s.
    """

    step: int
    num_steps: int
    epoch: int
    num_epochs: int
    images: int
    loss: float
    lr: float
    images_per_s: float
    data_share: float
    memory_bytes: int
    left_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochDone:
    """An epoch is done, and the test images have been measured.

    Attributes:
        step: steps done so far.
        epoch: from 0.
        num_epochs: epochs in all.
        loss: mean over the epoch's images.
        lr: learning rate of its last step.
        images_per_s: of training, over all processes, since the run began.
        test_accuracy: share of the test images whose top prediction is right, in [0, 1].
        test_top5: share whose top five predictions hold the right one; None for fewer than six classes.
        test_loss: mean over the test images.
        left_s: estimate of the time left, s.
    """

    step: int
    epoch: int
    num_epochs: int
    loss: float
    lr: float
    images_per_s: float
    test_accuracy: float
    test_top5: float | None
    test_loss: float
    left_s: float


class Watcher(Protocol):
    """Shows how a training goes; a context manager around the whole of it."""

    def __enter__(self) -> Self:
        """Begins to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the showing."""
        ...

    def start(self, facts: Facts) -> None:
        """The first step follows."""
        ...

    def step(self, done: StepDone) -> None:
        """A step is done."""
        ...

    def epoch(self, done: EpochDone) -> None:
        """An epoch is done, and the test images have been measured."""
        ...

    def note(self, text: str) -> None:
        """Something that a person should know: one line."""
        ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""

    def start(self, facts: Facts) -> None:
        """Shows nothing."""

    def step(self, done: StepDone) -> None:
        """Shows nothing."""

    def epoch(self, done: EpochDone) -> None:
        """Shows nothing."""

    def note(self, text: str) -> None:
        """Shows nothing."""


Callback = Callable[[dict[str, Any]], None]
"""Receives each line of `metrics.jsonl` as it is written: the one place where any tracker is attached."""
