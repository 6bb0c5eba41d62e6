"""What a trained network answers to the images that were held back, for thresholds of confidence."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from convatlas.data.sets import Samples, choose_rows
from convatlas.predict.confidence import MOST_KEPT, HeldBack
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import output_table
from convatlas.training.head_probe import probed_layer
from convatlas.training.setup import TrainSetup


def held_back(setup: TrainSetup, net: nn.Module, validation: Samples) -> HeldBack:
    """Shows a network the validation images, and some of those that it learnt from.

    Args:
        setup: of its training.
        net: with its final weights; is left in evaluation mode.
        validation: the images.
    """
    net.eval()
    alone = Ranks(setup.ranks.device)
    layer = probed_layer(net)
    if layer is None:
        logits, _ = output_table(net, validation, setup.eval_transform, alone)
        return HeldBack(logits, validation.labels, torch.empty(len(logits), 0), torch.empty(0, 0))

    def features(images: Tensor) -> Tensor:
        return net.forward_head(net.forward_features(images), pre_logits=True)  # pyright: ignore[reportCallIssue]

    train = setup.source.train
    rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_KEPT)).round().astype(np.int64))
    known, _ = output_table(features, choose_rows(train, rows), setup.eval_transform, alone)
    found, _ = output_table(features, validation, setup.eval_transform, alone)
    # Of several tiles the mean probability counts, which is no function of the mean features.
    logits, _ = output_table(
        lambda images: net(images).softmax(dim=1), validation, setup.eval_transform, alone
    )
    tiny = torch.finfo(torch.float32).tiny
    return HeldBack(logits.clamp(min=tiny).log(), validation.labels, found, known)
