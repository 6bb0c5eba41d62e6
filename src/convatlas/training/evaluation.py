"""Measuring a network on test images, exactly: the counts are the same whatever the processes and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.data.batches import Fit, read_batches
from convatlas.data.colour import normalise
from convatlas.data.sets import OnBadImage, Samples
from convatlas.metrics.classification import Evaluation, count_answers
from convatlas.models.lenet import rbf_loss
from convatlas.training.distributed import Ranks
from convatlas.training.losses import hinge_losses


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """How test images are shown to a network.

    Attributes:
        mean: per channel, for values in [0, 1].
        std: per channel, likewise.
        fit: brings an image to size; None where all have it.
        batch_size: images at a time.
        workers: processes that decode images.
        on_bad_image: "refuse" or "skip" an image that cannot be read.
    """

    mean: Sequence[float]
    std: Sequence[float]
    fit: Fit | None = None
    batch_size: int = 256
    workers: int = 0
    on_bad_image: OnBadImage = "refuse"


@torch.no_grad()
def evaluate(
    net: nn.Module,
    part: Samples,
    eval_transform: EvalTransform,
    *,
    num_classes: int,
    ranks: Ranks,
    loss: str = "softmax",
    dtype: torch.dtype | None = None,
) -> Evaluation:
    """Measures a network; it is left in evaluation mode.

    Each process measures its own part of the images and fills its rows of tables over all of them. Adding the
    tables up joins them, and no image is counted twice.

    Args:
        net: on the device of `ranks`.
        part: test images.
        eval_transform: how the network sees them.
        num_classes: K.
        ranks: the processes.
        loss: as in a recipe: "softmax", "hinge" or "rbf".
        dtype: type of convolutions and matrix products; None for the network's own.
    """
    net.eval()
    count = len(part)
    own = np.arange(count)[ranks.shard(count)]
    steps = [
        own[begin : begin + eval_transform.batch_size]
        for begin in range(0, len(own), eval_transform.batch_size)
    ]
    # An image that cannot be read, where those are skipped, is not seen and not counted.
    losses, predicted, among5, seen = (torch.zeros(count, dtype=torch.float64) for _ in range(4))
    batch_order = [(samples, None) for samples in steps]
    for batch in read_batches(
        part,
        batch_order,
        eval_transform.fit,
        workers=eval_transform.workers,
        on_bad_image=eval_transform.on_bad_image,
    ):
        images = normalise(
            batch.images.to(ranks.device, non_blocking=True), eval_transform.mean, eval_transform.std
        )
        labels, rows = batch.labels.to(ranks.device), torch.from_numpy(batch.samples)
        with torch.autocast(ranks.device.type, dtype=dtype, enabled=dtype is not None):
            logits: Tensor = net(images).float()
        losses[rows] = LOSSES[loss](logits, labels).double().cpu()
        predicted[rows] = logits.argmax(dim=1).double().cpu()
        best = logits.topk(min(5, num_classes), dim=1).indices
        among5[rows] = (best == labels[:, None]).any(dim=1).double().cpu()
        seen[rows] = 1.0
    for table in (losses, predicted, among5, seen):
        ranks.all_reduce_sum(table)
    return count_answers(part.labels, losses, predicted.long(), among5, seen.bool(), num_classes)


def _softmax(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _rbf(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([rbf_loss(row[None], label[None]) for row, label in zip(logits, labels, strict=True)])


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": _softmax,
    "hinge": hinge_losses,
    "rbf": _rbf,
}
"""The loss of each image: (B, K) and (B,) to (B,). A test has no smoothing and no class weights."""
