"""Auxiliary classifiers: the gradient that reaches the early layers, and the accuracy at the end.

Szegedy et al. 2014, "Going Deeper with Convolutions", Section 5.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import AuxHead
from convatlas.models.network import AuxLogits
from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect
from convatlas.training.losses import aux_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryHeadsKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: convolutions of the network, a multiple of three; two classifiers hang on it, a third and two
            thirds of the way up.
        width: channels of each.
        weight: what the loss of each auxiliary classifier counts; 0.3 in the paper.
        probe: training images that the gradient is measured on.
        lr: learning rate.
        batch_size: images of a step.
    """

    depth: int = 9
    width: int = 16
    weight: float = 0.3
    probe: int = 128
    lr: float = 0.05
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Checks the depth.

        Raises:
            ValueError: it is no multiple of three, or a count is out of its range.
        """
        super().__post_init__()
        if self.depth < 3 or self.depth % 3:
            raise ValueError(f"`depth`={self.depth}; expected a multiple of 3, of at least 3")


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
        """Images to logits: (B, C, H, W) -> (B, K)."""
        return self.forward_aux(x).main

    def forward_aux(self, x: Tensor) -> AuxLogits:
        """Logits of the end and of the two classifiers on the way."""
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


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same network from one seed, trained without and with its auxiliary classifiers.

    Attributes:
        slopes: gradient of each convolution before training, without and with.
        errors: test errors of the main classifier after it, %.
    """

    slopes: tuple[tuple[float, ...], tuple[float, ...]]
    errors: tuple[float, float]

    @property
    def boost(self) -> float:
        """Gradient of the first layer, with over without, as a power of 2."""
        return math.log2(self.slopes[1][0] / self.slopes[0][0])

    @property
    def gain(self) -> float:
        """Test error without minus with, points."""
        return self.errors[0] - self.errors[1]


def run(ctx: StudyContext[AuxiliaryHeadsKnobs]) -> Outcome:
    """Probes and trains each network with and without the auxiliary losses, from the same weights."""
    pairs = {norm: [_pair(ctx, norm, seed) for seed in ctx.seeds] for norm in (False, True)}
    return Outcome(
        findings=find(pairs),
        tables=(_table(pairs),),
        figures={"auxiliary-heads.png": render(functools.partial(draw, pairs), height=4.2)},
        reading=_reading(ctx.knobs, pairs),
    )


def find(pairs: dict[bool, list[Pair]]) -> tuple[Effect, ...]:
    """The claim is about networks without batch normalisation; those with it are only reported."""
    findings: list[Effect] = []
    for norm, of_seeds in pairs.items():
        where = "with batch norm (no claim)" if norm else "without norm"
        findings.append(
            Effect(
                name=f"gradient of the first layer before training, {where}: with heads over without",
                values=tuple(pair.boost for pair in of_seeds),
                unit="powers of 2",
                least=1.0,
                published="expected in Section 5, not measured",
                decides=not norm,
            )
        )
        findings.append(
            Effect(
                name=f"test error of the main classifier, {where}: without heads minus with",
                values=tuple(pair.gain for pair in of_seeds),
                unit="points",
                decides=not norm,
            )
        )
    return tuple(findings)


def _make(ctx: StudyContext[AuxiliaryHeadsKnobs], norm: bool) -> SideNet:
    knobs = ctx.knobs
    return SideNet(
        depth=knobs.depth,
        width=knobs.width,
        norm=norm,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )


def _pair(ctx: StudyContext[AuxiliaryHeadsKnobs], norm: bool, seed: int) -> Pair:
    knobs = ctx.knobs
    part = ctx.source.train
    count = min(knobs.probe, len(part))
    images = torch.stack([part.image(index) for index in range(count)]).double() / 255.0
    images = (images - images.mean()) / images.std()
    labels = part.labels[: len(images)]
    slopes: list[tuple[float, ...]] = []
    errors: list[float] = []
    for weight in (0.0, knobs.weight):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            slopes.append(gradients(_make(ctx, norm), images, labels, weight))
        trained = ctx.train(
            functools.partial(_make, ctx, norm),
            label=f"side{knobs.depth}x{knobs.width}{'-bn' if norm else ''}",
            seed=seed,
            recipe="resnet_cifar",
            epochs=knobs.epochs,
            lr=knobs.lr,
            batch_size=knobs.batch_size,
            aux_weight=weight,
        )
        errors.append(trained.test_error)
    return Pair((slopes[0], slopes[1]), (errors[0], errors[1]))


