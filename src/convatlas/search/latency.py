"""Latency of a network on this machine's fastest engine, measured in a process of its own."""

from __future__ import annotations

import dataclasses
import multiprocessing
from multiprocessing.connection import Connection

from convatlas.search.architecture import Architecture, Task
from convatlas.search.store import Store
from convatlas.search.workers import Workers

MARGIN = 0.97
"""A network is taken where its latency is at most this share of the limit: the next measurement differs."""


def measure_here(found: Architecture, task: Task, engine: str) -> float:
    """Seconds of the network on one image, by the engine that is fastest (or the one that is named)."""
    from convatlas.engines.optimize import optimize

    net = found.build(task).eval()
    made = optimize(net, task.image_size, engines=None if engine == "auto" else [engine], remember=False)
    timed = [result.seconds for result in made.report.results if result.seconds is not None]
    if not timed:
        raise ValueError(f"{found.text}: no engine could be timed")
    return timed[0]


def _answer(connection: Connection, found: Architecture, task: Task, engine: str) -> None:
    try:
        connection.send((measure_here(found, task, engine), ""))
    except Exception as error:
        connection.send((None, f"{type(error).__name__}: {error}"))


def measure_latency(found: Architecture, task: Task, engine: str) -> float:
    """Seconds of the network on one image, measured in a fresh process.

    Raises:
        ValueError: it cannot be measured.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, found, task, engine))
    process.start()
    theirs.close()
    try:
        seconds, reason = ours.recv()
    except EOFError:
        seconds, reason = None, "the process died"
    process.join()
    if seconds is None:
        raise ValueError(f"the latency of {found.text} cannot be measured: {reason}")
    return float(seconds)


@dataclasses.dataclass
class LatencyLimit:
    """Whether architectures are fast enough; each is measured once, while no worker computes.

    Attributes:
        limit: s.
        engine: "auto" or a name.
        task: what networks are built for.
        store: where measurements are kept.
        workers: that are stopped meanwhile; None where there are none yet.
    """

    limit: float
    engine: str
    task: Task
    store: Store
    workers: Workers | None = None

    def allows(self, found: Architecture) -> bool:
        """Whether the architecture is within the limit, with some room."""
        known = self.store.latencies()
        if found.key not in known:
            known[found.key] = self.measure(found)
            self.store.put_latency(found.key, known[found.key])
        return known[found.key] <= MARGIN * self.limit

    def measure(self, found: Architecture) -> float:
        """Seconds, measured anew."""
        if self.workers is not None:
            self.workers.pause()
        try:
            return measure_latency(found, self.task, self.engine)
        finally:
            if self.workers is not None:
                self.workers.go_on()
