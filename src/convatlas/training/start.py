"""What a training begins with, for the training itself and for the range test before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from convatlas.metrics.linear_probe import LinearProbe
from convatlas.training.head_probe import features_of, fit_head
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.setup import TrainSetup
from convatlas.training.train_step import Learner


def make_learner(setup: TrainSetup, net: nn.Module, recipe: Recipe) -> Learner:
    """What learns: a network in the place of the setup's, by a recipe in the place of the setup's."""
    return Learner(
        net,
        recipe,
        ranks=setup.ranks,
        execution=setup.execution,
        seed=setup.spec.seed,
        mean=setup.transform.mean,
        std=setup.transform.std,
        num_classes=setup.num_classes,
        labels=setup.source.train.labels,
    )


def fit_classifier(
    setup: TrainSetup, net: Any, recipe: Recipe, layer: nn.Linear
) -> tuple[Tensor, LinearProbe | None]:
    """Fits a network's last layer on the features of the training images.

    Returns:
        The features, (N, C), and the logistic regression where this process found it.
    """
    train = setup.source.train
    features = features_of(net, train, setup.eval_transform, setup.ranks)
    found = fit_head(
        layer,
        features,
        train.labels,
        setup.ranks,
        strength=recipe.weight_decay if recipe.optimizer == "lbfgs" and recipe.weight_decay else None,
        seed=setup.spec.seed,
        balanced=recipe.class_weights == "balanced",
    )
    return features, found
