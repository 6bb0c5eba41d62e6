"""A live bar for work on many images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from convatlas.predict.outputs import Prediction, Skipped
from convatlas.progress import tracked

Results = Prediction | Skipped


def watched(
    results: Iterable[Results], total: int | None = None, already: int = 0, progress: bool | None = None
) -> Iterator[Results]:
    """Passes predictions on, and shows how many there are.

    Args:
        results: what is passed on.
        total: of the images; None where nobody knows.
        already: those of `total` that were predicted before.
        progress: whether to show it; None where standard error is a terminal, or in a notebook.
    """
    skipped = 0

    def note(entry: Results) -> str:
        nonlocal skipped
        skipped += isinstance(entry, Skipped)
        return f"{skipped:,} skipped" if skipped else ""

    return tracked(results, "images", total, already=already, progress=progress, note=note)
