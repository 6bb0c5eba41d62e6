"""How good predictions are: by class, and whether their probabilities mean what they say. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convatlas.metrics.error_analysis import interval

BINS = 15
"""Of a reliability diagram, as Guo et al. have it."""


@dataclasses.dataclass(frozen=True)
class Bin:
    """The predictions whose probability lies in a range.

    Attributes:
        low: the range is above it ...
        high: ... and up to this.
        count: predictions in it.
        confidence: mean probability of these; None where there is none.
        accuracy: share of these that are right; None where there is none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Whether predictions given with a probability of 80 % are right in 80 % of the cases.

    Attributes:
        bins: ranges of equal width over [0, 1].
        error: mean distance of accuracy and confidence over the predictions ("expected calibration error").
        worst: the largest such distance of any bin with predictions.
    """

    bins: tuple[Bin, ...]
    error: float
    worst: float


def calibrate(confidences: NDArray[np.float64], is_right: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Compares the probabilities of top predictions with how often these are right.

    Args:
        confidences: probability of each top prediction, in [0, 1], (N,).
        is_right: whether it is right, (N,).
        bins: how many ranges.

    Raises:
        ValueError: there is no prediction, or no bin.

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", Section 2.
    """
    if bins < 1 or not len(confidences):
        raise ValueError(f"{len(confidences)} predictions in `bins`={bins}; expected at least one of both")
    edges = np.linspace(0.0, 1.0, bins + 1)
    places = np.searchsorted(edges[1:-1], confidences, side="left")
    counts = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, weights, minlength=bins) for weights in (confidences, is_right)]
    means = [total / np.maximum(counts, 1) for total in sums]
    gaps = np.abs(means[0] - means[1]) * (counts > 0)
    made = tuple(
        Bin(float(low), float(high), int(n), *((float(c), float(a)) if n else (None, None)))
        for low, high, n, c, a in zip(edges[:-1], edges[1:], counts, *means, strict=True)
    )
    return Calibration(made, float((gaps * counts).sum() / len(confidences)), float(gaps.max()))


@dataclasses.dataclass(frozen=True)
class ClassMetrics:
    """How one class is recognised.

    Attributes:
        name: of the class.
        images: of it.
        right: those that are classified correctly.
        predicted: images of any class that are predicted as it, itself included.
        recall: share of its images that are recognised; None where there is no image of it.
        low: lower end of the 95 % interval of the recall, by Wilson; None in the same case.
        high: upper end of that interval.
        precision: share of correct predictions among those that name it; None where none does.
        confused_with: the other class that is predicted most often for its images; None where none is.
    """

    name: str
    images: int
    right: int
    predicted: int
    recall: float | None
    low: float | None
    high: float | None
    precision: float | None
    confused_with: str | None

    def record(self) -> dict[str, Any]:
        """The same for JSON and CSV."""
        return dataclasses.asdict(self)


def by_class(confusion: NDArray[np.int64], names: Sequence[str]) -> list[ClassMetrics]:
    """Counts each class of a confusion matrix.

    Args:
        confusion: (K, K); a row for each true class, a column for each prediction.
        names: K names.
    """
    images, predicted = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    right = confusion.diagonal().tolist()
    others = confusion.copy()
    np.fill_diagonal(others, 0)
    mostly, most = others.argmax(axis=1).tolist(), others.max(axis=1).tolist()
    made: list[ClassMetrics] = []
    for k, name in enumerate(names):
        low, high = interval(right[k], images[k]) if images[k] else (None, None)
        made.append(
            ClassMetrics(
                name,
                images[k],
                right[k],
                predicted[k],
                right[k] / images[k] if images[k] else None,
                low,
                high,
                right[k] / predicted[k] if predicted[k] else None,
                names[int(mostly[k])] if most[k] else None,
            )
        )
    return made
