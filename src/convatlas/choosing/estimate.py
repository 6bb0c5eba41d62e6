"""How good something is on a user's images, as a table shows it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convatlas.catalog.index import short_amount
from convatlas.choosing.choose import Limits
from convatlas.metrics.comparing import Comparison, compare
from convatlas.metrics.error_analysis import interval
from convatlas.metrics.linear_probe import Ints
from convatlas.tables import WIDTH, Grid, grid_text


@dataclasses.dataclass(frozen=True, eq=False)
class DataCandidate:
    """A network with a way to train it, or a baseline.

    Attributes:
        network: name in the registry, folder of a run, or what the baseline does.
        recipe: how it is trained; "" for a baseline.
        baseline: whether it is no network to take, but to be beaten.
        error: estimated share of wrong answers to new images of this kind, in [0, 1].
        interval: of the error, 95 %.
        latency_ms: for one image on this machine, ms; None where it is not known.
        engine: that the latency is of; "" for a baseline.
        params: numbers that are learnt.
        px: a side of the images that it sees; None for as they are.
        seconds: that the estimate took.
        images: that the estimate is of.
        right: for each image, 1 for a right answer, 0 for a wrong one, -1 where there is none, (N,).
    """

    network: str
    recipe: str
    baseline: bool
    error: float
    interval: tuple[float, float]
    latency_ms: float | None
    engine: str
    params: int
    px: int | None
    seconds: float
    images: int
    right: NDArray[np.int8]

    def record(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "network": self.network,
            "recipe": self.recipe or None,
            "baseline": self.baseline,
            "error": self.error,
            "interval": list(self.interval),
            "latency_ms": self.latency_ms,
            "engine": self.engine or None,
            "params": self.params,
            "px": self.px,
            "seconds": round(self.seconds, 2),
            "images": self.images,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class DataSelection:
    """An answer to "which network for these images".

    Attributes:
        candidates: the best first; of equals, the one with fewer parameters.
        comparison: of the first two; None where there is one.
        dropped: networks that were not tried, by the reason.
        command: trains the best network; "" where none fits.
        data: name of the data set.
        images: that estimates are of.
        classes: K.
        seconds: that it took.
        limits: that were asked for.
        notes: what a reader of the figures should know.
    """

    candidates: tuple[DataCandidate, ...]
    comparison: Comparison | None
    dropped: dict[str, tuple[str, ...]]
    command: str
    data: str
    images: int
    classes: int
    seconds: float
    limits: Limits
    notes: tuple[str, ...]

    @property
    def best(self) -> DataCandidate | None:
        """The best network; None where none fits."""
        return next((each for each in self.candidates if not each.baseline), None)

    def record(self) -> list[dict[str, Any]]:
        """The candidates for JSON, the best first."""
        return [each.record() for each in self.candidates]

    def grid(self) -> Grid:
        """A row for each candidate."""
        rows = [
            (
                each.network,
                each.recipe or "baseline",
                f"{each.error:.1%}",
                f"{each.interval[0]:.1%} to {each.interval[1]:.1%}",
                short_amount(each.params),
                "-" if each.px is None else str(each.px),
                "-" if each.latency_ms is None else f"{each.latency_ms:.2f}",
                each.engine or "-",
                f"{each.seconds:.0f}",
            )
            for each in self.candidates
        ]
        columns = ("network", "recipe", "error", "95 % interval", "params", "px", "ms", "engine", "took s")
        return Grid(columns, 2, rows, (), [], lesser=("took s", "px", "engine"))

    def summary(self) -> str:
        """What the table does not say: the comparison, what was not tried, and the command."""
        lines = [
            f"error on new images like the {self.images:,} of {self.data} ({self.classes:,} classes), by "
            f"cross-validation, in {self.seconds:.0f} s; ms for one image on this machine"
        ]
        if self.comparison is not None:
            first, second = (
                f"{each.network} ({each.recipe or 'baseline'})" for each in first_two(self.candidates)
            )
            lines.append(self.comparison.says(first, second))
        lines += self.notes
        lines += [f"not tried: {len(names)} {reason}" for reason, names in self.dropped.items()]
        if self.candidates and self.candidates[0].baseline:
            lines.append(f"a baseline, {self.candidates[0].network}, is better than every network here")
        if self.command:
            lines.append(f"train it:\n  {self.command}")
        else:
            lines.append("no network fits the limits")
        return "\n".join(lines) + "\n"

    def text(self, *, width: int = WIDTH, color: bool = False) -> str:
        """A table, and under it the summary."""
        return grid_text(self.grid(), width=width, color=color) + self.summary()


def rate(right: NDArray[np.int8]) -> tuple[float, tuple[float, float], int]:
    """Error, its 95 % interval, and how many images it is of, from a row of right answers.

    The interval is Wilson's.
    """
    seen = right >= 0
    count, good = int(seen.sum()), int((right == 1).sum())
    low, high = interval(good, count)
    return 1.0 - good / count, (1.0 - high, 1.0 - low), count


def marked(answers: Ints, labels: Ints, rows: Ints | None = None) -> NDArray[np.int8]:
    """A row of right answers; `rows` are those that there are answers for, None for all."""
    right = np.full(len(labels), -1, dtype=np.int8)
    chosen = np.arange(len(labels)) if rows is None else rows
    right[chosen] = (answers == labels[chosen]).astype(np.int8)
    return right


def compare_first(candidates: tuple[DataCandidate, ...]) -> Comparison | None:
    """The first two candidates on the images that both answered; None where there are not two."""
    pair = first_two(candidates)
    if len(pair) < 2:
        return None
    first, second = (each.right for each in pair)
    both = (first >= 0) & (second >= 0)
    return compare(first[both] == 1, second[both] == 1) if both.any() else None


def first_two(candidates: tuple[DataCandidate, ...]) -> tuple[DataCandidate, ...]:
    """The first candidate and the next that is not the same network by another name; fewer without one."""
    others = [each for each in candidates[1:] if each.right is not candidates[0].right]
    return (*candidates[:1], *others[:1])
