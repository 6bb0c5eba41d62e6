"""Processes that evaluate architectures. Those that die are replaced, and what they did is done again."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

MOST_DEATHS = 20
"""Deaths of the worker on one evaluation, after which the evaluation counts as failed."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        task: as it was given.
        result: what the function returned; None where it failed.
        reason: why it failed; "" where it did not.
        seconds: that it took.
    """

    task: Any
    result: Any
    reason: str
    seconds: float


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a worker: it ends when nobody holds the other end of the connection any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        start = time.perf_counter()
        try:
            answer = (function(task), "")
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            answer = (None, f"{type(error).__name__}: {error} ({last.name}, line {last.lineno})")
        try:
            connection.send((*answer, time.perf_counter() - start))
        except (BrokenPipeError, OSError):
            return


@dataclasses.dataclass
class _Worker:
    process: Any
    connection: Connection
    task: Any = None


class Workers:
    """Some processes that run one function on tasks.

    Args:
        function: of a task; both, and what it returns, can be pickled.
        count: processes.
    """

    def __init__(self, function: Callable[[Any], Any], count: int) -> None:
        self._function = function
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start() for _ in range(count)]
        self._deaths: dict[str, int] = {}

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    @property
    def has_room(self) -> bool:
        """Whether a worker has nothing to do."""
        return any(worker.task is None for worker in self._workers)

    @property
    def busy(self) -> bool:
        """Whether a worker has something to do."""
        return any(worker.task is not None for worker in self._workers)

    def give(self, task: Any) -> None:
        """Gives a task to a worker that has nothing to do."""
        i = next(i for i, worker in enumerate(self._workers) if worker.task is None)
        self._send(i, task)

    def _send(self, i: int, task: Any) -> None:
        for _ in range(MOST_DEATHS):
            try:
                self._workers[i].connection.send(task)
                break
            except (BrokenPipeError, OSError):
                self._workers[i].connection.close()
                self._workers[i] = self._start()
        self._workers[i].task = task

    def collect(self, timeout: float | None = None) -> list[Outcome]:
        """Waits until something is finished.

        Args:
            timeout: s to wait at most; None for no limit.
        """
        connections = {
            worker.connection: i for i, worker in enumerate(self._workers) if worker.task is not None
        }
        outcomes: list[Outcome] = []
        for ready in wait(list(connections), timeout):
            i = connections[ready]  # pyright: ignore[reportArgumentType]
            worker = self._workers[i]
            task = worker.task
            try:
                result, reason, seconds = worker.connection.recv()
            except (EOFError, OSError):
                outcomes += self._replace(i, task)
                continue
            worker.task = None
            outcomes.append(Outcome(task, result, reason, seconds))
        return outcomes

    def _replace(self, i: int, task: Any) -> list[Outcome]:
        worker = self._workers[i]
        worker.process.join(5)
        code = worker.process.exitcode
        worker.connection.close()
        self._workers[i] = self._start()
        deaths = self._deaths[repr(task)] = self._deaths.get(repr(task), 0) + 1
        if deaths > MOST_DEATHS:
            how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
            return [Outcome(task, None, f"its process died {deaths} times, the last time by {how}", 0.0)]
        self._send(i, task)
        return []

    def pause(self) -> None:
        """Stops the processes for the time of a measurement."""
        for pid in self.pids:
            _signal(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets stopped processes go on."""
        for pid in self.pids:
            _signal(pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
