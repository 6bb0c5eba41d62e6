"""From measured numbers to a verdict on a claim.

A claim about training is decided by an interval over seeds, never by a mean: it "holds" only where the
whole 95 % interval of the effect lies beyond no effect, on the side that the claim says.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import statistics
from collections.abc import Iterable, Sequence

LEVEL = 0.95


class Verdict(enum.StrEnum):
    """What a study says about its claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "no evidence at this budget"


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with the range that holds the true one in 95 of 100 repetitions.

    Attributes:
        mean: of the values.
        low: lower end.
        high: upper end.
        count: values it rests on.
    """

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """The mean and the ends, for a reader."""
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


def interval(values: Sequence[float]) -> Interval | None:
    """Student's 95 % interval of the mean, or None from fewer than two values.

    Raises:
        ValueError: a value is infinite or not a number.

    Source: Student 1908, "The probable error of a mean".
    """
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval needs finite values; received {list(values)}")
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # Imported late: most commands need no statistics.

    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = float(stdtrit(len(values) - 1, 0.5 + LEVEL / 2.0)) * error
    return Interval(mean, mean - reach, mean + reach, len(values))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """A difference that the claim says is positive, measured once for each seed.

    Attributes:
        name: what is compared, for example "test error, plain-56 minus plain-20".
        values: the difference for each seed; pair the seeds where both sides were trained on each.
        unit: "points", "x", "s" and so on.
        least: the smallest difference that counts as an effect.
        published: what the source printed, for the reader.
        decides: the verdict rests on it; else it is only reported.
    """

    name: str
    values: tuple[float, ...]
    unit: str
    least: float = 0.0
    published: str = ""
    decides: bool = True

    @property
    def interval(self) -> Interval | None:
        """Of the mean difference; None from a single seed."""
        return interval(self.values)

    @property
    def size(self) -> float | None:
        """Cohen's d of the paired differences: mean over standard deviation; None where it has none."""
        spread = statistics.stdev(self.values) if len(self.values) > 1 else 0.0
        return statistics.fmean(self.values) / spread if spread > 0.0 else None

    @property
    def verdict(self) -> Verdict:
        """Holds if the whole interval lies above `least`, fails if it lies below, else is open."""
        found = self.interval
        if found is None:
            return Verdict.OPEN
        if found.low > self.least:
            return Verdict.HOLDS
        return Verdict.FAILS if found.high < self.least else Verdict.OPEN


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """A number that is computed, not sampled, beside what the claim says it is.

    Attributes:
        name: what was computed.
        value: the result.
        claimed: what the source says.
        tolerance: largest difference, as a share of `claimed`, at which both are the same.
        unit: of both.
        note: why they differ, where they do.
        decides: the verdict rests on it.
    """

    name: str
    value: float
    claimed: float
    tolerance: float = 0.0
    unit: str = ""
    note: str = ""
    decides: bool = True

    @property
    def verdict(self) -> Verdict:
        """Holds if the value lies within the tolerance."""
        near = abs(self.value - self.claimed) <= self.tolerance * abs(self.claimed)
        return Verdict.HOLDS if near else Verdict.FAILS


def conclude(findings: Iterable[Effect | Fact]) -> Verdict:
    """The verdict on the claim as a whole: it holds only if everything it says holds.

    Raises:
        ValueError: nothing decides.
    """
    verdicts = [finding.verdict for finding in findings if finding.decides]
    if not verdicts:
        raise ValueError("a study must have at least one finding that decides")
    for answer in (Verdict.FAILS, Verdict.OPEN):
        if answer in verdicts:
            return answer
    return Verdict.HOLDS
