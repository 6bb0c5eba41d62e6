"""How long a candidate takes: the roofline of its rows, brought to what was measured on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convatlas._version import __version__
from convatlas.engines import ENGINES
from convatlas.engines.backend import versions
from convatlas.engines.cache import PACKAGES, machine
from convatlas.engines.request import EAGER
from convatlas.errors import unknown
from convatlas.files import cache_folder, write_json
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, WIDTH, Base
from convatlas.sizing.roofline import Profile, calibrate, find_profile, row_seconds

if TYPE_CHECKING:
    from convatlas.sizing import Sheet

AUTO = "auto"
QUICK = 0.01
"""Seconds for each measurement of a machine that `convatlas bench` has not measured."""
REACH = 0.7
"""How far a measurement speaks for others: the logarithm of a cost ratio at which its weight is 0.6."""
NEAR, NO_RESIDUAL = 0.15, 0.2
"""How far what a measurement is off the line speaks for others; weight of being on the line."""


def check_engine(name: str) -> None:
    """Refuses what is neither "auto" nor an engine.

    Raises:
        UnknownNameError: there is no such engine.
    """
    known = (AUTO, EAGER, *ENGINES)
    if name not in known:
        raise unknown("engine", name, known, f"engines are {', '.join(known)}")


@dataclasses.dataclass(frozen=True)
class Timed:
    """A measured candidate.

    Attributes:
        network: name of its base.
        overrides: other fields of its config, as text.
        candidate: its multipliers and input size.
        batch_size: B.
        threads: that worked on a batch.
        engine: that it ran on.
        auto: whether that engine was the fastest of all.
        seconds: median of a batch.
    """

    network: str
    overrides: str
    candidate: Candidate
    batch_size: int
    threads: int
    engine: str
    auto: bool
    seconds: float


class LatencyModel:
    """Seconds of a batch, predicted from what was measured here.

    Args:
        base: the network that is scaled.
        model: its exact costs.
        batch_size: B.
        engine: that latency is for; "auto" for the fastest, which the first measurement finds.
        threads: that work on a batch; None for `torch.get_num_threads()`.

    Attributes:
        engine: the engine; "auto" until one is known.
    """

    def __init__(
        self, base: Base, model: CostModel, batch_size: int, engine: str, threads: int | None
    ) -> None:
        self.base = base
        self.model = model
        self.batch_size = batch_size
        self.threads = threads or torch.get_num_threads()
        self.engine = engine
        self._known: list[Timed] | None = None
        self._predictions: dict[Candidate, float] = {}

    @property
    def measured(self) -> dict[Candidate, float]:
        """Seconds of the candidates of this network that were measured on this engine."""
        own = (each for each in self._fitting() if self._is_own(each))
        return {each.candidate: each.seconds for each in own}

    def of(self, base: Base, model: CostModel) -> LatencyModel:
        """The same for another base network."""
        return LatencyModel(base, model, self.batch_size, self.engine, self.threads)

    def settle_engine(self) -> None:
        """Takes the engine that was the fastest when this network was measured here before, if it was."""
        if self.engine == AUTO:
            found = [each for each in self._all() if each.auto and self._same_question(each)]
            if found:
                self.engine = found[-1].engine

    def add(self, candidate: Candidate, seconds: float, engine: str) -> None:
        """Takes in a measurement, and keeps it for later calls on this machine."""
        auto = self.engine == AUTO
        self.engine = engine
        found = Timed(
            self.base.network,
            self._overrides,
            candidate,
            self.batch_size,
            self.threads,
            engine,
            auto,
            seconds,
        )
        self._known = [each for each in self._all() if not _same(each, found)] + [found]
        self._predictions.clear()
        keep(found)

    def predict(self, candidate: Candidate) -> float:
        """Seconds of a batch: as measured, else the roofline times what measurements nearby were off by."""
        known = self.measured.get(candidate)
        if known is not None:
            return known
        if candidate not in self._predictions:
            self._predictions[candidate] = self._fit(candidate)
        return self._predictions[candidate]

    def prior(self, candidate: Candidate) -> float:
        """Seconds of a batch by the roofline alone."""
        return self.model.spread(candidate, self.batch_size, _row_seconds)

    def _fit(self, candidate: Candidate) -> float:
        """The roofline, brought to the measurements: a straight line, then what is off near the candidate."""
        prior, place = self.prior(candidate), self._place(candidate)
        known = [
            (self.prior(each), seconds, math.dist(place, self._place(each)))
            for each, seconds in self.measured.items()
        ]
        if not known:
            return prior * self._ratio_of_others()
        least, slope = fit_line(
            [(p, t, (1e-3 + math.exp(-0.5 * (far / REACH) ** 2)) / t**2) for p, t, far in known]
        )
        total, weights = 0.0, NO_RESIDUAL
        for p, t, far in known:
            weight = math.exp(-0.5 * (far / NEAR) ** 2)
            total, weights = total + weight * math.log(t / (least + slope * p)), weights + weight
        return (least + slope * prior) * math.exp(total / weights)

    def _ratio_of_others(self) -> float:
        """Measured by roofline, over what was measured of other networks; 1 where nothing was."""
        logs = [
            math.log(each.seconds / prior)
            for each in self._fitting()
            if (prior := _prior_of(each)) is not None
        ]
        return math.exp(sum(logs) / len(logs)) if logs else 1.0

    def _place(self, candidate: Candidate) -> tuple[float, float, float]:
        return (
            math.log(candidate.depth_mult / self.base.knob(DEPTH)),
            2 * math.log(candidate.width_mult / self.base.knob(WIDTH)),
            2 * math.log(candidate.input_size / self.base.input_size),
        )

    def _all(self) -> list[Timed]:
        if self._known is None:
            self._known = read_kept()
        return self._known

    def _fitting(self) -> list[Timed]:
        return [
            each
            for each in self._all()
            if each.engine == self.engine
            and each.threads == self.threads
            and each.batch_size == self.batch_size
        ]

    def _same_question(self, each: Timed) -> bool:
        return self._is_own(each) and each.threads == self.threads and each.batch_size == self.batch_size

    def _is_own(self, each: Timed) -> bool:
        return each.network == self.base.network and each.overrides == self._overrides

    @functools.cached_property
    def _overrides(self) -> str:
        return json.dumps(dict(self.base.overrides), sort_keys=True, default=str)


def fit_line(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Start and slope of the line through (prior, seconds, weight), by least squares.

    Where the points do not tell a rising line from above 0, the line through 0 that fits best.
    """
    total = sum(weight for _, _, weight in points)
    prior = sum(p * weight for p, _, weight in points) / total
    seconds = sum(t * weight for _, t, weight in points) / total
    spread = sum(weight * (p - prior) ** 2 for p, _, weight in points) / total
    if spread > (0.03 * prior) ** 2:
        slope = sum(weight * (p - prior) * (t - seconds) for p, t, weight in points) / total / spread
        start = seconds - slope * prior
        # Outside of these, two disturbed measurements would make nonsense of all others.
        if start >= 0 and slope > 0:
            return start, slope
    return 0.0, seconds / prior


