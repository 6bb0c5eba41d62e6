"""Showing how a training goes: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text


class Watcher(Protocol):
    """What the training loop tells while it runs."""

    def __enter__(self) -> Self:
        """Begins to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the showing."""
        ...

    def step(self, *, epoch: int, images: int, loss: float, images_per_s: float) -> None:
        """A step is done: `images` more have been seen."""
        ...

    def epoch(self, *, epoch: int, loss: float, accuracy: float, images_per_s: float, left_s: float) -> None:
        """An epoch is done, and the test images have been measured."""
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

    def step(self, *, epoch: int, images: int, loss: float, images_per_s: float) -> None:
        """Shows nothing."""

    def epoch(self, *, epoch: int, loss: float, accuracy: float, images_per_s: float, left_s: float) -> None:
        """Shows nothing."""


class Lines(Silent):
    """One plain line for each epoch.

    Args:
        epochs: how many there will be.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, *, epoch: int, loss: float, accuracy: float, images_per_s: float, left_s: float) -> None:
        """Prints the line."""
        print(
            f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4f}  accuracy {accuracy:.2%}  "
            f"{images_per_s:,.0f} images/s  {left_s:.0f} s left",
            flush=True,
        )


class Bar(Silent):
    """One live bar over the whole training.

    Args:
        epochs: how many there will be.
        images: training images in all epochs together.
        console: where it is drawn.
    """

    def __init__(self, epochs: int, images: int, console: Console) -> None:
        self.epochs = epochs
        self.images = images
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}  accuracy {task.fields[accuracy]}"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
        )
        self.task = TaskID(0)

    def __enter__(self) -> Self:
        """Draws the empty bar."""
        self.task = self.progress.add_task("", total=self.images, epoch=1, loss="-", accuracy="-", rate=0.0)
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the bar as it is."""
        self.progress.stop()

    def step(self, *, epoch: int, images: int, loss: float, images_per_s: float) -> None:
        """Moves the bar on."""
        self.progress.update(
            self.task, advance=images, epoch=epoch + 1, loss=f"{loss:.4f}", rate=images_per_s
        )

    def epoch(self, *, epoch: int, loss: float, accuracy: float, images_per_s: float, left_s: float) -> None:
        """Shows the accuracy on the test images."""
        self.progress.update(self.task, loss=f"{loss:.4f}", accuracy=f"{accuracy:.2%}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['rate']:,.0f} images/s")


def silent_watcher(epochs: int, images: int) -> Watcher:
    """Shows nothing, however many epochs and images there are."""
    return Silent()


def terminal_watcher(epochs: int, images: int) -> Watcher:
    """A bar where standard output is a terminal, lines where it is not.

    Args:
        epochs: how many there will be.
        images: training images in all epochs together.
    """
    return Bar(epochs, images, Console()) if sys.stdout.isatty() else Lines(epochs)
