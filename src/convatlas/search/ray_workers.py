"""Evaluations on a Ray cluster: Ray's own scheduling, and its own retries where a node dies."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from convatlas.search.workers import MOST_DEATHS, Outcome


def _timed(function: Callable[[Any], Any], task: Any) -> tuple[Any, str, float]:
    start = time.perf_counter()
    try:
        return function(task), "", time.perf_counter() - start
    except Exception as error:
        return None, f"{type(error).__name__}: {error}", time.perf_counter() - start


class RayWorkers:
    """As `Workers`, with the tasks of a cluster; one that is running is joined, else one is begun here.

    Args:
        function: of a task; on a cluster of several machines, its folders lie where all see them.
        count: tasks at once.

    Raises:
        ValueError: Ray is not installed.
    """

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            raise ValueError(
                "`cluster`='ray' needs Ray: pip install 'ray[data]', or '.[ray]' in a checkout"
            ) from None
        self._began = not self._ray.is_initialized()
        if self._began:
            self._ray.init(log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
        self._function = self._ray.put(function)
        self._call = self._ray.remote(_timed).options(num_cpus=1, max_retries=MOST_DEATHS)
        self._count = count
        self._tasks: dict[Any, Any] = {}

    @property
    def has_room(self) -> bool:
        """Whether another task may begin."""
        return len(self._tasks) < self._count

    @property
    def busy(self) -> bool:
        """Whether a task is running."""
        return bool(self._tasks)

    def give(self, task: Any) -> None:
        """Begins a task."""
        self._tasks[self._call.remote(self._function, task)] = task

    def collect(self, timeout: float | None = None) -> list[Outcome]:
        """Waits until something is finished."""
        if not self._tasks:
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
        outcomes: list[Outcome] = []
        for reference in ready:
            task = self._tasks.pop(reference)
            try:
                result, reason, seconds = self._ray.get(reference)
            except Exception as error:  # The worker died more often than Ray tries again.
                result, reason, seconds = None, f"{type(error).__name__}: {error}", 0.0
            outcomes.append(Outcome(task, result, reason, seconds))
        return outcomes

    def close(self) -> None:
        """Gives up tasks that run, and ends the cluster if it was begun here."""
        for reference in self._tasks:
            self._ray.cancel(reference, force=True)
        if self._began:
            self._ray.shutdown()
