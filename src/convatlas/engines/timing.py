"""Measuring several ways to run one network, in turns, so that what disturbs the machine disturbs all."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from convatlas.machine import steal_time

Key = TypeVar("Key")
Found = TypeVar("Found")

# Who is slower than this many times the fastest is not measured any longer.
PRUNE_RATIO = 1.3
# So that threads which still wait for work after their last call are asleep when the next one is timed.
PAUSE = 0.01
FEWEST = 3
TRIES = 3


def measure_undisturbed(measure: Callable[[], Found]) -> Found:
    """Measures, and again where the host of this virtual machine took processors away meanwhile.

    Threads that wait for one whose processor is away take many times as long, whatever they compute.

    Args:
        measure: takes the time of something.

    Returns:
        What it returned when least was taken away.
    """
    tries: list[tuple[float, Found]] = []
    for _ in range(TRIES):
        before = steal_time()
        found = measure()
        lost = steal_time() - before
        tries.append((lost, found))
        if not lost:
            break
    return min(tries, key=lambda each: each[0])[1]


def interleaved_timing(
    entrants: Mapping[Key, Callable[[int], list[float]]],
    estimates: Mapping[Key, float],
    *,
    limit: float,
    most: int = 30,
) -> dict[Key, list[float]]:
    """Times each entrant in turn, round after round.

    Args:
        entrants: for each, what makes a number of calls and returns the seconds of each call.
        estimates: seconds of a call, roughly.
        limit: seconds to spend, beyond the first rounds.
        most: rounds.

    Returns:
        The seconds of every call: fewer for entrants that turned out hopeless, none for one that returned
        none.
    """
    begin = time.monotonic()
    times: dict[Key, list[float]] = {key: [] for key in entrants}
    running = list(entrants)
    for turn in range(most):
        if turn >= FEWEST and time.monotonic() - begin > limit:
            break
        for key in running:
            time.sleep(PAUSE)
            # Short calls are timed several at a time; long ones alone.
            calls = max(1, min(20, int(0.03 / max(estimates[key], 1e-6))))
            found = entrants[key](calls)
            times[key] = times[key] + found if found else []
        best = min(median(times[key]) for key in running)
        limit_now = PRUNE_RATIO * best if turn >= 1 else sys.float_info.max
        running = [key for key in running if median(times[key]) <= limit_now]
        if not running or (turn + 1 >= FEWEST and len(running) == 1):
            break
    return times


def median(times: list[float]) -> float:
    """The median, since engines differ in what disturbances cost them. Infinite for no times."""
    return statistics.median(times) if times else float("inf")
