"""The asking side of trials: starts their processes, puts requests to them, ends them when time is up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any

from convatlas.engines import ENGINES
from convatlas.engines.backend import BackendConfig, EngineError

LOG = "trial.log"
LATE = "was not ready in time"
PACKAGE_ROOT = Path(__file__).parents[2]


class WorkerHandle:
    """A process in which one engine is tried.

    Attributes:
        engine: its name.
    """

    def __init__(self, engine: str, pool: WorkerPool) -> None:
        self.engine = engine
        self._pool = pool
        self._connected = threading.Event()
        self._connection: Connection | None = None
        self._process = 0
        self._gone = "its process has ended"

    def connect(self, connection: Connection, process: int) -> None:
        """Takes the process's call."""
        self._connection, self._process = connection, process
        self._connected.set()

    def ask(self, do: str, deadline: float, **details: Any) -> dict[str, Any]:
        """Sends a request and waits for the answer.

        Args:
            do: what, as in `trial.Worker`.
            deadline: by `time.monotonic`.
            details: its arguments.

        Raises:
            EngineError: the engine reported a failure; or it crashed, or took too long, and its process was
                ended.
        """
        while not self._connected.wait(min(0.2, max(0.0, deadline - time.monotonic()))):
            if self._pool.has_ended(self.engine):
                raise EngineError(self._end())
            if time.monotonic() > deadline:
                raise EngineError(LATE)
        connection = self._connection
        if connection is None:
            raise EngineError(self._gone)
        line = json.dumps({"do": do, **details}, default=_plain)
        try:
            connection.send_bytes(line.encode())
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                self.stop()
                self._gone = LATE
                raise EngineError(LATE)
            answer: dict[str, Any] = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            self.stop()
            raise EngineError(self._end()) from None
        if "failed" in answer:
            raise EngineError(answer["failed"])
        return answer

    def stop(self) -> None:
        """Ends the process, and what it has started."""
        if self._connection is None:
            return
        self._connection.close()
        self._connection = None
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process, signal.SIGKILL)
            else:
                os.kill(self._process, signal.SIGTERM)

    def _end(self) -> str:
        lines: list[str] = []
        for name in (LOG, f"{self.engine}.log"):
            path = self._pool.folder / name
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            lines += text.strip().splitlines()
        return f"its process crashed{': ' + lines[-1][:200] if lines else ''}"


class WorkerPool:
    """The attempts at one job; as a context, ends all their processes when it is left.

    Args:
        engines: names.
        folder: of the job.

    Attributes:
        attempts: one for each engine.
        folder: of the job.
        address: where the processes call.

    Raises:
        EngineError: the processes cannot be started.
    """

    def __init__(self, engines: Sequence[str], folder: Path) -> None:
        self.folder = folder
        engines = tuple(dict.fromkeys(engines))
        self.attempts = [WorkerHandle(engine, self) for engine in engines]
        key = secrets.token_bytes(32)
        self._is_closed = False
        self._listener = Listener(authkey=key)
        self.address = self._listener.address
        threading.Thread(target=self._accept, daemon=True).start()
        # Where processes can be forked, one import serves all engines.
        places = [f"{engine}={ENGINES[engine]}" for engine in engines]
        together = [places] if hasattr(os, "fork") else [[place] for place in places]
        self._processes = [self._start(part, key) for part in together if part]

    def has_ended(self, engine: str) -> bool:
        """Whether no process runs that could still connect for an engine."""
        if all(process.poll() is not None for process in self._processes):
            return True
        try:
            os.kill(int((self.folder / f"{engine}.pid").read_text(encoding="ascii")), 0)
        except ProcessLookupError:
            return True
        except (OSError, ValueError):  # It has not been forked yet, or is the first process itself.
            return False
        return False

    def __enter__(self) -> WorkerPool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every process."""
        for attempt in self.attempts:
            attempt.stop()
        for process in self._processes:
            process.kill()
            process.wait()
        self._is_closed = True
        self._listener.close()

    def _start(self, places: Sequence[str], key: bytes) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "convatlas.engines.worker", str(self.folder)]
        address = self.address
        try:
            log = (self.folder / LOG).open("ab")
            process = subprocess.Popen(
                [*command, str(address), *places],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=worker_environment(self.folder),
                start_new_session=True,
            )
            log.close()
            assert process.stdin is not None
            with process.stdin:
                process.stdin.write(key.hex().encode() + b"\n")
        except OSError as error:
            raise EngineError(f"its process could not be started ({error})") from None
        return process

    def _accept(self) -> None:
        """Takes the calls of the processes as they come, until the pool is closed.

        A call that nobody waits for is hung up, which ends the process that made it.
        """
        waiting = {attempt.engine: attempt for attempt in self.attempts}
        while True:
            try:
                connection = self._listener.accept()
            except AuthenticationError:
                continue
            except OSError:
                if self._is_closed:
                    return
                continue  # The caller hung up before it had said who it is.
            try:
                hello = json.loads(connection.recv_bytes())
                waiting.pop(hello["engine"]).connect(connection, hello["process"])
            except (OSError, EOFError, ValueError, LookupError, TypeError):
                connection.close()


def worker_environment(folder: Path) -> dict[str, str]:
    """One thread until the job is known, caches in the job's folder, and our own package on the path."""
    paths = [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PYTHONWARNINGS": "ignore",
    }


def _plain(value: Any) -> Any:
    if isinstance(value, BackendConfig):
        return dataclasses.asdict(value)
    raise TypeError(f"{value!r} is not for JSON")
