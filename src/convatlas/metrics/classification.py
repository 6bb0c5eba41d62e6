"""Right and wrong predictions of a classifier, counted."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network predicts for test images.

    Attributes:
        correct: images whose top prediction is right.
        top5: images whose top five predictions hold the right one; None for fewer than six classes.
        count: images that were measured.
        loss: mean over the images.
        confusion: (K, K) counts of int64; a row for each true class, a column for each prediction.
        losses: of each image, (N,).
        predicted: top prediction for each image, (N,) of int64.
    """

    correct: int
    top5: int | None
    count: int
    loss: float
    confusion: Tensor
    losses: Tensor
    predicted: Tensor

    @property
    def accuracy(self) -> float:
        """Share of correct top predictions, in [0, 1]."""
        return self.correct / self.count

    @property
    def top5_accuracy(self) -> float | None:
        """Share of images whose top five predictions hold the right one."""
        return None if self.top5 is None else self.top5 / self.count


def count_predictions(
    labels: Tensor, losses: Tensor, predicted: Tensor, among5: Tensor, seen: Tensor, num_classes: int
) -> Evaluation:
    """Counts what a network predicted.

    Args:
        labels: of each image, (N,) of int64.
        losses: of each image, (N,).
        predicted: top predictions, (N,) of int64.
        among5: whether the top five predictions hold the right one, (N,); any numbers of 0 and 1.
        seen: which of the images were measured, (N,) of bool.
        num_classes: K.
    """
    pairs = (labels * num_classes + predicted)[seen]
    return Evaluation(
        correct=int((predicted == labels)[seen].sum()),
        top5=int(among5.sum()) if num_classes > 5 else None,
        count=int(seen.sum()),
        loss=float(losses[seen].mean()),
        confusion=torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes),
        losses=losses,
        predicted=predicted,
    )
