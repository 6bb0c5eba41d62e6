"""Running studies: one, or all of them side by side."""

from __future__ import annotations

import importlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from convatlas.progress import is_shown
from convatlas.runs.run import machine, versions
from convatlas.studies.context import StudyContext
from convatlas.studies.index import CLAIMS
from convatlas.studies.ledger import note, read_ledger
from convatlas.studies.protocol import Plan, begin, is_frozen, make_plan
from convatlas.studies.report import write_page, write_study
from convatlas.studies.study import Study, find_study
from convatlas.studies.verdict import Judgement


def run_study(
    name: str,
    *,
    preset: str = "quick",
    repeat: int = 0,
    pilot: bool = False,
    out: str | Path = "studies",
    log: Callable[[str], None] | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> tuple[Path, dict[str, Any]]:
    """Runs a study and writes its report.

    The protocol is written down before the first training. A knob that is turned makes a pilot, which uses
    seeds of its own and is noted in the study's ledger like every run.

    Args:
        name: of the study.
        preset: "quick", "standard" or "full".
        repeat: number of a repetition of the frozen protocol, on other seeds; 0 for the first.
        pilot: use a pilot's seeds although no knob is turned.
        out: folder for the trainings (`runs`) and the reports.
        log: is told a line for each training.
        progress: whether to tell it; None for where standard error is a terminal, in a notebook, and where
            `log` is given.
        settings: knobs to turn.

    Returns:
        The folder of the report, and the record that `study.json` holds.

    Raises:
        UnknownNameError: if there is no such study, preset or knob; names the nearest.
        ValueError: if a value is out of its range, or the stored runs were made by another protocol.
    """
    is_told = is_shown(progress) if log is None or progress is not None else True
    told = (log or print) if is_told else _ignore
    folder, record, _ = run_and_judge(
        name, preset=preset, repeat=repeat, pilot=pilot, out=out, log=told, settings=settings
    )
    return folder, record


def run_and_judge(
    name: str,
    *,
    preset: str = "quick",
    repeat: int = 0,
    pilot: bool = False,
    out: str | Path = "studies",
    log: Callable[[str], None] = lambda text: None,
    settings: Mapping[str, Any],
) -> tuple[Path, dict[str, Any], Judgement]:
    """As `run_study`, with the judgement; knobs to turn are a mapping."""
    study: Study[Any] = find_study(name)
    plan = make_plan(study, preset, settings, repeat=repeat, pilot=pilot)
    shelf = Path(out) / name
    folder = shelf / plan.folder
    begin(folder, plan)
    note(shelf, plan)
    started = time.perf_counter()
    ctx = StudyContext(knobs=plan.knobs, runs=Path(out) / "runs", log=log)
    outcome = study.run(ctx)
    judgement = study.judge(outcome, _objections(study, plan))
    facts = {
        "command": _command(name, plan),
        "seconds": round(time.perf_counter() - started + sum(ctx.reused), 1),
        "machine": machine(torch.get_num_threads()),
        "versions": versions(),
        "trainings": list(dict.fromkeys(ctx.used)),
    }
    record = write_study(folder, study, plan, outcome, judgement, facts)
    note(shelf, plan, judgement.verdict.value)
    write_page(folder, study, plan, outcome, judgement, record, read_ledger(shelf))
    return folder, record, judgement


def _objections(study: Study[Any], plan: Plan) -> tuple[str, ...]:
    """Why the protocol itself allows no verdict."""
    if plan.kind == "pilot" or is_frozen(study, plan.preset, plan.digest):
        return ()
    return (
        f"protocol {plan.digest} is not the one that was frozen for version {study.version} of {study.name}",
    )


def _command(name: str, plan: Plan) -> str:
    parts = ["convatlas", "study", "run", name, "--preset", plan.preset]
    if plan.repeat:
        parts += ["--repeat", str(plan.repeat)]
    if plan.kind == "pilot" and not plan.turned:
        parts.append("--pilot")
    turned = [shlex.quote(f"{key}={json.dumps(value)}") for key, value in plan.turned.items()]
    return " ".join([*parts, *(f"--set {item}" for item in turned)])


def run_all(
    names: Sequence[str] | None = None,
    *,
    preset: str = "quick",
    repeat: int = 0,
    out: str | Path = "studies",
    workers: int = 1,
    cluster: str | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, str]:
    """Runs studies side by side, each in a process of its own; they share finished trainings.

    Args:
        names: of the studies; None for all.
        preset: "quick", "standard" or "full".
        repeat: number of a repetition on other seeds; 0 for the first.
        out: folder for the trainings and the reports; with several machines one that all of them see.
        workers: studies at a time.
        cluster: "ray" to run them on a Ray cluster; None for processes of this machine.
        log: is told a line when a study ends.

    Returns:
        By study: its verdict, or why it ended without one.

    Raises:
        UnknownNameError: if there is no such study or preset.
        ValueError: if `workers` is below 1, or the cluster is unknown or not installed.
    """
    chosen = list(CLAIMS) if names is None else list(names)
    for name in chosen:
        find_study(name).knobs(preset, {})
    if workers < 1:
        raise ValueError(f"`workers`={workers}; expected at least 1")
    if cluster not in (None, "ray"):
        raise ValueError(f"`cluster`={cluster!r}; expected ray")
    asked = [(name, preset, repeat, str(Path(out).resolve())) for name in chosen]
    results = _on_ray(asked, workers) if cluster else _in_processes(asked, workers)
    found: dict[str, str] = {}
    for name, said in results:
        log(f"{name}: {said}")
        found[name] = said
    return found


Asked = tuple[str, str, int, str]

ENDED = "ended with"
"""How a study that gave no verdict is told of."""


def _run_one(asked: Asked) -> tuple[str, str]:
    """Runs a study in a process of its own; its name, and its verdict or the last line of its error."""
    name, preset, repeat, out = asked
    flags = [name, "--preset", preset, "--repeat", str(repeat), "--out", out]
    done = subprocess.run(
        [sys.executable, "-m", "convatlas", "study", "run", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return name, f"{ENDED} {done.returncode}: {tail[-1] if tail else 'no message'}"
    verdicts = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("verdict: ")]
    return name, verdicts[-1] if verdicts else f"{ENDED} no verdict"


def _in_processes(asked: Sequence[Asked], workers: int) -> Iterator[tuple[str, str]]:
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(_run_one, asked)


def _on_ray(asked: Sequence[Asked], workers: int) -> Iterator[tuple[str, str]]:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ValueError('`cluster`="ray" needs Ray: pip install "convatlas[ray]"') from None
    began = not ray.is_initialized()
    if began:
        ray.init(log_to_driver=False, include_dashboard=False, ignore_reinit_error=True)
    call = ray.remote(_run_one).options(num_cpus=1)
    waiting, busy = list(asked), list[Any]()
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                busy.append(call.remote(waiting.pop(0)))
            ready, busy = ray.wait(busy, num_returns=1)
            yield ray.get(ready[0])
    finally:
        if began:
            ray.shutdown()


def _ignore(text: str) -> None:
    """Tells nobody."""