def _table(pairs: dict[bool, list[Pair]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for norm, of_seeds in pairs.items():
        for index, heads in enumerate(("without", "with")):
            errors = [pair.errors[index] for pair in of_seeds]
            rows.append(
                (
                    "yes" if norm else "no",
                    heads,
                    f"{statistics.geometric_mean(pair.slopes[index][0] for pair in of_seeds):.2g}",
                    f"{statistics.geometric_mean(pair.slopes[index][-1] for pair in of_seeds):.2g}",
                    f"{statistics.fmean(errors):.2f} %",
                    ", ".join(f"{error:.2f}" for error in errors),
                )
            )
    heads = ("batch norm", "heads", "gradient, first layer", "last layer", "test error", "each seed")
    return Table("Each network", heads, tuple(rows))


def _reading(knobs: AuxiliaryHeadsKnobs, pairs: dict[bool, list[Pair]]) -> str:
    def times(norm: bool) -> str:
        return f"{2.0 ** statistics.fmean(pair.boost for pair in pairs[norm]):,.3g}"

    def path(norm: bool) -> str:
        means = [statistics.fmean(pair.errors[i] for pair in pairs[norm]) for i in (0, 1)]
        return f"from {means[0]:.1f} to {means[1]:.1f} %"

    return (
        f"In {knobs.depth} layers without normalisation, two auxiliary classifiers make the first layer's "
        f"gradient {times(False)} times as large before training, and the main classifier's test error goes "
        f"{path(False)}. With batch normalisation the gradient is {times(True)} times as large and the error "
        f"goes {path(True)}."
    )


def draw(pairs: dict[bool, list[Pair]], figure: Figure) -> None:
    """Gradient by layer, and the errors with every seed as a line."""
    slopes, errors = figure.subplots(1, 2, width_ratios=(1.3, 1))
    for norm, of_seeds in pairs.items():
        for index, heads in enumerate(("without", "with")):
            means = [
                statistics.geometric_mean(values)
                for values in zip(*(pair.slopes[index] for pair in of_seeds), strict=True)
            ]
            label = f"{heads} heads{', batch norm' if norm else ''}"
            style = "--" if norm else "-"
            slopes.plot(range(1, len(means) + 1), means, style, color=f"C{index}", label=label)
    slopes.set(xlabel="layer", ylabel="root mean square of the weights' gradient", yscale="log")
    slopes.set_title("gradient that reaches each layer before training")
    slopes.legend()
    for place, of_seeds in enumerate(pairs.values()):
        for pair in of_seeds:
            errors.plot([2 * place, 2 * place + 1], pair.errors, "o-", color=f"C{2 + place}")
    labels = [
        f"{heads}\n{'batch norm' if norm else 'no norm'}" for norm in pairs for heads in ("without", "with")
    ]
    errors.set_xticks(range(4), labels)
    errors.set(ylabel="test error (%)", ylim=(0.0, None))
    errors.set_title("main classifier (a line for each seed)")


STUDY = Study(
    name="auxiliary-heads",
    source="Szegedy et al. 2014, Going Deeper with Convolutions, arXiv 1409.4842, Section 5",
    published=(
        "two auxiliary classifiers, each counting 0.3 in the loss, are expected to increase the gradient "
        "that "
        "gets propagated back and to regularise; no numbers are printed",
    ),
    protocol="A deep network of 3x3 convolutions, without and with batch normalisation, has a classifier a "
    "third and two thirds of the way up. From the same first weights it is trained once with the main loss "
    "alone and once with the auxiliary losses added. The gradient of each layer's weights is measured before "
    "training; the main classifier alone is tested.",
    refuted_by="A gradient in the first layer that is less than twice as large with the auxiliary losses; "
    "or a "
    "main classifier that is no better for them.",
    presets={
        "quick": AuxiliaryHeadsKnobs(images=4000, test_images=2000, px=14, epochs=6, seeds=5),
        "standard": AuxiliaryHeadsKnobs(images=20000, epochs=6),
        "full": AuxiliaryHeadsKnobs(data="cifar10", epochs=60, width=64, seeds=5),
    },
    run=run,
)
