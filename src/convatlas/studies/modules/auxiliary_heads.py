"""Auxiliary classifiers: the gradient that reaches the early layers, and the accuracy at the end.

Szegedy et al. 2014, "Going Deeper with Convolutions", Section 5.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import cast

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import AuxHead
from convatlas.models.network import AuxLogits, check_count
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.training.losses import aux_loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryHeadsKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: convolutions of the network, a multiple of three; two classifiers hang on it, a third and two
            thirds of the way up.
        width: channels of each.
        weight: what the loss of each auxiliary classifier counts; 0.3 in the paper.
        probe: training images that the gradient is measured on.
    """

    depth: int = 9
    width: int = 16
    weight: float = 0.3
    probe: int = 128

    def __post_init__(self) -> None:
        """Checks the depth.

        Raises:
            ValueError: if it is no multiple of three, or a count is out of its range.
        """
        super().__post_init__()
        if self.depth < 3 or self.depth % 3:
            raise ValueError(f"`depth`={self.depth}; expected a multiple of 3, of at least 3")
        check_count("width", self.width, least=1)
        check_count("probe", self.probe, least=1)


class SideNet(nn.Module):
    """3x3 convolutions of one width in three parts; behind the first and the second a classifier hangs.

    H and W are halved by the first convolution of the first two parts. Weights have GoogLeNet's variance,
    1 / fan-in, with which the signal of a deep network without normalisation fades.

    Args:
        depth: convolutions, a multiple of three.
        width: channels.
        norm: normalise by batch after each convolution, which GoogLeNet did not.
        in_chans: channels of the images.
        num_classes: K.
    """

    def __init__(self, *, depth: int, width: int, norm: bool, in_chans: int, num_classes: int) -> None:
        super().__init__()
        make = functools.partial(ConvNormAct, padding=1, norm=nn.BatchNorm2d if norm else None)
        per_part = depth // 3
        self.parts = nn.ModuleList(
            nn.Sequential(
                *(
                    make(in_chans if i == j == 0 else width, width, 3, stride=2 if j == 0 and i < 2 else 1)
                    for j in range(per_part)
                )
            )
            for i in range(3)
        )
        self.aux_heads = nn.ModuleList(
            AuxHead(
                nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 4 * width), relu()),
                4 * width,
                num_classes,
            )
            for _ in range(2)
        )
        self.head = ClassifierHead(width, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.normal_(layer.weight, std=1.0 / math.sqrt(layer.weight[0].numel()))

    @property
    def convolutions(self) -> list[nn.Conv2d]:
        """Shallow to deep."""
        return [layer for layer in self.parts.modules() if isinstance(layer, nn.Conv2d)]

    def forward(self, x: Tensor) -> Tensor:
        """Scores images: (B, C, H, W) -> (B, K)."""
        return self.forward_aux(x).main

    def forward_aux(self, x: Tensor) -> AuxLogits:
        """Scores of the end and of the two classifiers on the way."""
        low = self.parts[0](x)  # (B, width, H/2, W/2)
        middle = self.parts[1](low)  # (B, width, H/4, W/4)
        high = self.parts[2](middle)  # (B, width, H/4, W/4)
        aux = tuple(head(maps) for head, maps in zip(self.aux_heads, (low, middle), strict=True))
        return AuxLogits(self.head(high), aux)


def gradients(net: SideNet, images: Tensor, labels: Tensor, weight: float) -> tuple[float, ...]:
    """Root mean square of the loss's gradient with respect to each convolution's weights, shallow to deep.

    Args:
        net: is not changed; in double precision on a copy of its gradients.
        images: (B, C, H, W).
        labels: (B,).
        weight: of each auxiliary loss.
    """
    net = net.double().train()
    loss = aux_loss(nn.functional.cross_entropy, net.forward_aux(images.double()), labels, weight)
    weights = [layer.weight for layer in net.convolutions]
    return tuple(float(slope.square().mean().sqrt()) for slope in torch.autograd.grad(loss, weights))


def run(ctx: StudyContext[AuxiliaryHeadsKnobs]) -> Outcome:
    """Probes and trains each network with and without the auxiliary losses, from the same weights."""
    knobs = ctx.knobs
    arms: dict[str, Arm] = {}
    for norm in (False, True):
        make = functools.partial(_make, ctx, norm)
        label = f"side{knobs.depth}x{knobs.width}{'-bn' if norm else ''}"
        for which, weight in (("without heads", 0.0), ("with heads", knobs.weight)):
            name = f"{which}, norm" if norm else which
            arms[name] = Arm(network=make, label=label, settings={"aux_weight": weight})
    compared = compare(ctx, arms)
    boosts = [boost(ctx, seed) for seed in ctx.seeds]
    return Outcome(compared=compared, samples={"gradient": boosts})


def boost(ctx: StudyContext[AuxiliaryHeadsKnobs], seed: int) -> float:
    """Gradient of the first layer before training, with auxiliary losses over without: a power of 2."""
    part, knobs = ctx.source.train, ctx.knobs
    images = torch.stack([part.image(i) for i in range(min(knobs.probe, len(part)))]).double() / 255.0
    images = (images - images.mean()) / images.std()
    slopes = [
        gradients(
            cast("SideNet", ctx.build(functools.partial(_make, ctx, False), seed)), images, labels, weight
        )
        for labels in (part.labels[: len(images)],)
        for weight in (0.0, knobs.weight)
    ]
    return math.log2(slopes[1][0] / slopes[0][0])


def _make(ctx: StudyContext[AuxiliaryHeadsKnobs], norm: bool) -> SideNet:
    knobs = ctx.knobs
    return SideNet(
        depth=knobs.depth,
        width=knobs.width,
        norm=norm,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )


STUDY = Study(
    name="auxiliary-heads",
    version=2,
    source="Szegedy et al. 2014, Going Deeper with Convolutions, arXiv 1409.4842, Section 5",
    published=(
        "two auxiliary classifiers, each counting 0.3 in the loss, are expected to increase the gradient "
        "that gets propagated back and to regularise; no numbers are printed",
    ),
    clauses=(
        Clause(
            name="gradient",
            says="Before training, auxiliary losses at least double the gradient of the first layer.",
            measure="gradient of the first layer, without norm: with heads over without",
            unit="powers of 2",
            above=1.0,
            published="expected in Section 5, not measured",
        ),
        Clause(
            name="error",
            says="A plain network without normalisation errs less for having been trained with them.",
            measure="test error of the main classifier, without norm: without heads minus with",
            above=0.0,
            arms=difference("without heads", "with heads"),
        ),
        Clause(
            name="norm",
            says="With batch normalisation too.",
            measure="test error of the main classifier, with norm: without heads minus with",
            above=0.0,
            arms=difference("without heads, norm", "with heads, norm"),
            decides=False,
        ),
    ),
    protocol="A deep network of 3x3 convolutions, without and with batch normalisation, has a classifier a "
    "third and two thirds of the way up. From the same first weights it is trained once with the main loss "
    "alone and once with the auxiliary losses added, each at its own best learning rate of one "
    "grid. The gradient "
    "of the first layer's weights is measured before training; the main classifier alone is tested.",
    presets={
        "quick": AuxiliaryHeadsKnobs(images=3000, test_images=2000, px=14, epochs=4, seeds=3, batch_size=16),
        "standard": AuxiliaryHeadsKnobs(images=10000, px=14, epochs=8, warmup=300),
        "full": AuxiliaryHeadsKnobs(data="cifar10", epochs=60, width=64, flip=0.5, pad=4, reach=40.0),
    },
    run=run,
    changes="Version 1 had one learning rate for all.",
)
