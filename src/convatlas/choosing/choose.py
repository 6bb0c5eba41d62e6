"""Which network to take: those that fit some limits, the most accurate first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from convatlas.benchmark.bench import bench, find_names, read_engines
from convatlas.benchmark.measurement import find_measurement
from convatlas.catalog.accuracy import Accuracy, find_accuracy
from convatlas.catalog.index import Entry, find_entry, short_amount
from convatlas.engines import cache as cache
from convatlas.engines.optimize import optimize, remembered_result
from convatlas.engines.request import EAGER
from convatlas.models.registry import create_model
from convatlas.tables import WIDTH, Grid, grid_text

SECONDS = 0.3
"""To time a candidate that was not measured before."""
AUTO = "auto"
GAIN = 6.0
"""Most times as fast as the network itself that an engine can be expected to be."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is asked of a network; None where all will do.

    Attributes:
        max_latency: most seconds (p50) of a batch.
        max_params: most parameters.
        max_macs: most MACs for one image.
        min_top1: lowest published top-1 accuracy on ImageNet, per cent.
    """

    max_latency: float | None = None
    max_params: float | None = None
    max_macs: float | None = None
    min_top1: float | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("max_latency", "max_params", "max_macs"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}`={value!r}; expected more than 0")
        if self.min_top1 is not None and not 1 <= self.min_top1 <= 100:
            raise ValueError(f"`min_top1`={self.min_top1!r}; expected per cent, from 1 to 100, such as 70")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network that fits.

    Attributes:
        network: name in the registry.
        accuracy: as published.
        params: trainable parameters.
        macs: multiply-adds for one image.
        input_size: C, H, W that all this is for.
        latency: p50 in seconds for a batch on this machine; None where it was not asked for.
        engine: that the latency is for; "" where there is none.
    """

    network: str
    accuracy: Accuracy
    params: int
    macs: int
    input_size: tuple[int, int, int]
    latency: float | None = None
    engine: str = ""


@dataclasses.dataclass(frozen=True)
class Selection:
    """An answer.

    Attributes:
        candidates: networks that fit, the most accurate first; of equals, the one with fewer MACs.
        dropped: the others, by the first reason for which they fell out.
        limits: that were asked for.
        batch_size: B of the latencies.
        engine: of the latencies; "auto" for the fastest of each network, None for that where it pays.
        threads: of the latencies.
    """

    candidates: tuple[Candidate, ...]
    dropped: dict[str, tuple[str, ...]]
    limits: Limits
    batch_size: int
    engine: str | None
    threads: int

    def grid(self) -> Grid:
        """A row for each candidate."""
        rows = [
            (
                each.network,
                each.accuracy.place,
                f"{each.accuracy.top1:.1f}",
                short_amount(each.params),
                short_amount(each.macs),
                str(each.input_size[1]),
                "-" if each.latency is None else f"{each.latency * 1e3:.2f}",
                each.engine or "-",
            )
            for each in self.candidates
        ]
        columns = ("network", "published in", "top-1 %", "params", "MACs", "px", "p50 ms", "engine")
        return Grid(columns, 2, rows, (), [], tail=1, lesser=("published in", "MACs", "px", "params"))

    def record(self) -> dict[str, Any]:
        """Everything as plain values: s, per cent, parameters and MACs."""
        return {
            "candidates": self.candidate_records(),
            "dropped": {reason: list(names) for reason, names in self.dropped.items()},
            "limits": dataclasses.asdict(self.limits),
            "batch_size": self.batch_size,
            "engine": self.engine,
            "threads": self.threads,
        }

    def candidate_records(self) -> list[dict[str, Any]]:
        """Each candidate as plain values."""
        return [
            {
                "network": each.network,
                "published_in": each.accuracy.place,
                "top1": each.accuracy.top1,
                "params": each.params,
                "macs": each.macs,
                "input_size": list(each.input_size),
                "latency": each.latency,
                "engine": each.engine,
            }
            for each in self.candidates
        ]

    def summary(self) -> str:
        """How latencies were measured, and how many networks fell out and why."""
        plural = "" if self.threads == 1 else "s"
        how = (
            f"p50 of a batch of {self.batch_size}, {self.threads} thread{plural}, on this machine\n"
            if any(each.latency is not None for each in self.candidates)
            else ""
        )
        fit = f"{len(self.candidates)} fit" if self.candidates else "no network fits"
        out = [f"{len(names)} {reason}" for reason, names in self.dropped.items()]
        return f"{how}{'; '.join([fit, *out])}\n"

    def text(self, *, width: int = WIDTH, color: bool = False) -> str:
        """A table, and under it the summary."""
        table = grid_text(self.grid(), width=width, color=color) if self.candidates else ""
        return table + self.summary()


