"""Measuring a network on test images, exactly: the counts are the same whatever the processes and batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.data.batches import Batch, Fit, read_batches
from convatlas.data.colour import normalise
from convatlas.data.crops import TestFit
from convatlas.data.preprocessing import tile_counts
from convatlas.data.sets import OnBadImage, Samples
from convatlas.data.tables import IntArray
from convatlas.metrics.classification import Evaluation, count_predictions
from convatlas.models.lenet import rbf_loss
from convatlas.training.distributed import Ranks
from convatlas.training.losses import hinge_losses


@dataclasses.dataclass(frozen=True)
class EvalTransform:
    """How test images are shown to a network.

    Attributes:
        mean: per channel, for values in [0, 1].
        std: standard deviation of each channel, in the units of `mean`.
        fit: brings an image to size; None where all have it. Where it shows an image as several tiles, the
            prediction is the mean of their probabilities.
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

    @property
    def has_tiles(self) -> bool:
        """Whether an image may have several views."""
        return isinstance(self.fit, TestFit) and self.fit.fit == "tiles"


class GivenUpError(Exception):
    """An evaluation that was given up, as something else is asked for."""


@torch.no_grad()
def evaluate(
    net: nn.Module,
    split: Samples,
    eval_transform: EvalTransform,
    *,
    num_classes: int,
    ranks: Ranks,
    loss: str = "softmax",
    dtype: torch.dtype | None = None,
    stops: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Measures a network; it is left in evaluation mode.

    Each process measures its own part of the images and fills its rows of tables over all of them. Adding the
    tables up joins them, and no image is counted twice.

    Args:
        net: on the device of `ranks`.
        split: test images.
        eval_transform: how the network sees them.
        num_classes: K.
        ranks: the processes.
        loss: as in a recipe: "softmax", "hinge" or "rbf".
        dtype: type of convolutions and matrix products; None for the network's own.
        stops: asked after each batch whether to give up.

    Raises:
        GivenUpError: `stops` said so.
    """
    net.eval()
    count = len(split)
    # An image that cannot be read, where those are skipped, is not seen and not counted.
    losses, predicted, among5, seen = (torch.zeros(count, dtype=torch.float64) for _ in range(4))

    def note(rows: Tensor, labels: Tensor, logits: Tensor) -> None:
        losses[rows] = LOSSES[loss](logits, labels).double().cpu()
        predicted[rows] = logits.argmax(dim=1).double().cpu()
        best = logits.topk(min(5, num_classes), dim=1).indices
        among5[rows] = (best == labels[:, None]).any(dim=1).double().cpu()
        seen[rows] = 1.0

    def compute(images: Tensor) -> Tensor:
        if stops():
            raise GivenUpError
        with torch.autocast(ranks.device.type, dtype=dtype, enabled=dtype is not None):
            return net(images).float()

    if eval_transform.has_tiles:
        shares, views = output_table(
            lambda images: compute(images).softmax(dim=1), split, eval_transform, ranks
        )
        rows = torch.from_numpy(np.flatnonzero(views))
        rows = rows[ranks.shard(len(rows))]
        if len(rows):
            # As logits, since their softmax are the probabilities again.
            note(rows, split.labels[rows], shares[rows].clamp(min=torch.finfo(torch.float32).tiny).log())
    else:
        for batch, images in _shown(split, eval_transform, ranks):
            note(torch.from_numpy(batch.samples), batch.labels.to(ranks.device), compute(images))
    for table in (losses, predicted, among5, seen):
        ranks.all_reduce_sum(table)
    return count_predictions(split.labels, losses, predicted.long(), among5, seen.bool(), num_classes)


@torch.no_grad()
def output_table(
    function: Callable[[Tensor], Tensor], split: Samples, eval_transform: EvalTransform, ranks: Ranks
) -> tuple[Tensor, IntArray]:
    """What a function of normalised images gives for every image of a split.

    Args:
        function: (B, C, H, W) -> (B, D), on the device of `ranks`.
        split: the images.
        eval_transform: how the function sees them; of several tiles of an image, the mean counts.
        ranks: the processes, each of which computes its part.

    Returns:
        (N, D) of float32 on the CPU, in every process, and how many views of each image were seen, (N,): 0
        for one that cannot be read, whose row is 0.
    """
    table: Tensor | None = None
    views = np.zeros(len(split), dtype=np.int64)
    for batch, images in _shown(split, eval_transform, ranks):
        found = function(images).float().cpu()
        if table is None:
            table = torch.zeros(len(split), found.shape[1])
        table[torch.from_numpy(batch.samples)] += found
        views[batch.samples] += 1
    if table is None:
        raise ValueError("no image of the split can be used")
    if ranks.world_size > 1:
        sums = ranks.all_reduce_sum(torch.cat([table.double(), torch.from_numpy(views)[:, None]], dim=1))
        table, views = sums[:, :-1].float(), sums[:, -1].long().numpy()
    return table / torch.from_numpy(np.maximum(views, 1))[:, None], views


def _shown(split: Samples, eval_transform: EvalTransform, ranks: Ranks) -> Iterator[tuple[Batch, Tensor]]:
    """This process's images in batches, normalised on the device; with tiles, one after the other."""
    own = np.arange(len(split))[ranks.shard(len(split))]
    fit = eval_transform.fit
    counts = tile_counts(split)[own] if eval_transform.has_tiles else np.ones(len(own), dtype=np.int64)
    size = eval_transform.batch_size
    for view in range(int(counts.max(initial=0))):
        rows = own[counts > view]
        plan = [(rows[begin : begin + size], None) for begin in range(0, len(rows), size)]
        for batch in read_batches(
            split,
            plan,
            dataclasses.replace(fit, view=view) if isinstance(fit, TestFit) else fit,
            workers=eval_transform.workers,
            on_bad_image=eval_transform.on_bad_image,
        ):
            images = batch.images.to(ranks.device, non_blocking=True)
            yield batch, normalise(images, eval_transform.mean, eval_transform.std)


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