def _same(first: Timed, second: Timed) -> bool:
    return dataclasses.replace(first, seconds=0.0, auto=False) == dataclasses.replace(
        second, seconds=0.0, auto=False
    )


@functools.cache
def _profile(threads: int) -> Profile:
    """What this machine does, as `convatlas bench` measured it, else measured quickly now."""
    return find_profile() or calibrate(seconds=QUICK)


def _row_seconds(sheet: Sheet) -> tuple[float, ...]:
    return row_seconds(sheet, _profile(torch.get_num_threads()))


@functools.cache
def _prior_of(timed: Timed) -> float | None:
    """The roofline of what was measured of another network; None where it is no longer what it was."""
    from convatlas.scaling.families import open_base

    try:
        base = open_base(timed.network, json.loads(timed.overrides))
        return CostModel(base).spread(timed.candidate, timed.batch_size, _row_seconds)
    except ValueError:
        return None


# Keeping


def home() -> Path:
    """The file of what was measured on this machine with these versions."""
    parts: list[Any] = [machine("cpu"), __version__, versions(*PACKAGES)]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "scaling" / f"{key}.json"


def read_kept() -> list[Timed]:
    """What was measured before; nothing where the file is missing or damaged."""
    try:
        rows = json.loads(home().read_text(encoding="utf-8"))
        return [_read_timed(row) for row in rows]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _read_timed(row: dict[str, Any]) -> Timed:
    fields: dict[str, Any] = {**row, "candidate": Candidate(*row["candidate"])}
    return Timed(**fields)


def keep(timed: Timed) -> None:
    """Remembers a measurement in place of an older one, where the folder can be written to."""
    rows = [each for each in read_kept() if not _same(each, timed)] + [timed]
    with contextlib.suppress(OSError):
        home().parent.mkdir(parents=True, exist_ok=True)
        write_json(home(), [dataclasses.asdict(each) for each in rows])
