"""From images to logits: views through the networks of an ensemble, averaged, and what became of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from convatlas.data.image_files import ImageError
from convatlas.data.sets import Samples
from convatlas.data.transforms import Transform
from convatlas.evaluation.crops import Average, Protocol, Views
from convatlas.evaluation.dense import Dense
from convatlas.models.network import Network
from convatlas.predict.inputs import Item
from convatlas.predict.outputs import Prediction, Skipped
from convatlas.predict.predictor import Predictor
from convatlas.predict.prefetch import read_batches


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One network of an ensemble, and what it is shown.

    Attributes:
        forward: logits (B, K) for normalised images (B, C, H, W).
        views: from an image to what the network sees.
        device: where it runs.
    """

    forward: Callable[[Tensor], Tensor]
    views: Views
    device: torch.device

    @torch.inference_mode()
    def logits(self, image_views: Sequence[Sequence[Tensor]], batch_size: int) -> list[Tensor]:
        """Computes the logits of the views of images, those of one size together.

        Args:
            image_views: of each image its views, (C, h, w) of uint8.
            batch_size: views that go through the network together.

        Returns:
            For each image (V, K) of float64.
        """
        views = [view for each in image_views for view in each]
        found: list[Tensor] = [torch.empty(0)] * len(views)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for place, view in enumerate(views):
            by_shape.setdefault(tuple(view.shape), []).append(place)
        for places in by_shape.values():
            for begin in range(0, len(places), batch_size):
                chosen = places[begin : begin + batch_size]
                images = torch.stack([views[place] for place in chosen]).to(self.device)
                rows = self.forward(self.views.transform.normalise(images)).double().cpu()
                for place, row in zip(chosen, rows, strict=True):
                    found[place] = row
        rows = iter(found)
        return [torch.stack([next(rows) for _ in each]) for each in image_views]


def make_member(predictor: Predictor, protocol: Protocol, is_ready: bool) -> Member:
    """A network as a protocol shows images to it.

    Args:
        predictor: holds it.
        protocol: how images are shown.
        is_ready: as `Views` takes it.

    Raises:
        ValueError: the protocol does not fit the network, or its scales are too small for it.
    """
    network, transform = predictor.network, predictor.transform
    if not isinstance(transform, Transform):
        raise ValueError(
            f"the predictor's transform is a {type(transform).__name__}; a protocol needs to know size and "
            "normalisation, which a `convatlas.data.transforms.Transform` states"
        )
    protocol.scales_for(transform)
    forward: Callable[[Tensor], Tensor] = predictor
    if protocol.is_dense:
        if not isinstance(network, Network) or predictor.engine != "eager":
            raise ValueError(
                f"protocol {protocol.name!r} rebuilds the classifier, so it needs the network itself: no "
                "exported file, and `engine`='eager'"
            )
        forward = Dense(network, (transform.input_size[1], transform.input_size[2]))
    return Member(forward, Views(protocol, transform, is_ready), predictor.device)


class Tables:
    """What is known of each image, (N,) each.

    Args:
        labels: the right class of each.
        average: what is averaged over views and members.

    Attributes:
        losses: negated logarithm of the right class's probability.
        predicted: best class.
        among5: whether the right class is one of the five best.
        confidences: probability of the best class.
        seen: whether it was measured.
    """

    def __init__(self, labels: Tensor, average: Average) -> None:
        self.labels, self.average = labels, average
        self.losses, self.confidences = (torch.zeros(len(labels), dtype=torch.float64) for _ in range(2))
        self.predicted = torch.zeros(len(labels), dtype=torch.int64)
        self.among5, self.seen = (torch.zeros(len(labels), dtype=torch.bool) for _ in range(2))

    def fill(self, row: int, views: Sequence[Tensor]) -> tuple[int, float]:
        """Averages what each member said of an image, and notes what comes out.

        Equal logits are ordered by the number of their class, so that nothing depends on how they are sorted.

        Args:
            row: of the image.
            views: logits (V, K) of each member.

        Returns:
            The best class and its probability.

        Raises:
            ValueError: a logit is NaN.
        """
        if self.average == "logits":
            shares = torch.stack([logits.mean(dim=0) for logits in views]).mean(dim=0).softmax(dim=0)
        else:
            shares = torch.stack([logits.softmax(dim=1).mean(dim=0) for logits in views]).mean(dim=0)
        if not shares.isfinite().all():
            raise ValueError("the network's logits are NaN")
        label, best = int(self.labels[row]), float(shares.max())
        own = shares[label]
        rank = int((shares > own).sum() + (shares[:label] == own).sum())
        self.predicted[row] = int((shares == best).nonzero()[0, 0])
        self.among5[row], self.confidences[row], self.seen[row] = rank < 5, best, True
        self.losses[row] = -float(own.clamp(min=torch.finfo(torch.float64).tiny).log())
        return int(self.predicted[row]), best


def measure_images(
    members: Sequence[Member],
    samples: Samples,
    tables: Tables,
    class_names: Sequence[str],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Prediction | Skipped]:
    """Shows every image to every member, and fills the tables.

    Args:
        members: of the ensemble.
        samples: the images.
        tables: of as many rows.
        class_names: K names.
        batch_size: views that go through a network together.
        workers: threads that read.

    Returns:
        For each image its best class, or why it cannot be read.

    Raises:
        ValueError: logits are NaN; names the image.
    """

    def prepare(item: Item) -> list[list[Tensor]]:
        row: Any = item.content
        image = samples.image(row)
        try:
            return [[view for views in member.views(image) for view in views] for member in members]
        except ValueError as error:
            raise ImageError(f"{item.name}: {error}") from None

    items = (Item(samples.name(row), row) for row in range(len(samples)))
    most = max(member.views.protocol.count_views(member.views.transform) for member in members)
    for batch in read_batches(items, prepare, max(1, batch_size // most), workers):
        read = list(batch.pixels.values())
        found: list[list[Tensor]] = []
        for number, member in enumerate(members):
            views = [views[number] for views in read]
            found.append(member.logits(views, batch_size))
        predictions = dict(zip(batch.pixels, zip(*found, strict=True), strict=True))
        for place, item in enumerate(batch.items):
            if place in batch.reasons:
                yield Skipped(item.name, batch.reasons[place].removeprefix(f"{item.name}: "))
                continue
            row: Any = item.content
            try:
                label, share = tables.fill(row, predictions[place])
            except ValueError as error:
                raise ValueError(f"{item.name}: {error}") from None
            yield Prediction(item.name, ((class_names[label], share),))
