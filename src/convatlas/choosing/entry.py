"""The one function for both questions: by published accuracies, or by a user's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convatlas.choosing.choose import Limits, Selection
from convatlas.choosing.choose import choose as choose_published

if TYPE_CHECKING:
    from convatlas.choosing.estimate import DataSelection
    from convatlas.data.sets import Source


def choose(
    names: str | Sequence[str] = "*",
    limits: Limits | None = None,
    *,
    data: str | Source | None = None,
    minutes: float = 5.0,
    batch_size: int = 1,
    engine: str | None = None,
    threads: int | None = None,
    measure: bool = False,
    data_dir: str | Path | None = None,
    seed: int = 0,
    download: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Selection | DataSelection:
    """Says which network to take: for the images of `data`, or by published accuracies without.

    Args:
        names: names, aliases or patterns such as "resnet*"; with `data`, folders of runs too.
        limits: that a network must fit.
        data: a data set by name, such as "folder:flowers", or a `Source`; None for published accuracies.
        minutes: that it may take, with `data`.
        batch_size: B of the latency, without `data`.
        engine: that latencies are for; "auto" for the fastest; None for what is remembered, else eager.
        threads: that work on a batch; None for `torch.get_num_threads()`.
        measure: without `data`, measure latencies of all that pass the other limits.
        data_dir: where small data sets lie.
        seed: of folds and trainings, with `data`.
        download: with `data`, fetch published weights that are not here from the hub.
        progress: without `data`, called before a network is measured.
        say: with `data`, is told what is done.

    Raises:
        UnknownNameError: no network has such a name, or there is no such engine or data set.
        DataError: the data cannot be used.
        ValueError: an argument is out of its range.
    """
    if data is None:
        return choose_published(
            names,
            limits,
            batch_size=batch_size,
            engine=engine,
            threads=threads,
            measure=measure,
            progress=progress,
        )
    from convatlas.choosing.by_data import choose_by_data

    if batch_size != 1 or measure:
        raise ValueError("`batch_size` and `measure` have a meaning without `data` only")
    return choose_by_data(
        data,
        names,
        limits,
        minutes=minutes,
        engine=engine,
        threads=threads,
        data_dir=data_dir,
        seed=seed,
        download=download,
        say=say,
    )
