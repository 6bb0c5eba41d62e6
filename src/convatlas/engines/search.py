"""Tries engines on a network: builds them in processes of their own, checks them, times them in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.engines import ENGINES, find_engine
from convatlas.engines.agreement import Agreement
from convatlas.engines.backend import PRECISIONS, BackendConfig, BatchFn, EngineError, Job, Precision
from convatlas.engines.engine import EngineResult
from convatlas.engines.mixed import LayerCost
from convatlas.engines.quiet import quiet
from convatlas.engines.request import EAGER, EngineRequest, Inputs
from convatlas.engines.timing import (
    RESOLUTION,
    all_calls,
    interleaved_timing,
    measure_undisturbed,
    median,
    typical_ratio,
)
from convatlas.engines.worker import LONG, estimate_latency, seconds
from convatlas.engines.worker_pool import WorkerHandle, WorkerPool

RACE_SECONDS = 6.0
# Who needs this many times the time of the fastest, in a first look, is not raced; where calls are long, nor
# are other settings of that engine and precision looked at.
FAR_BEHIND = 1.5
# Where calls are long, settings of one engine and precision that are tried: the others are about as fast.
ENOUGH = 2
# Calls of the network itself that take about as long as what follows building.
CALLS_TO_COME = 12

Built = tuple[list[BackendConfig], list[tuple[BackendConfig | None, str]]]
"""Settings that are ready, and notes on what failed."""
Key = tuple[WorkerHandle | None, BackendConfig]
"""An attempt, or None for the network itself, and its setting."""


def try_engines(
    request: EngineRequest,
    inputs: Inputs,
    expected: Tensor,
    once: float | None,
    net: nn.Module,
    eager: BatchFn,
    folder: Path,
    time_limit: float,
    rounding: Callable[[], float],
) -> list[EngineResult]:
    """Tries every engine that is asked for.

    Args:
        request: what is asked.
        inputs: images to try on.
        expected: the network's own logits on `inputs.check`.
        once: seconds that a call took for these; None where that is not known.
        net: in evaluation mode.
        eager: runs it.
        folder: an empty one; what engine NAME was built into is left in its folder NAME.
        time_limit: seconds for building; the slow ones have two thirds, less what the calls after it need.
        rounding: gives the error of the network's own logits.

    Returns:
        Those that may be used, fast to slow, the raced before those that only had a first look, with the
        simplest of those that are about as fast as the fastest at the front; then the dropped ones with their
        notes.
    """
    dropped: list[EngineResult] = []
    begin = time.monotonic()
    images = inputs.example.to(request.job.device)
    look = estimate_latency(eager, images, once)
    deadline, slow_deadline = begin + time_limit, begin + time_limit * 2 / 3 - CALLS_TO_COME * look
    installed: list[str] = []
    for name in request.engines:
        try:
            if name != EAGER:
                find_engine(name).require()
                installed.append(name)
        except EngineError as error:
            dropped.append(EngineResult(name, note=str(error)))
    with WorkerPool(installed, folder) as pool:
        ready: dict[Key, EngineResult] = {}
        # While the processes import what they need.
        note = _export(net, inputs, expected, request.job, folder) if installed else ""
        if note:
            dropped += [EngineResult(name, note=note) for name in installed]
        deadlines = {each: slow_deadline if _is_slow(each) else deadline for each in pool.attempts}
        for attempt, found in _built({} if note else deadlines, dropped):
            fastest = min((_seconds(result) for result in ready.values()), default=float("inf"))
            ready |= _checked(attempt, found, request, inputs, rounding, fastest, dropped)
        if EAGER in request.engines:
            ready[None, BackendConfig()] = EngineResult(EAGER, BackendConfig(), look, 0.0, 1.0)
        timed = _raced(ready, partial(_time_here, eager, images), dropped)
    return [*timed, *dropped]


def _export(net: nn.Module, inputs: Inputs, expected: Tensor, job: Job, folder: Path) -> str:
    """Writes what engines are built from into the job's folder; returns why it cannot, or ""."""
    job.write(folder)
    arrays = {"example": inputs.example, "check": inputs.check, "expected": expected}
    if inputs.calibration is not None:
        arrays["calibration"] = inputs.calibration
    for name, value in arrays.items():
        np.save(folder / f"{name}.npy", value.contiguous().numpy())
    example = inputs.example.to(job.device)
    with quiet(), torch.no_grad():
        try:
            _save(torch.export.export(net, (example,)), folder / "net.pt2")
        except OSError:
            raise
        except Exception as error:  # Any error of a foreign network's own Python may come up here.
            reason = " ".join(str(error).split())[:200]
            return f"the network could not be exported ({type(error).__name__}: {reason})"
        if job.shape[0] > 1:
            sizes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
            # A network that computes with the batch size is one network for each size.
            with contextlib.suppress(Exception):
                program = torch.export.export(net, (example,), dynamic_shapes=sizes)
                _save(program, folder / "dynamic.pt2")
    return ""


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes an exported network by way of memory: torch ends the process where the disk is full."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getbuffer())


def _built(
    deadlines: Mapping[WorkerHandle, float], dropped: list[EngineResult]
) -> Iterator[tuple[WorkerHandle, list[BackendConfig]]]:
    """Builds all engines at a time, and hands out each with its settings when every one is done.

    Where there are fewer cores than engines, the slow ones wait for the others, so that these are not late.
    """
    if not deadlines:
        return
    with ThreadPoolExecutor(len(deadlines)) as pool:
        has_cores = (os.cpu_count() or 1) >= len(deadlines)
        futures: dict[WorkerHandle, Future[Built]] = {}
        for attempt in sorted(deadlines, key=_is_slow):
            if _is_slow(attempt) and not has_cores:
                wait(futures.values())
            futures[attempt] = pool.submit(_build, attempt, deadlines[attempt])
    for attempt in deadlines:
        configs, notes = futures[attempt].result()
        dropped += [EngineResult(attempt.engine, config, note=note) for config, note in notes]
        if configs:
            yield attempt, configs


