"""What a network gets wrong: which classes, which images. Needs no torch of its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from convatlas.data.sets import Samples
    from convatlas.metrics.classification import Evaluation


class ClassResult(NamedTuple):
    """How a class was recognised.

    Attributes:
        label: of the class.
        images: test images of it.
        right: those classified correctly.
        predicted: images of any class that were predicted as it, itself included.
        mostly: the other class that its images were most often confused with; None where they never were.
        mistaken: how often.
    """

    label: int
    images: int
    right: int
    predicted: int
    mostly: int | None
    mistaken: int


def worst_classes(confusion: NDArray[np.int64], count: int) -> list[ClassResult]:
    """The classes with the lowest recall, worst first.

    Args:
        confusion: (K, K); a row for each true class, a column for each prediction.
        count: at most so many.
    """
    images, right = confusion.sum(axis=1), confusion.diagonal()
    recall = right / np.maximum(images, 1)
    order = [int(k) for k in np.argsort(recall, kind="stable") if right[k] < images[k]][:count]
    found: list[ClassResult] = []
    for label in order:
        others = confusion[label].copy()
        others[label] = 0
        most = int(others.argmax())
        predicted = int(confusion[:, label].sum())
        row = (label, int(images[label]), int(right[label]), predicted, most, int(others[most]))
        found.append(ClassResult(*row))
    return found


def most_confused(confusion: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """The `count` classes that take part in the most mistakes, in their own order."""
    if len(confusion) <= count:
        return np.arange(len(confusion))
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    blame = wrong.sum(axis=0) + wrong.sum(axis=1)
    return np.sort(np.argsort(-blame, kind="stable")[:count])


LEAST_LOSS = 0.005
"""Of an image that is called hard: two decimals of it are not 0.00."""


@dataclasses.dataclass(frozen=True)
class HardImage:
    """A test image with a high loss.

    Attributes:
        index: in the test split.
        name: where a person finds it.
        truth: name of its class.
        prediction: name of the class that was predicted.
        loss: its loss.
    """

    index: int
    name: str
    truth: str
    prediction: str
    loss: float

    @property
    def title(self) -> str:
        """Its class, and what was predicted if that is wrong."""
        return self.truth if self.truth == self.prediction else f"{self.truth} → {self.prediction}"


def find_hardest(
    evaluation: Evaluation, test: Samples, class_names: Sequence[str], count: int
) -> list[HardImage]:
    """The test images with the highest loss, the hardest first; those whose loss rounds to 0.00 are left out.

    Args:
        evaluation: of the test images.
        test: the test images.
        class_names: K names.
        count: at most so many.
    """
    order = evaluation.losses.argsort(descending=True, stable=True)[:count]
    # An image that could not be read has no loss.
    return [
        HardImage(
            index,
            test.name(index),
            class_names[int(test.labels[index])],
            class_names[int(evaluation.predicted[index])],
            float(evaluation.losses[index]),
        )
        for index in order.tolist()
        if evaluation.losses[index] >= LEAST_LOSS
    ]


def interval(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, for `right` of `count` independent images.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    z = 1.959964
    share, scale = right / count, 1.0 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1.0 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)
