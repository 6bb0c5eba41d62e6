"""Tries engines on a network: builds them in processes of their own, checks them, times them in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.engines import find_engine
from convatlas.engines.agreement import Agreement
from convatlas.engines.backend import EngineError, Job, Precision, Runner, Setting, require
from convatlas.engines.engine import Trial
from convatlas.engines.quiet import quiet
from convatlas.engines.request import EAGER, Inputs, Question
from convatlas.engines.timing import calmly, race, typical
from convatlas.engines.worker import LONG, first_look, seconds
from convatlas.engines.worker_pool import Attempt, Group

RACE_SECONDS = 6.0
# Who needs this many times the time of the fastest, in a first look, is not raced; where calls are long, nor
# are other settings of that engine and precision looked at.
FAR_BEHIND = 1.5
# Where calls are long, settings of one engine and precision that are tried: the others are about as fast.
ENOUGH = 2
# Calls of the network itself that take about as long as what follows building.
CALLS_TO_COME = 12

Built = tuple[list[Setting], list[tuple[Setting | None, str]]]
"""Settings that are ready, and notes on what failed."""
Key = tuple[Attempt | None, Setting]
"""An attempt, or None for the network itself, and its setting."""


def try_engines(
    question: Question,
    inputs: Inputs,
    expected: Tensor,
    once: float | None,
    net: nn.Module,
    eager: Runner,
    folder: Path,
    time_limit: float,
    rounding: Callable[[], float],
) -> list[Trial]:
    """Tries every engine that is asked for.

    Args:
        question: what is asked.
        inputs: images to try on.
        expected: the network's own scores on `inputs.check`.
        once: seconds that a call took for these; None where that is not known.
        net: in evaluation mode.
        eager: runs it.
        folder: an empty one; what engine NAME was built into is left in its folder NAME.
        time_limit: seconds for building; the slow ones have two thirds, less what the calls after it need.
        rounding: gives the error of the network's own scores.

    Returns:
        Those that may be used, fast to slow, the raced before those that only had a first look; then the
        dropped ones with their notes.
    """
    dropped: list[Trial] = []
    begin = time.monotonic()
    images = inputs.example.to(question.job.device)
    look = first_look(eager, images, once)
    deadline, slow_deadline = begin + time_limit, begin + time_limit * 2 / 3 - CALLS_TO_COME * look
    installed: list[str] = []
    for name in question.engines:
        try:
            if name != EAGER:
                require(*find_engine(name).packages)
                installed.append(name)
        except EngineError as error:
            dropped.append(Trial(name, note=str(error)))
    with Group(installed, folder) as group:
        ready: dict[Key, Trial] = {}
        # While the processes import what they need.
        note = _export(net, inputs, expected, question.job, folder) if installed else ""
        if note:
            dropped += [Trial(name, note=note) for name in installed]
        deadlines = {each: slow_deadline if _is_slow(each) else deadline for each in group.attempts}
        for attempt, found in _built({} if note else deadlines, dropped):
            fastest = min((_seconds(trial) for trial in ready.values()), default=float("inf"))
            ready |= _checked(attempt, found, question, inputs, rounding, fastest, dropped)
        if EAGER in question.engines:
            ready[None, Setting()] = Trial(EAGER, Setting(), look, 0.0, 1.0)
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
            torch.export.save(torch.export.export(net, (example,)), folder / "net.pt2")
        except Exception as error:  # Any error of a foreign network's own Python may come up here.
            reason = " ".join(str(error).split())[:200]
            return f"the network could not be exported ({type(error).__name__}: {reason})"
        if job.shape[0] > 1:
            sizes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
            # A network that computes with the batch size is one network for each size.
            with contextlib.suppress(Exception):
                program = torch.export.export(net, (example,), dynamic_shapes=sizes)
                torch.export.save(program, folder / "dynamic.pt2")
    return ""


def _built(
    deadlines: Mapping[Attempt, float], dropped: list[Trial]
) -> Iterator[tuple[Attempt, list[Setting]]]:
    """Builds all engines at a time, and hands out each with its settings when every one is done.

    Where there are fewer cores than engines, the slow ones wait for the others, so that these are not late.
    """
    if not deadlines:
        return
    with ThreadPoolExecutor(len(deadlines)) as pool:
        has_cores = (os.cpu_count() or 1) >= len(deadlines)
        futures: dict[Attempt, Future[Built]] = {}
        for attempt in sorted(deadlines, key=_is_slow):
            if _is_slow(attempt) and not has_cores:
                wait(futures.values())
            futures[attempt] = pool.submit(_build, attempt, deadlines[attempt])
    for attempt in deadlines:
        settings, notes = futures[attempt].result()
        dropped += [Trial(attempt.engine, setting, note=note) for setting, note in notes]
        if settings:
            yield attempt, settings


def _is_slow(attempt: Attempt) -> bool:
    return find_engine(attempt.engine).is_slow


def _build(attempt: Attempt, deadline: float) -> Built:
    """Builds one engine in each of its precisions; returns settings, and notes on what failed."""
    settings: list[Setting] = []
    notes: list[tuple[Setting | None, str]] = []
    try:
        precisions = attempt.ask("precisions", deadline)["precisions"]
    except EngineError as error:
        return [], [(None, str(error))]
    for precision in precisions:
        try:
            found = attempt.ask("build", deadline, precision=precision)["settings"]
            settings += [Setting(**entry) for entry in found]
        except EngineError as error:
            notes.append((Setting(precision), str(error)))
    return settings, notes


def _checked(
    attempt: Attempt,
    settings: list[Setting],
    question: Question,
    inputs: Inputs,
    rounding: Callable[[], float],
    fastest: float,
    dropped: list[Trial],
) -> dict[Key, Trial]:
    """Opens an engine in each setting and compares its scores; keeps who agrees, with a first look at it.

    `fastest` is the time of the fastest engine that was looked at before.
    """
    passed: dict[Key, Trial] = {}
    long: Counter[Precision] = Counter()
    for setting in settings:
        if long[setting.precision] >= ENOUGH:
            continue
        try:
            answer = attempt.ask("check", time.monotonic() + 60 + 2 * len(inputs.check), setting=setting)
        except EngineError as error:
            dropped.append(Trial(attempt.engine, setting, note=str(error)))
            continue
        look = answer.pop("seconds")
        if look > LONG:
            long[setting.precision] += ENOUGH if look > FAR_BEHIND * fastest else 1
        found = Agreement(**answer)
        refusal = question.refusal(found, setting.precision, inputs.are_real, rounding)
        trial = Trial(attempt.engine, setting, look, found.error, found.same_top, refusal)
        if refusal:
            dropped.append(trial)
        else:
            passed[attempt, setting] = trial
    return passed


def _raced(
    ready: Mapping[Key, Trial], time_eager: Callable[[int], list[float]], dropped: list[Trial]
) -> list[Trial]:
    """Times who is left, sorted as `try_engines` says."""
    trials = dict(ready)
    order = sorted(trials, key=lambda key: _seconds(trials[key]))
    fastest = _seconds(trials[order[0]]) if order else 0.0
    entrants: dict[Key, Callable[[int], list[float]]] = {}
    engines: set[str] = set()
    for key in order:
        trial, (attempt, setting) = trials[key], key
        # Where calls are long, one setting of each engine is enough: the others are about as fast.
        is_one_more = fastest > LONG and trial.engine in engines
        if _seconds(trial) <= FAR_BEHIND * fastest and not is_one_more:
            engines.add(trial.engine)
            entrants[key] = time_eager if attempt is None else partial(_time_there, attempt, setting)
        elif attempt is not None:
            _close(attempt, setting)
    if len(entrants) < 2:
        return sorted(trials.values(), key=_seconds)
    times = race(entrants, {key: _seconds(trials[key]) for key in entrants}, limit=RACE_SECONDS)
    raced: list[Trial] = []
    for key in entrants:
        trial = trials.pop(key)
        if times[key]:
            raced.append(dataclasses.replace(trial, seconds=typical(times[key])))
        else:
            dropped.append(
                dataclasses.replace(trial, seconds=None, note="stopped answering while it was timed")
            )
    return [*sorted(raced, key=_seconds), *sorted(trials.values(), key=_seconds)]


def _seconds(trial: Trial) -> float:
    return trial.seconds or 0.0


def _time_here(runner: Runner, images: Tensor, calls: int) -> list[float]:
    return calmly(lambda: [seconds(runner, images) for _ in range(calls)])


def _time_there(attempt: Attempt, setting: Setting, calls: int) -> list[float]:
    def ask() -> list[float]:
        return attempt.ask("time", time.monotonic() + 120, setting=setting, calls=calls)["seconds"]

    try:
        return calmly(ask)
    except EngineError:
        return []


def _close(attempt: Attempt, setting: Setting) -> None:
    with contextlib.suppress(EngineError):
        attempt.ask("close", time.monotonic() + 10, setting=setting)
