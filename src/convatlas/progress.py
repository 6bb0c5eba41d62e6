"""Progress of work that takes time, shown where somebody watches: on a terminal or in a notebook."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE_S = 0.5
"""What ends sooner shows nothing."""


def in_notebook() -> bool:
    """Whether this is a notebook's kernel, whose output may hold HTML."""
    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return type(found).__name__ == "ZMQInteractiveShell"


def is_shown(progress: bool | None) -> bool:
    """Whether progress is shown.

    Args:
        progress: True or False; None to show it where standard error is a terminal, or in a notebook.
    """
    return (sys.stderr.isatty() or in_notebook()) if progress is None else progress


def console() -> Console:
    """Where progress is drawn: standard error, or a notebook's output."""
    from rich.console import Console

    return Console() if in_notebook() else Console(stderr=True)


def tracked(
    items: Iterable[T],
    what: str,
    total: int | None = None,
    *,
    already: int = 0,
    progress: bool | None = None,
    note: Callable[[T], str] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[T]:
    """Passes items on, and shows how many there were in a bar once they take longer than half a second.

    Args:
        items: what is passed on.
        what: the items, in the plural.
        total: how many there will be; None where nobody knows.
        already: those of `total` that were done before.
        progress: whether to show it; None where somebody watches.
        note: what stands behind the bar once an item has come; "" leaves the note before.
        clock: seconds that only grow.
    """
    if not is_shown(progress):
        yield from items
        return
    with contextlib.ExitStack() as stack:
        bar, begun, shown = None, clock(), ""
        for count, item in enumerate(items, 1):
            seconds = clock() - begun
            shown = (note(item) if note else "") or shown
            if bar is None and seconds >= PATIENCE_S:
                bar = stack.enter_context(_bar())
                bar.add_task(what, total=total, completed=already + count - 1, rate=0.0, note="")
            if bar is not None:
                rate = count / seconds if seconds > 0 else 0.0
                bar.update(bar.task_ids[0], completed=already + count, rate=rate, note=shown)
            yield item


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    counted = (
        "{task.completed:,.0f} {task.description}  {task.fields[rate]:,.3g} a second  {task.fields[note]}"
    )
    text = TextColumn(counted)
    return Progress(BarColumn(), text, TimeRemainingColumn(), console=console())


@contextlib.contextmanager
def waiting(what: str, progress: bool | None = None) -> Generator[None, None, None]:
    """Shows that something is under way that has no parts to count.

    Args:
        what: that is under way.
        progress: whether to show it; None where somebody watches.
    """
    if not is_shown(progress):
        yield
        return
    with console().status(what):
        yield
