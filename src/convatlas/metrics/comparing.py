"""Whether one classifier is better than another on the same images. Needs no torch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

Z = 1.959964


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same images.

    Attributes:
        images: that both answered.
        only_first_right: where the second is wrong.
        only_second_right: where the first is wrong.
        difference: error of the second less that of the first, in [-1, 1].
        interval: of the difference, 95 %.
        p_value: chance of a division as uneven as this one, or more so, if both were equally good.
    """

    images: int
    only_first_right: int
    only_second_right: int
    difference: float
    interval: tuple[float, float]
    p_value: float

    def says(self, first: str, second: str) -> str:
        """The answer in words, at 5 %."""
        shown = f"{self.difference:+.1%}".replace("-", "−")
        low, high = (f"{end:+.1%}".replace("-", "−") for end in self.interval)
        numbers = (
            f"errors differ by {shown} [{low}, {high}] on {self.images:,} images, p = {self.p_value:.2g}"
        )
        if self.p_value < 0.05 and self.difference > 0.0:
            return f"{first} beats {second}: {numbers}"
        if self.p_value < 0.05:
            return f"{second} beats {first}: {numbers}"
        return f"no evidence that {first} beats {second}: {numbers}"


def compare(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> Comparison:
    """Compares two classifiers by the exact test of McNemar.

    Args:
        first_right: for each image, whether the first one's answer is right, (N,).
        second_right: the same of the second.

    Raises:
        ValueError: there is no image, or the lengths differ.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions"; of
    the interval, Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
        proportions".
    """
    if not len(first_right) or len(first_right) != len(second_right):
        raise ValueError(f"{len(first_right)} and {len(second_right)} images; expected as many, and some")
    from scipy.stats import binomtest

    b, c, count = (
        int((first_right & ~second_right).sum()),
        int((second_right & ~first_right).sum()),
        len(first_right),
    )
    p_value = float(binomtest(b, b + c).pvalue) if b + c else 1.0
    ours, theirs, total = b + 0.5, c + 0.5, count + 2.0
    middle = (ours - theirs) / total
    half = Z * math.sqrt(max(0.0, (ours + theirs) - (ours - theirs) ** 2 / total)) / total
    return Comparison(count, b, c, (b - c) / count, (middle - half, middle + half), p_value)
