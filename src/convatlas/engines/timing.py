"""Measuring several ways to run one network, in turns, so that what disturbs the machine disturbs all."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from convatlas.machine import steal_time

Key = TypeVar("Key")
Found = TypeVar("Found")

# Who is slower than this many times the fastest is not measured any longer.
PRUNE_RATIO = 1.3
# So that threads which still wait for work after their last call are asleep when the next one is timed.
PAUSE = 0.01
FEWEST, MOST_ROUNDS = 3, 200
# Seconds of one entrant's calls in a round, and calls, where these are short.
ROUND_SECONDS, MOST_AT_ONCE = 0.03, 20
TRIES = 3
RESOLUTION = 0.02
"""Difference of two entrants that is worth knowing."""


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
    most: int = MOST_ROUNDS,
) -> dict[Key, list[list[float]]]:
    """Times each entrant in turn, round after round, until it is known how the fastest two compare.

    That is known when the interval of their ratio is less than `RESOLUTION` wide, or all above 1 by that.

    Args:
        entrants: for each, what makes a number of calls and returns the seconds of each call.
        estimates: seconds of a call, roughly.
        limit: seconds to spend, beyond the first rounds.
        most: rounds.

    Returns:
        The seconds of every call, by rounds: fewer for entrants that turned out hopeless, none for one that
        returned none.
    """
    begin = time.monotonic()
    rounds: dict[Key, list[list[float]]] = {key: [] for key in entrants}
    running = list(entrants)
    for turn in range(most):
        if turn >= FEWEST and time.monotonic() - begin > limit:
            break
        for key in running:
            time.sleep(PAUSE)
            # Short calls are timed several at a time; long ones alone.
            calls = max(1, min(MOST_AT_ONCE, int(ROUND_SECONDS / max(estimates[key], 1e-6))))
            found = entrants[key](calls)
            rounds[key] = [*rounds[key], found] if found else []
        medians = {key: median(all_calls(rounds[key])) for key in running}
        limit_now = PRUNE_RATIO * min(medians.values()) if turn >= 1 else sys.float_info.max
        running = [key for key in running if medians[key] <= limit_now]
        if not running or (turn + 1 >= FEWEST and _is_settled([rounds[key] for key in running])):
            break
    return rounds


def _is_settled(running: Sequence[list[list[float]]]) -> bool:
    """Whether more rounds would tell nothing about the fastest two."""
    if len(running) == 1:
        return True
    first, second = sorted(running, key=lambda rounds: median(all_calls(rounds)))[:2]
    low, high = ratio_interval(second, first)
    return high < low * (1 + RESOLUTION) or low > 1 + RESOLUTION


def ratio_interval(one: Sequence[list[float]], other: Sequence[list[float]]) -> tuple[float, float]:
    """The interval that holds the median ratio of the times of two entrants with at least 95 % probability.

    Times of the same round are compared, since what disturbs the machine for longer disturbs both. Nothing is
    assumed about their distribution: of n ratios, the k-th from below and the k-th from above are taken, with
    the largest k whose two tails of the binomial distribution hold no more than 5 %.

    Args:
        one: seconds of calls, by rounds.
        other: the same; rounds that only one of them has are left out.

    Returns:
        The ends; 0 and infinity where there are fewer than six rounds.

    Source: Conover 1999, "Practical nonparametric statistics", section 3.2.
    """
    ratios = sorted(_ratios(one, other))
    tail, count = 0, 0
    while 2 * (tail := tail + math.comb(len(ratios), count)) <= 0.05 * 2 ** len(ratios):
        count += 1
    return (ratios[count - 1], ratios[-count]) if count else (0.0, float("inf"))


def typical_ratio(one: Sequence[list[float]], other: Sequence[list[float]]) -> float:
    """The median ratio of the times of two entrants, round by round; infinite where they share none."""
    return median(_ratios(one, other))


def _ratios(one: Sequence[list[float]], other: Sequence[list[float]]) -> list[float]:
    return [median(mine) / max(median(theirs), 1e-9) for mine, theirs in zip(one, other, strict=False)]


def all_calls(rounds: Iterable[list[float]]) -> list[float]:
    """The seconds of the calls of all rounds."""
    return list(itertools.chain.from_iterable(rounds))


def median(times: list[float]) -> float:
    """The median, since engines differ in what disturbances cost them. Infinite for no times."""
    return statistics.median(times) if times else float("inf")
