"""Epochs and batch size that suit the number of training images, where fine-tuning names neither."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from convatlas.training.recipes.recipe import Recipe

FINETUNE = "finetune"
LEAST_BATCH, MOST_BATCH = 8, 64
LEAST_EPOCHS, MOST_EPOCHS = 3, 20


def suited(recipe: Recipe, num_images: int, settings: Mapping[str, Any]) -> Recipe:
    """The recipe "finetune" for so many images: small sets take more epochs of smaller batches.

    All take about 200 steps, and at least three epochs.

    Args:
        recipe: it, perhaps changed.
        num_images: that are learnt from.
        settings: fields that were changed by hand, which stay.
    """
    changes: dict[str, Any] = {}
    if "batch_size" not in settings:
        size = 2 ** round(math.log2(16 * math.sqrt(max(1, num_images) / 300)))
        changes["batch_size"] = max(LEAST_BATCH, min(MOST_BATCH, size), recipe.accumulate)
    if "epochs" not in settings:
        epochs = round(recipe.epochs * (300 / max(1, num_images)) ** 0.4)
        changes["epochs"] = max(LEAST_EPOCHS, min(MOST_EPOCHS, epochs))
    return dataclasses.replace(recipe, **changes)
