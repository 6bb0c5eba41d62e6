"""Worker processes: whatever builds a network runs in one, with limits on time and memory.

A worker that takes too long or dies is replaced, and only its own request fails. How many requests wait is
bounded; one more is told so at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from .settings import BadRequestError

GIB = 1024**3
DEADLINE_S = 10.0
START_S = 120.0
MEMORY_BYTES = 4 * GIB


class BusyError(RuntimeError):
    """Too many requests wait already.

    Attributes:
        waiting: how many.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting; try again in a moment")
        self.waiting = waiting


class _DiedError(RuntimeError):
    """A worker ended without an answer."""


class _Worker:
    """One process, asked one thing at a time."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self.is_ready = False
        self._closed = False
        self.start()

    def start(self) -> None:
        """Starts the process; it is ready when it has imported torch."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._memory_bytes), daemon=True)
        self._process.start()
        theirs.close()
        self.is_ready = False

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def ask(self, task: str, arguments: tuple[Any, ...], deadline_s: float) -> Any:
        """The task's result.

        Raises:
            BadRequestError: if it takes too long, or whatever the task raises.
        """
        if not self._process.is_alive():
            self.replace()
        try:
            if not self.is_ready:
                if not self._pipe.poll(START_S):
                    raise _DiedError
                self._pipe.recv()
                self.is_ready = True
            self._pipe.send((task, arguments))
            if not self._pipe.poll(deadline_s):
                self.replace()
                raise BadRequestError(f"takes more than {deadline_s:g} s; choose a smaller network")
            fine, result = self._pipe.recv()
        except (EOFError, OSError, _DiedError) as error:
            self.replace()
            raise _DiedError from error
        if fine:
            return result
        raise result

    def watch(self) -> None:
        """Waits until the process is ready."""
        with contextlib.suppress(EOFError, OSError):
            if self._pipe.poll(START_S):
                self._pipe.recv()
                self.is_ready = True

    def replace(self) -> None:
        """Ends the process and starts another."""
        self.close()
        if not self._closed:
            self.start()

    def close(self, *, forever: bool = False) -> None:
        """Ends the process."""
        self._closed = self._closed or forever
        self.is_ready = False
        self._process.kill()
        self._process.join(5)
        self._pipe.close()


class Workers:
    """Processes that run tasks of `tasks`.

    Args:
        count: how many; 0 runs tasks in a thread of this process, which tests do.
        waiting: how many requests may wait for one.
        deadline_s: for each.
        memory_bytes: that a process may allocate beyond what it starts with.
    """

    def __init__(
        self,
        count: int = 2,
        waiting: int = 16,
        deadline_s: float = DEADLINE_S,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.count, self.waiting, self.deadline_s = count, waiting, deadline_s
        self._memory_bytes = memory_bytes
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all: list[_Worker] = []
        self._threads = ThreadPoolExecutor(max(1, count), thread_name_prefix="explorer")
        self._running = 0

    def start(self) -> None:
        """Starts the processes; requests wait until one is ready."""
        for _ in range(self.count):
            worker = _Worker(self._memory_bytes)
            self._all.append(worker)
            self._threads.submit(self._warm, worker)

    def _warm(self, worker: _Worker) -> None:
        worker.watch()
        self._idle.put(worker)

    @property
    def is_ready(self) -> bool:
        """Whether a request would be answered now."""
        return not self.count or any(worker.is_ready for worker in self._all)

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [worker.pid for worker in self._all if worker.pid is not None]

    async def run(self, task: str, *arguments: Any) -> Any:
        """The result of a task.

        Args:
            task: the name of a function of `tasks`.
            arguments: for it.

        Raises:
            BusyError: if too many requests wait.
            ValueError: what the task raises, or that it takes too long or needs too much memory.
        """
        if self._running >= max(1, self.count) + self.waiting:
            raise BusyError(self._running - max(1, self.count))
        self._running += 1
        future = self._threads.submit(self._ask, task, arguments)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: self._finished(loop))
        return await asyncio.wrap_future(future)

    def _finished(self, loop: asyncio.AbstractEventLoop) -> None:
        def less() -> None:
            self._running -= 1

        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(less)

    def _ask(self, task: str, arguments: tuple[Any, ...]) -> Any:
        if not self.count:
            fine, result = _answer(task, arguments)
            if fine:
                return result
            raise result
        for _ in range(2):
            worker = self._idle.get()
            try:
                return worker.ask(task, arguments, self.deadline_s)
            except _DiedError:
                continue
            finally:
                self._idle.put(worker)
        raise BadRequestError("the network needs more memory than a request may take, or ended the process")

    def close(self) -> None:
        """Ends all processes."""
        for worker in self._all:
            worker.close(forever=True)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _call(task: str, arguments: tuple[Any, ...]) -> Any:
    tasks = importlib.import_module("convatlas.explorer.tasks")
    function: Callable[..., Any] = getattr(tasks, task)
    return function(*arguments)


def _serve(pipe: Connection, memory_bytes: int) -> None:
    """The process: answers until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    importlib.import_module("convatlas.explorer.tasks")
    _limit_memory(memory_bytes)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            task, arguments = pipe.recv()
            pipe.send(_answer(task, arguments))


def _answer(task: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, _call(task, arguments)
    except ValueError as error:
        return False, BadRequestError(str(error))
    except (MemoryError, RecursionError) as error:
        return False, BadRequestError(f"the network is too large to be sized here ({type(error).__name__})")
    except RuntimeError as error:
        return False, BadRequestError(f"{type(error).__name__}: {error}")


def _limit_memory(memory_bytes: int) -> None:
    """Bounds what the process may allocate; Linux only."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
