"""Losses: one number for how wrong a batch of logits is."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.models.lenet import rbf_loss
from convatlas.models.network import AuxLogits
from convatlas.training.recipes.recipe import Recipe

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, K), targets (B,) of classes or (B, K) of shares) -> their mean over the batch, a scalar."""


def make_loss(recipe: Recipe, class_weights: Tensor | None = None) -> LossFunction:
    """The loss that a recipe asks for.

    Args:
        recipe: its `loss` and `label_smoothing`.
        class_weights: (K,), multiplies each image's loss by its class's; None for 1. See `balanced_weights`.

    Returns:
        A function of logits and targets. Only "softmax" takes targets that are shares, as mixup makes them.
    """
    if recipe.loss == "rbf":
        return rbf_loss  # A recipe with this loss has no class weights.

    def each(logits: Tensor, targets: Tensor) -> Tensor:
        if recipe.loss == "hinge":
            return hinge_losses(logits, targets)
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=recipe.label_smoothing)

    def weighted(logits: Tensor, targets: Tensor) -> Tensor:
        losses = each(logits, targets)
        if class_weights is None:
            return losses.mean()
        weights = targets @ class_weights if targets.is_floating_point() else class_weights[targets]
        return (losses * weights).mean()

    return weighted


def hinge_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The multi-class support vector machine's loss: each wrong class should score 1 less than the right one.

    Args:
        logits: (B, K).
        targets: class of each image, (B,).

    Returns:
        (B,): the sum over the wrong classes j of max(0, s_j - s_y + 1).

    Source: Weston and Watkins 1999, "Support vector machines for multi-class pattern recognition".
    """
    right = logits.gather(1, targets[:, None])
    # The right class itself contributes max(0, 0 + 1), which is taken off again.
    return (logits - right + 1.0).clamp(min=0.0).sum(dim=1) - 1.0


def aux_loss(loss: LossFunction, answer: AuxLogits, targets: Tensor, aux_weight: float) -> Tensor:
    """The loss of a network with auxiliary classifiers: loss(main) + aux_weight * (the sum of loss(aux)).

    Source: Szegedy et al. 2014, "Going Deeper with Convolutions", Section 5.
    """
    total = loss(answer.main, targets)
    for logits in answer.aux:
        total = total + aux_weight * loss(logits, targets)
    return total


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """A weight for each class by the inverse of its frequency: N / (K * images of the class).

    Their mean over the images is 1, so that the learning rate keeps its meaning.

    Args:
        labels: class of each training image, (N,).
        num_classes: K.

    Returns:
        (K,); 0 for a class without images.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp(min=1)), 0.0)
