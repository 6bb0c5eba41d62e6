"""A live bar on standard error for work on many images."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

from convatlas.predict.outputs import Prediction, Skipped

Results = Prediction | Skipped


def watched(results: Iterable[Results], total: int | None = None, already: int = 0) -> Iterator[Results]:
    """Passes predictions on, and shows how many there are, where standard error is a terminal.

    Args:
        results: what is passed on.
        total: of the images; None where nobody knows.
        already: those of `total` that were predicted before.
    """
    if not sys.stderr.isatty():
        yield from results
        return
    # Late: who sees no bar pays nothing for it.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.completed:,.0f} images  {task.fields[rate]:,.0f} a second{task.fields[bad]}")
    with Progress(BarColumn(), text, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, completed=already, rate=0.0, bad="")
        start, bad = time.monotonic(), 0
        for count, entry in enumerate(results, 1):
            bad += isinstance(entry, Skipped)
            rate = count / max(time.monotonic() - start, 1e-9)
            bar.update(task, advance=1, rate=rate, bad=f"  {bad:,} refused" if bad else "")
            yield entry
