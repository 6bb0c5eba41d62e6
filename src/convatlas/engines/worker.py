"""Engines on trial, each in a process of its own: they may hang or crash without harm to the one that asks.

`python -m convatlas.engines.worker FOLDER ADDRESS NAME=PLACE...` imports what all engines need,
forks a process for each, and connects each to ADDRESS, where requests come from: one JSON object, one answer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.engines import load_engine
from convatlas.engines.agreement import compare
from convatlas.engines.backend import BackendConfig, BatchFn, Job
from convatlas.engines.mixed import read_mix
from convatlas.engines.timing import measure_undisturbed
from convatlas.machine import steal_time

SHORT, LONG = 0.05, 0.5
"""Seconds of a call: below, it is disturbed easily; from which on a single one says who is far behind."""


class Worker:
    """Builds an engine, opens it in its settings, checks and times them.

    Args:
        engine: name.
        place: where it is, as `ENGINES` says.
        folder: of the job.
    """

    def __init__(self, engine: str, place: str, folder: Path) -> None:
        self.folder = folder
        self.target = folder / engine
        self.backend = load_engine(place)
        self.job = Job.read(folder)
        self.runners: dict[BackendConfig, BatchFn] = {}
        self.example = self._read("example").to(self.job.device)
        torch.set_num_threads(self.job.threads)

    def answer(self, do: str, details: dict[str, Any]) -> dict[str, Any]:
        """Does what is asked for: precisions, build, check, time or close."""
        if "config" in details:
            details["config"] = BackendConfig(**details["config"])
        return getattr(self, do)(**details)

    def precisions(self) -> dict[str, Any]:
        """Those that the engine has for the job."""
        return {"precisions": self.backend.precisions(self.job)}

    def build(self, precision: Any) -> dict[str, Any]:
        """Builds, and says in which settings the engine can be opened."""
        self.target.mkdir(exist_ok=True)
        self.backend.build(self.job, precision, self.folder, self.target)
        configs = self.backend.configs(self.job, precision)
        return {"configs": [dataclasses.asdict(config) for config in configs]}

    def check(self, config: BackendConfig) -> dict[str, Any]:
        """Opens the engine, compares its logits with the network's, and takes a first look at its time."""
        batch_fn = self.runners[config] = self.backend.open(self.job, self.target, config)
        batches = self._read("check").to(self.job.device).split(self.job.shape[0])
        logits, once = timed_logits(batch_fn, batches)
        found = compare(logits, self._read("expected"))
        look = estimate_latency(batch_fn, self.example, once)
        mix = read_mix(self.target) if config.precision == "int8" else ()
        layers = [dataclasses.asdict(layer) for layer in mix]
        return {**dataclasses.asdict(found), "seconds": look, "layers": layers}

    def time(self, config: BackendConfig, calls: int) -> dict[str, Any]:
        """Times calls, after one that is not timed where they are short."""
        batch_fn = self.runners[config]
        if calls > 1:
            batch_fn(self.example)
        return {"seconds": [seconds(batch_fn, self.example) for _ in range(calls)]}

    def close(self, config: BackendConfig) -> dict[str, Any]:
        """Lets go of the memory of a setting."""
        self.runners.pop(config, None)
        return {}

    def _read(self, name: str) -> Tensor:
        return torch.from_numpy(np.load(self.folder / f"{name}.npy"))


def seconds(batch_fn: BatchFn, images: Tensor) -> float:
    """Wall-clock time of one call, from images in memory to logits in memory."""
    begin = time.perf_counter()
    batch_fn(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def timed_logits(batch_fn: BatchFn, batches: Sequence[Tensor]) -> tuple[Tensor, float | None]:
    """Logits of some batches, in memory, and seconds of a call, roughly.

    The seconds are None where the host of this virtual machine took processors away meanwhile.
    """
    begin, before = time.perf_counter(), steal_time()
    logits = [batch_fn(batch).cpu() for batch in batches]
    once = (time.perf_counter() - begin) / len(batches)
    return torch.cat(logits), once if steal_time() == before else None


def estimate_latency(batch_fn: BatchFn, images: Tensor, once: float | None = None) -> float:
    """Seconds of a call, roughly.

    Args:
        batch_fn: is called.
        images: that it is given.
        once: seconds that its first call took, which takes longer than others; None where that is not known.
    """

    def again() -> float:
        return seconds(batch_fn, images)

    once = once or measure_undisturbed(again)
    if once >= LONG:
        return once
    return min(measure_undisturbed(again) for _ in range(5 if once < SHORT else 1))


def main() -> None:
    """Forks a process for each engine, and lets each answer requests until nobody asks any more."""
    folder, address, *engines = sys.argv[1:]
    key = bytes.fromhex(sys.stdin.readline().strip())
    if len(engines) > 1:
        _import_all()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for engine in engines[1:]:
            child = os.fork()
            if child == 0:
                os.setsid()
                _serve(engine, Path(folder), address, key)
            # Tells the pool whom it waits for, should the child be killed before it calls.
            draft = Path(folder) / f".{child}.pid"
            draft.write_text(str(child), encoding="ascii")
            draft.replace(Path(folder) / f"{engine.partition('=')[0]}.pid")
    _serve(engines[0], Path(folder), address, key)


def _import_all() -> None:
    """Imports what takes seconds, once for all engines: exporting a tiny network needs it too."""
    with torch.no_grad():
        torch.export.export(nn.Identity(), (torch.zeros(1),))


def _serve(entry: str, folder: Path, address: str, key: bytes) -> None:
    engine, _, place = entry.partition("=")
    # What libraries print goes to a file, whose last line says why, should the process end by itself.
    log = os.open(folder / f"{engine}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    connection = Client(address, authkey=key)
    connection.send_bytes(json.dumps({"engine": engine, "process": os.getpid()}).encode())
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(connection, requests), daemon=True).start()
    worker: Worker | None = None
    while True:
        request = json.loads(requests.get())
        try:
            worker = worker or Worker(engine, place, folder)
            answer = worker.answer(request.pop("do"), request)
        except Exception as error:  # Whatever a library raises becomes a note.
            answer = {"failed": f"{type(error).__name__}: {_first_line(error)}"}
        connection.send_bytes(json.dumps(answer).encode())


def _listen(connection: Connection, requests: queue.Queue[bytes]) -> None:
    """Hands requests on; when the one that asks is gone, ends the process, whatever it is doing."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]


if __name__ == "__main__":
    main()