def _is_slow(attempt: WorkerHandle) -> bool:
    return find_engine(attempt.engine).is_slow


def _build(attempt: WorkerHandle, deadline: float) -> Built:
    """Builds one engine in each of its precisions; returns settings, and notes on what failed."""
    configs: list[BackendConfig] = []
    notes: list[tuple[BackendConfig | None, str]] = []
    try:
        precisions = attempt.ask("precisions", deadline)["precisions"]
    except EngineError as error:
        return [], [(None, str(error))]
    for precision in precisions:
        try:
            found = attempt.ask("build", deadline, precision=precision)["configs"]
            configs += [BackendConfig(**entry) for entry in found]
        except EngineError as error:
            notes.append((BackendConfig(precision), str(error)))
    return configs, notes


def _checked(
    attempt: WorkerHandle,
    configs: list[BackendConfig],
    request: EngineRequest,
    inputs: Inputs,
    rounding: Callable[[], float],
    fastest: float,
    dropped: list[EngineResult],
) -> dict[Key, EngineResult]:
    """Opens an engine in each setting and compares its logits; keeps who agrees, with a first look at it.

    `fastest` is the time of the fastest engine that was looked at before.
    """
    passed: dict[Key, EngineResult] = {}
    long: Counter[Precision] = Counter()
    for config in configs:
        if long[config.precision] >= ENOUGH:
            continue
        try:
            answer = attempt.ask("check", time.monotonic() + 60 + 2 * len(inputs.check), config=config)
        except EngineError as error:
            dropped.append(EngineResult(attempt.engine, config, note=str(error)))
            continue
        look = answer.pop("seconds")
        layers = tuple(LayerCost(**entry) for entry in answer.pop("layers", ()))
        if look > LONG:
            long[config.precision] += ENOUGH if look > FAR_BEHIND * fastest else 1
        found = Agreement(**answer)
        refusal = request.refusal(found, config.precision, inputs.are_real, rounding)
        result = EngineResult(attempt.engine, config, look, found.error, found.same_top, refusal, layers)
        if refusal:
            dropped.append(result)
        else:
            passed[attempt, config] = result
    return passed


def _raced(
    ready: Mapping[Key, EngineResult], time_eager: Callable[[int], list[float]], dropped: list[EngineResult]
) -> list[EngineResult]:
    """Times who is left, sorted as `try_engines` says."""
    results = dict(ready)
    order = sorted(results, key=lambda key: _seconds(results[key]))
    fastest = _seconds(results[order[0]]) if order else 0.0
    entrants: dict[Key, Callable[[int], list[float]]] = {}
    engines: set[str] = set()
    for key in order:
        result, (attempt, config) = results[key], key
        # Where calls are long, one setting of each engine is enough: the others are about as fast.
        is_one_more = fastest > LONG and result.engine in engines
        if _seconds(result) <= FAR_BEHIND * fastest and not is_one_more:
            engines.add(result.engine)
            entrants[key] = time_eager if attempt is None else partial(_time_there, attempt, config)
        elif attempt is not None:
            _close(attempt, config)
    if len(entrants) < 2:
        return sorted(results.values(), key=_seconds)
    rounds = interleaved_timing(
        entrants, {key: _seconds(results[key]) for key in entrants}, limit=RACE_SECONDS
    )
    raced: list[Key] = []
    for key in entrants:
        if rounds[key]:
            results[key] = dataclasses.replace(results[key], seconds=median(all_calls(rounds[key])))
            raced.append(key)
        else:
            gone = dataclasses.replace(
                results.pop(key), seconds=None, note="stopped answering while it was timed"
            )
            dropped.append(gone)
    order = _ranked(raced, results, rounds)
    others = [key for key in results if key not in order]
    return [results[key] for key in (*order, *sorted(others, key=lambda key: _seconds(results[key])))]


def _ranked(
    raced: Sequence[Key], results: Mapping[Key, EngineResult], rounds: Mapping[Key, list[list[float]]]
) -> list[Key]:
    """From fast to slow, but first the simplest of those that are about as fast as the fastest."""
    order = sorted(raced, key=lambda key: _seconds(results[key]))
    tied = [key for key in order if typical_ratio(rounds[key], rounds[order[0]]) <= 1 + RESOLUTION]
    first = min(tied, key=lambda key: complexity(results[key]), default=None)
    return order if first is None else [first, *(key for key in order if key != first)]


def complexity(result: EngineResult) -> tuple[int, ...]:
    """Smaller for engines that have less to build and that may go wrong, and for plainer settings of one."""
    config = result.config or BackendConfig()
    names = (EAGER, *ENGINES)
    place = names.index(result.engine) if result.engine in names else len(names)
    return (PRECISIONS.index(config.precision), place, config.at_once, config.graph)


def _seconds(result: EngineResult) -> float:
    return result.seconds or 0.0


def _time_here(batch_fn: BatchFn, images: Tensor, calls: int) -> list[float]:
    return measure_undisturbed(lambda: [seconds(batch_fn, images) for _ in range(calls)])


def _time_there(attempt: WorkerHandle, config: BackendConfig, calls: int) -> list[float]:
    def ask() -> list[float]:
        return attempt.ask("time", time.monotonic() + 120, config=config, calls=calls)["seconds"]

    try:
        return measure_undisturbed(ask)
    except EngineError:
        return []


def _close(attempt: WorkerHandle, config: BackendConfig) -> None:
    with contextlib.suppress(EngineError):
        attempt.ask("close", time.monotonic() + 10, config=config)