def choose(
    names: str | Sequence[str] = "*",
    limits: Limits | None = None,
    *,
    batch_size: int = 1,
    engine: str | None = None,
    threads: int | None = None,
    measure: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Selection:
    """Chooses networks by published accuracy, size and speed on this machine.

    What `bench` and `optimize` measured here with these versions is used. The rest is measured now where
    latency matters, and only those networks that pass all other limits.

    Args:
        names: names, aliases or patterns such as "resnet*".
        limits: that a network must fit.
        batch_size: B of the latency.
        engine: that latencies are for; "auto" for the fastest, by `optimize`, which takes up to a minute for
            a network that it has not seen here. None for what `optimize` remembers, else eager, and "auto"
            where eager is too slow for `max_latency`, but the fastest engine may not be.
        threads: CPU threads of each engine; None for `torch.get_num_threads()`.
        measure: measure all that pass the other limits, even without `max_latency` or if measured before.
        progress: called before a network is measured, with its name, its number and how many there are.

    Raises:
        UnknownNameError: no network has such a name, or there is no such engine.
        ValueError: an argument is out of its range.
    """
    limits = limits or Limits()
    if engine not in (AUTO, None):
        (engine,) = read_engines((engine,))
    if batch_size < 1:
        raise ValueError(f"`batch_size`={batch_size!r}; expected a whole number of at least 1")
    if threads is not None and threads < 1:
        raise ValueError(f"`threads`={threads!r}; expected a whole number of at least 1")
    cores = threads or torch.get_num_threads()
    dropped: dict[str, tuple[str, ...]] = {}
    passed: list[Candidate] = []
    for name in find_names(names):
        entry, accuracy = find_entry(name), find_accuracy(name)
        reason = _cheap_reason(entry, accuracy, limits)
        if accuracy is None or reason:
            dropped[reason] = (*dropped.get(reason, ()), name)
        else:
            passed.append(Candidate(name, accuracy, entry.params, entry.macs, entry.input_size))
    passed.sort(key=lambda each: (-each.accuracy.top1, each.macs))
    fitting: list[Candidate] = []
    for number, candidate in enumerate(passed, 1):
        clock = Clock(candidate.network, candidate.input_size, batch_size, cores, measure)
        timed = clock.known(engine)
        if timed is None and (measure or limits.max_latency is not None):
            if progress is not None:
                progress(candidate.network, number, len(passed))
            timed = clock.measured(engine, limits.max_latency)
        latency, by = timed or (None, "")
        reason = _late_reason(latency, by or engine or EAGER, limits)
        if reason:
            dropped[reason] = (*dropped.get(reason, ()), candidate.network)
        else:
            fitting.append(dataclasses.replace(candidate, latency=latency, engine=by if latency else ""))
    return Selection(tuple(fitting), dropped, limits, batch_size, engine, cores)


Timed = tuple[float | None, str]
"""Seconds of a batch, None where the engine cannot run the network; and the engine."""


@dataclasses.dataclass(frozen=True)
class Clock:
    """Latencies of one network.

    Attributes:
        network: name in the registry.
        input_size: C, H, W.
        batch_size: B.
        threads: that work on a batch.
        anew: whether what was measured before is left alone.
    """

    network: str
    input_size: tuple[int, int, int]
    batch_size: int
    threads: int
    anew: bool

    def known(self, engine: str | None) -> Timed | None:
        """What was measured before, where that answers the question."""
        if self.anew:
            return None
        fastest = self._remembered() if engine in (AUTO, None) else None
        return fastest or (None if engine in (AUTO, None) else self._stored(engine))

    def measured(self, engine: str | None, limit: float | None) -> Timed:
        """The latency, measured now; with no engine named, of the fastest one where only that may fit."""
        if engine == AUTO:
            return self._searched()
        if engine is not None:
            return self._benched(engine)
        timed = (None if self.anew else self._stored(EAGER)) or self._benched(EAGER)
        seconds = timed[0]
        if limit is None or seconds is None or not limit < seconds <= GAIN * limit:
            return timed
        return min(timed, self._searched(), key=lambda each: each[0] or float("inf"))

    def _stored(self, engine: str) -> Timed | None:
        size = self.input_size
        found = find_measurement(self.network, engine, self.batch_size, size, "fp32", self.threads)
        return None if found is None else (found.latency, engine)

    def _benched(self, engine: str) -> Timed:
        (found,) = bench(
            self.network,
            input_size=self.input_size,
            batch_sizes=(self.batch_size,),
            engines=(engine,),
            threads=self.threads,
            seconds=SECONDS,
        )
        return found.latency, engine

    def _remembered(self) -> Timed | None:
        if not cache.home().is_dir():
            return None
        with torch.device("meta"):
            net = create_model(self.network).eval()
        found = remembered_result(net, self.input_size, self.batch_size, self.threads)
        return None if found is None or found.seconds is None else (found.seconds, found.engine)

    def _searched(self) -> Timed:
        net = create_model(self.network).eval()
        size, threads = self.input_size, self.threads
        made = optimize(net, size, self.batch_size, threads=threads, remember=not self.anew)
        return made.report.chosen.seconds, made.name


def _cheap_reason(entry: Entry, accuracy: Accuracy | None, limits: Limits) -> str:
    """Why a network falls out before anything is measured; "" where it does not."""
    if accuracy is None:
        return "without a published ImageNet top-1"
    if limits.min_top1 is not None and accuracy.top1 < limits.min_top1:
        return f"below {limits.min_top1:g} % top-1"
    if limits.max_params is not None and entry.params > limits.max_params:
        return f"above {short_amount(limits.max_params)} parameters"
    if limits.max_macs is not None and entry.macs > limits.max_macs:
        return f"above {short_amount(limits.max_macs)} MACs"
    return ""


def _late_reason(latency: float | None, engine: str, limits: Limits) -> str:
    """Why a measured network falls out; "" where it does not."""
    if limits.max_latency is None:
        return ""
    if latency is None:
        return f"that do not run on {engine}"
    if latency > limits.max_latency:
        return f"slower than {limits.max_latency * 1e3:g} ms"
    return ""


def parse_time(name: str, text: str) -> float:
    """Reads "10ms", "0.01s" or "500us" as seconds.

    Args:
        name: of the argument, for the error.
        text: a number and its unit.

    Raises:
        ValueError: it is no such time.
    """
    for unit, size in (("ms", 1e-3), ("us", 1e-6), ("s", 1.0)):
        number = text.strip().removesuffix(unit).strip()
        if text.strip().endswith(unit) and number.replace(".", "", 1).isdecimal() and number.isascii():
            return float(number) * size
    raise ValueError(f"`{name}`={text!r}; expected a time with its unit, such as 10ms, 0.01s or 500us")
