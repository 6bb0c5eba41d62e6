"""Showing how a training goes: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from convatlas.training.logging.events import EpochDone, Facts, Silent, StepDone, Watcher

LINE_EVERY_S = 60.0
"""Plain lines within an epoch come this far apart, so that a log stays short."""
DRAW_EVERY_S = 0.2


class Lines(Silent):
    """Plain lines: what is trained, one line for each epoch, and in long epochs one a minute.

    Args:
        write: takes each line.
        every_s: time between lines within an epoch.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        write: Callable[[str], None] | None = None,
        *,
        every_s: float = LINE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = _print if write is None else write
        self._every_s = every_s
        self._clock = clock
        self._written = clock()
        self._facts: Facts | None = None

    def start(self, facts: Facts) -> None:
        """Writes what is trained, on what and how fast."""
        self._facts = facts
        for line in facts_lines(facts):
            self._write(line)
        self._written = self._clock()

    def step(self, done: StepDone) -> None:
        """Writes a line, if the last one is long ago."""
        now = self._clock()
        if now - self._written < self._every_s:
            return
        self._written = now
        share = done.images / self._facts.num_images if self._facts else 0.0
        self._write(
            f"{_epoch(done)} {share:4.0%}  loss {done.loss:.4f}  {done.images_per_s:,.0f} images/s  "
            f"waiting for images {done.data_share:.1%}  {memory(done.memory_bytes)}  "
            f"{duration(done.left_s)} left"
        )

    def epoch(self, done: EpochDone) -> None:
        """Writes the epoch's line."""
        self._write(epoch_line(done))
        self._written = self._clock()

    def note(self, text: str) -> None:
        """Writes the line."""
        self._write(text)


class View(Silent):
    """A line for each epoch that stays, and below them a live view of the one that runs.

    Args:
        console: where it is drawn.
        clock: seconds that only grow.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._drawn = -math.inf
        self._facts: Facts | None = None
        self._step: StepDone | None = None
        self._accuracy: float | None = None
        self._best = -1.0, 0
        # Drawn when something happens, not by a thread of its own, which would take its share of every step.
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        """Begins to show."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the live view away; the lines stay."""
        self._live.stop()

    def start(self, facts: Facts) -> None:
        """Shows what is trained, on what and how fast."""
        self._facts = facts
        first, *rest = facts_lines(facts)
        self._write(first, "bold")
        for line in rest:
            self._write(line, "dim")

    def step(self, done: StepDone) -> None:
        """Draws the step, if the last drawing is long enough ago."""
        self._step = done
        now = self._clock()
        if now - self._drawn >= DRAW_EVERY_S:
            self._drawn = now
            self._live.update(self._image(done), refresh=True)

    def epoch(self, done: EpochDone) -> None:
        """Writes the epoch's line, and draws."""
        self._accuracy = done.test_accuracy
        if done.test_accuracy >= self._best[0]:
            self._best = done.test_accuracy, done.epoch + 1
        self._write(epoch_line(done))
        if self._step is not None:
            self._live.update(self._image(self._step), refresh=True)

    def note(self, text: str) -> None:
        """Writes the line."""
        self._write(text, "yellow")

    def _write(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style), soft_wrap=True)

    def _image(self, done: StepDone) -> Group:
        images = self._facts.num_images if self._facts else done.images
        bars = Table.grid(padding=(0, 2, 0, 0), expand=True)
        bars.add_column(no_wrap=True)
        bars.add_column(ratio=1)
        bars.add_column(no_wrap=True, justify="right")
        bars.add_row(_epoch(done), ProgressBar(images, done.images), f"{done.images / images:.0%}")
        bars.add_row("in all", ProgressBar(done.num_steps, done.step), f"{duration(done.left_s)} left")
        text = (
            f"loss {done.loss:.4f}  accuracy {self._accuracies()}  {done.images_per_s:,.0f} images/s  "
            f"{memory(done.memory_bytes)}  lr {done.lr:.3g}  waiting for images {done.data_share:.1%}"
        )
        return Group(bars, Text(text, no_wrap=True, overflow="ellipsis"))

    def _accuracies(self) -> str:
        if self._accuracy is None:
            return "-"
        best, epoch = self._best
        return f"{self._accuracy:.2%}" + (
            f" (best {best:.2%}, epoch {epoch})" if best > self._accuracy else ""
        )


