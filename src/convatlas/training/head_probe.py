"""The classifier that logistic regression finds on the features of a network as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.data.sets import Samples
from convatlas.metrics.linear_probe import LinearProbe, fit_probe
from convatlas.models.network import Network
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import EvalTransform, output_table
from convatlas.training.losses import balanced_weights


def probed_layer(net: nn.Module) -> nn.Linear | None:
    """The last layer of a network, where logits are a linear map of one vector of features; else None."""
    if not isinstance(net, Network):
        return None
    last = net.get_classifier()
    return last if isinstance(last, nn.Linear) and last.in_features == net.head_hidden_size else None


def check_probed(net: nn.Module, name: str) -> nn.Linear:
    """The last layer of a network.

    Raises:
        ValueError: its logits are no linear map of one vector of features.
    """
    layer = probed_layer(net)
    if layer is None:
        raise ValueError(
            f"{name}: a probe needs a network of the atlas whose classifier is one linear layer on a vector; "
            "`--set freeze=backbone` trains any classifier alone"
        )
    return layer


def features_of(net: Network[Any], part: Samples, eval_transform: EvalTransform, ranks: Ranks) -> Tensor:
    """What goes into the last layer, for every image of a split: (N, C) of float32, in evaluation mode."""
    was_training = net.training
    net.eval()
    try:
        table, _ = output_table(
            lambda images: net.forward_head(net.forward_features(images), pre_logits=True),
            part,
            eval_transform,
            ranks,
        )
    finally:
        net.train(was_training)
    return table


def fit_head(
    layer: nn.Linear,
    features: Tensor,
    labels: Tensor,
    ranks: Ranks,
    *,
    strength: float | None,
    seed: int,
    balanced: bool,
) -> LinearProbe | None:
    """Fits the last layer, in the first process, and gives it to all.

    Args:
        layer: C -> K; changed in place.
        features: (N, C).
        labels: (N,).
        ranks: the processes.
        strength: of the regularisation; None for what cross-validation finds.
        seed: of its folds.
        balanced: weigh each class by the inverse of its frequency.

    Returns:
        The probe, in the first process.
    """
    found = None
    if ranks.is_first:
        count = layer.out_features
        weights = None
        if balanced:
            weights = balanced_weights(labels, count)[labels].double().numpy()
        found = fit_probe(
            features.numpy(),
            labels.numpy().astype(np.int64),
            count,
            strength=strength,
            seed=seed,
            sample_weights=weights,
        )
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(found.weight))
            if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
                layer.bias.copy_(torch.from_numpy(found.bias))
    ranks.broadcast_(list(layer.parameters()))
    return found
