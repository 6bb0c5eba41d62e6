"""What several studies measure alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

NO_CROP: Mapping[str, Any] = {"augment.pad_crop": "none"}
"""Settings for `StudyContext.train`: images stay as they are, where a recipe would shift them at random."""


def time_in_turns(
    steps: Sequence[Callable[[], object]], rounds: int, *, least_s: float = 0.03
) -> list[tuple[float, ...]]:
    """Times several steps, one after the other in each round, so that a disturbance meets all of them.

    Args:
        steps: what is timed, for example forward passes; each runs once before the clock does.
        rounds: how many values each step gets.
        least_s: seconds that a value rests on at least, and on five runs at least.

    Returns:
        For each step the median time of a run in each round, s.
    """
    for step in steps:
        step()
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for step, kept in zip(steps, taken, strict=True):
            kept.append(_median_time(step, least_s))
    return [tuple(kept) for kept in taken]


def _median_time(step: Callable[[], object], least_s: float) -> float:
    taken: list[float] = []
    while len(taken) < 5 or sum(taken) < least_s:
        started = time.perf_counter()
        step()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