class CompositeCallback(Silent):
    """Tells several watchers the same, in order.

    Args:
        watchers: those that are told.
    """

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = watchers

    def __enter__(self) -> Self:
        """Begins each."""
        for watcher in self._watchers:
            watcher.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends each, the last first."""
        for watcher in reversed(self._watchers):
            watcher.__exit__(kind, error, trace)

    def start(self, facts: Facts) -> None:
        """Tells each."""
        for watcher in self._watchers:
            watcher.start(facts)

    def step(self, done: StepDone) -> None:
        """Tells each."""
        for watcher in self._watchers:
            watcher.step(done)

    def epoch(self, done: EpochDone) -> None:
        """Tells each."""
        for watcher in self._watchers:
            watcher.epoch(done)

    def note(self, text: str) -> None:
        """Tells each."""
        for watcher in self._watchers:
            watcher.note(text)


def terminal_watcher() -> Watcher:
    """A live view where standard output is a terminal, plain lines where it is not."""
    return View(Console()) if sys.stdout.isatty() else Lines()


def watcher_for(progress: bool | None) -> Watcher:
    """What shows a training that was started from Python.

    Args:
        progress: True to show it, False for silence; None to show it where standard output is a terminal or a
            notebook.
    """
    console = Console()
    live = console.is_terminal or console.is_jupyter
    if not (live if progress is None else progress):
        return Silent()
    return View(console) if live else Lines()


def facts_lines(facts: Facts) -> list[str]:
    """What is trained, on what and how fast, as lines."""
    processes = f" of {facts.world_size} processes" if facts.world_size > 1 else ""
    lines = [
        f"{facts.network} on {facts.data}: {facts.num_images:,} images, {facts.num_epochs} epochs, "
        f"batches of {facts.batch_size}, on {facts.device}{processes}",
        *([f"  {facts.rate}"] if facts.rate else []),
        *(f"  {reason}" for reason in facts.execution),
        f"  run folder: {facts.folder}",
    ]
    if facts.first_step:
        lines.append(f"  goes on after step {facts.first_step:,} of {facts.num_steps:,}")
    return lines


def epoch_line(done: EpochDone) -> str:
    """An epoch's figures in one line."""
    top5 = "" if done.test_top5 is None else f"  top-5 {done.test_top5:.2%}"
    return (
        f"{_epoch(done)}  loss {done.loss:.4f}  test loss {done.test_loss:.4f}  "
        f"accuracy {done.test_accuracy:.2%}{top5}  {done.images_per_s:,.0f} images/s  "
        f"{duration(done.left_s)} left"
    )


def duration(seconds: float) -> str:
    """Seconds for a person: "12 s", "3:05 min", "2:03 h", "3 days 4 h"."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    minutes = whole // 60
    if minutes < 24 * 60:
        return f"{minutes // 60}:{minutes % 60:02d} h"
    hours = minutes // 60
    return f"{hours // 24} day{'s' if hours >= 48 else ''} {hours % 24} h"


def memory(size: int) -> str:
    """Bytes for a person: "812 MiB", "1.2 GiB"."""
    return f"{size / 1024**2:,.0f} MiB" if size < 1024**3 else f"{size / 1024**3:,.1f} GiB"


def _epoch(done: StepDone | EpochDone) -> str:
    width = len(str(done.num_epochs))
    return f"epoch {done.epoch + 1:>{width}}/{done.num_epochs}"


def _print(line: str) -> None:
    print(line, flush=True)
