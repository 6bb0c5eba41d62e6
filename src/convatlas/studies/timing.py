"""Times from fresh processes: what a process measures depends on where its memory happens to lie."""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

LEAST_S = 0.03
"""Seconds that a median rests on at least, and on five runs at least."""

ROUNDS = 3
"""Medians of each step that a process takes, in turns."""


def time_in_turns(
    steps: Sequence[Callable[[], object]], rounds: int, *, least_s: float = LEAST_S
) -> list[tuple[float, ...]]:
    """Times several steps, one after the other in each round, so that a disturbance meets all of them.

    Args:
        steps: what is timed, for example forward passes; each runs once before the clock does.
        rounds: number of values that each step gets.
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


def time_in_fresh_processes(
    make: Callable[..., Sequence[Callable[[], object]]], arguments: Mapping[str, Any], processes: int
) -> list[tuple[float, ...]]:
    """Times several steps in fresh processes, one process after the other.

    Args:
        make: function of a module that makes the steps; each process calls it anew.
        arguments: its keywords, of types that JSON has.
        processes: number of values that each step gets.

    Returns:
        For each step the median time of a run in each process, s.

    Raises:
        ValueError: if a process fails; with the end of its error message.
    """
    asked = {
        "module": make.__module__,
        "function": make.__qualname__,
        "arguments": dict(arguments),
        "threads": torch.get_num_threads(),
    }
    rows = [_in_process(asked) for _ in range(processes)]
    return [tuple(row[i] for row in rows) for i in range(len(rows[0]))]


def _in_process(asked: Mapping[str, Any]) -> list[float]:
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        tail = " ".join(done.stderr.split())[-400:]
        raise ValueError(f"a process that should measure times failed with {done.returncode}: {tail}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure() -> None:
    """What a fresh process does: reads what to time, and writes the medians as JSON."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    make = getattr(importlib.import_module(asked["module"]), asked["function"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        taken = time_in_turns(make(**asked["arguments"]), ROUNDS)
    print(json.dumps([statistics.median(values) for values in taken]))


if __name__ == "__main__":
    _measure()
