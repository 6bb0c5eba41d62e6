"""Estimates, intervals and p-values: paired over seeds, and over seeds and test images together.

Trained networks vary with the seed, and an error rate with the images that it is counted on. For a table of
differences d(s, i), a row for each seed and a column for each test image, the model is

    d(s, i) = mu + a(s) + b(i) + e(s, i)

with independent effects of seeds, of images and of both. The variance of the mean is estimated from the mean
squares of the two-way layout (Searle, Casella and McCulloch 1992, "Variance Components", Section 4.3), none
below 0, with Satterthwaite's degrees of freedom (1946). A bootstrap that resamples rows and columns counts e
three times (Owen 2007, "The pigeonhole bootstrap") and has too few seeds to resample.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with a range that holds the true one in 95 of 100 repetitions.

    Attributes:
        mean: estimate.
        low: lower end.
        high: upper end.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """The mean and the ends, for a reader."""
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean, how exactly it is known, and what it rests on.

    Attributes:
        mean: over all values.
        error: standard error of the mean.
        freedom: degrees of freedom of the error.
        count: independent values: seeds, or fresh processes.
        images: test images of each seed; 0 where there are none.
    """

    mean: float
    error: float
    freedom: float
    count: int
    images: int = 0

    def interval(self, level: float = LEVEL) -> Interval:
        """The two-sided interval of Student's distribution."""
        from scipy.special import stdtrit  # Imported late: most commands need no statistics.

        reach = float(stdtrit(self.freedom, 0.5 + level / 2.0)) * self.error
        return Interval(self.mean, self.mean - reach, self.mean + reach)

    def p_above(self, bound: float) -> float:
        """One-sided p-value against a true mean of at most `bound`."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, (bound - self.mean) / self.error))

    def p_below(self, bound: float) -> float:
        """One-sided p-value against a true mean of at least `bound`."""
        from scipy.special import stdtr

        return float(stdtr(self.freedom, (self.mean - bound) / self.error))


def estimate(values: Sequence[float] | NDArray[Any]) -> Estimate | None:
    """The mean of values, one for each seed (S,), or one for each seed and test image (S, I).

    Returns:
        The estimate; None from fewer than two seeds, and from values that do not vary, which are no sample.

    Raises:
        ValueError: if a value is infinite or NaN, or the table has no image or more than two dimensions.

    Source: Student 1908 for (S,); the module's docstring for (S, I).
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim not in (1, 2) or (table.ndim == 2 and table.shape[1] == 0):
        raise ValueError(f"`values` has the shape {table.shape}; expected (seeds,) or (seeds, images)")
    if not np.isfinite(table).all():
        raise ValueError(
            f"an interval needs finite values; received {table.tolist() if table.ndim == 1 else 'NaN'}"
        )
    if len(table) < 2:
        return None
    found = _student(table) if table.ndim == 1 or table.shape[1] == 1 else _crossed(table)
    return found if found.error > 0.0 else None


def _student(values: Array) -> Estimate:
    flat = values.reshape(len(values))
    spread = float(flat.std(ddof=1))
    still = spread <= 1e-12 * max(1e-300, float(np.abs(flat).max()))
    error = 0.0 if still else spread / math.sqrt(len(flat))
    return Estimate(float(flat.mean()), error, len(flat) - 1, len(flat))


def _crossed(table: Array) -> Estimate:
    seeds, images = table.shape
    mean = float(table.mean())
    rows, columns = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    by_seed = images * float(((rows - mean) ** 2).sum()) / (seeds - 1)
    by_image = seeds * float(((columns - mean) ** 2).sum()) / (images - 1)
    freedom = (seeds - 1) * (images - 1)
    rest = float(((table - rows - columns + mean) ** 2).sum()) / freedom
    by_seed, by_image = max(by_seed, rest), max(by_image, rest)
    variance = by_seed + by_image - rest  # Times the number of values.
    if variance <= 1e-24 * max(1e-300, float(np.abs(table).max()) ** 2):
        return Estimate(mean, 0.0, seeds - 1, seeds, images)
    parts = by_seed**2 / (seeds - 1) + by_image**2 / (images - 1) + rest**2 / freedom
    return Estimate(mean, math.sqrt(variance / table.size), variance**2 / parts, seeds, images)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several: Holm's step-down method.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
