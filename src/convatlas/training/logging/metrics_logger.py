"""What a training writes down and tells while it runs: `metrics.jsonl`, a watcher, callbacks."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from convatlas.files import write_atomic
from convatlas.metrics.classification import Evaluation
from convatlas.runs.run import METRICS, RunError, read_metrics
from convatlas.training.batch_order import BatchOrder
from convatlas.training.logging.events import Callback, EpochDone, StepDone, Watcher

T = TypeVar("T")

LINE_EVERY_S = 5.0
"""Lines of `metrics.jsonl` within an epoch come this far apart."""


class Stopwatch:
    """How fast an epoch goes, in this process.

    Args:
        clock: seconds that only grow.

    Attributes:
        images: seen in the epoch since the watch began, by all processes.
        waited_s: time in which no image was learnt from: spent on reading and augmentation.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self.images = 0
        self.waited_s = 0.0

    def waiting(self, batches: Iterable[T]) -> Iterator[T]:
        """Hands on what it is given, and counts the time that each took to come."""
        iterator = iter(batches)
        while True:
            began = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self.waited_s += self._clock() - began
            yield batch

    @property
    def seconds(self) -> float:
        """Time since the watch began."""
        return max(self._clock() - self._began, 1e-9)

    @property
    def images_per_s(self) -> float:
        """ExecutionPlan since the watch began."""
        return self.images / self.seconds


class MetricsLogger:
    """Writes and tells; only the first process has one that does.

    Args:
        folder: of the run.
        batch_order: of the training.
        watcher: is told everything.
        callbacks: receive each line of `metrics.jsonl`.
        device: whose memory is told.
        first_step: steps that earlier processes have done.
    """

    def __init__(
        self,
        folder: Path,
        batch_order: BatchOrder,
        watcher: Watcher,
        callbacks: Sequence[Callback],
        device: torch.device,
        first_step: int,
    ) -> None:
        self._folder, self._plan, self._device = folder, batch_order, device
        self._watcher, self._callbacks = watcher, callbacks
        self._began, self._first_step = time.perf_counter(), first_step
        self._written, self._loss, self._images = time.perf_counter(), 0.0, 0
        for damaged in cut_metrics(folder, first_step):
            watcher.note(f"{damaged}; it was left out")

    def step(self, step: int, loss: float, images: int, lr: float, watch: Stopwatch) -> None:
        """A step is done, and what came before it since the last call.

        Args:
            step: steps done.
            loss: sum over the images since the last call.
            images: how many these are.
            lr: learning rate of the step.
            watch: of the epoch.
        """
        self._loss, self._images = self._loss + loss, self._images + images
        mean = self._loss / max(1, self._images)
        epoch, steps = (step - 1) // self._plan.steps_per_epoch, self._plan.steps_per_epoch
        done = StepDone(
            step=step,
            num_steps=self._plan.num_steps,
            epoch=epoch,
            num_epochs=self._plan.num_epochs,
            images=self._plan.bounds((step - 1) % steps)[1],
            loss=mean,
            lr=lr,
            images_per_s=watch.images_per_s,
            data_share=watch.waited_s / watch.seconds,
            memory_bytes=peak_memory(self._device),
            left_s=self._left_s(step),
        )
        self._watcher.step(done)
        if time.perf_counter() - self._written >= LINE_EVERY_S and step % steps:
            line = {"step": step, "epoch": epoch + 1, "loss": mean, "lr": lr}
            self._write(line | _speed(watch))

    def epoch(
        self,
        step: int,
        loss: float,
        lr: float,
        watch: Stopwatch,
        test: Evaluation,
        train_accuracy: float | None = None,
        validation: Evaluation | None = None,
    ) -> None:
        """An epoch is done.

        Args:
            step: steps done.
            loss: mean over its images.
            lr: learning rate of its last step.
            watch: of the epoch.
            test: of the network as it is now.
            train_accuracy: share of its images that were right when they were learnt from; None for unknown.
            validation: of the images that are held back; None where there are none.
        """
        epoch = step // self._plan.steps_per_epoch - 1
        line = {"step": step, "epoch": epoch + 1, "loss": loss, "lr": lr} | _speed(watch)
        train = {} if train_accuracy is None else {"train_accuracy": train_accuracy}
        held: dict[str, float] = {}
        if validation is not None:
            held = {"validation_accuracy": validation.accuracy, "validation_loss": validation.loss}
        self._write(line | train | held | test_figures(test))
        self._watcher.epoch(
            EpochDone(
                step=step,
                epoch=epoch,
                num_epochs=self._plan.num_epochs,
                loss=loss,
                lr=lr,
                images_per_s=watch.images_per_s,
                test_accuracy=test.accuracy,
                test_top5=test.top5_accuracy,
                test_loss=test.loss,
                left_s=self._left_s(step),
            )
        )

    def begin(self, loss: float, loss_after: float) -> None:
        """The classifier was fitted before the first step.

        Args:
            loss: mean over some training images before that.
            loss_after: mean over all training images, as the classifier was fitted.
        """
        self._write({"step": 0, "epoch": 0, "loss": loss, "probe_loss": loss_after, "lr": 0.0})

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self._watcher.note(text)

    def go_back(self, step: int) -> None:
        """What was written beyond a step did not happen."""
        cut_metrics(self._folder, step)
        self._loss, self._images = 0.0, 0

    def _write(self, line: dict[str, Any]) -> None:
        with (self._folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self._written, self._loss, self._images = time.perf_counter(), 0.0, 0
        for callback in self._callbacks:
            callback(line)

    def _left_s(self, step: int) -> float:
        done = max(1, step - self._first_step)
        return (time.perf_counter() - self._began) / done * (self._plan.num_steps - step)


def cut_metrics(folder: Path, step: int) -> list[RunError]:
    """Leaves in `metrics.jsonl` what was written up to a step: training goes on from there.

    Returns:
        Which lines were damaged, and are left out.
    """
    damaged: list[RunError] = []
    kept = [line for line in read_metrics(folder, damaged) if line["step"] <= step]
    path = folder / METRICS
    content = "".join(json.dumps(line) + "\n" for line in kept)
    if path.is_file() and path.read_bytes() != content.encode():
        write_atomic(path, content)
    return damaged


def test_figures(test: Evaluation) -> dict[str, float]:
    """An evaluation as a line of `metrics.jsonl` and the record of a run have it."""
    top5 = {} if test.top5_accuracy is None else {"test_top5": test.top5_accuracy}
    return {"test_accuracy": test.accuracy, "test_loss": test.loss} | top5


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has held: of the GPU if it uses one, else of main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _speed(watch: Stopwatch) -> dict[str, float]:
    share = watch.waited_s / watch.seconds
    return {"images_per_s": round(watch.images_per_s, 1), "data_share": round(share, 4)}
