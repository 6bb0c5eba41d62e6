"""What kept AlexNet from overfitting: dropout, augmentation, weight decay and LRN, each alone and together.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
Sections 3.3, 4 and 5.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import Any

from torch import Tensor, nn

from convatlas.blocks.norm import LocalResponseNorm
from convatlas.models.network import check_count
from convatlas.studies.arms import Arm, Compared, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study

KINDS = ("none", "dropout", "augmentation", "weight decay", "LRN", "all")
"""What is switched on: nothing, one of four, or all four."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularisationKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        width: channels of the first convolution; the others have twice as many.
        drop_rate: of dropout, before both fully connected layers.
        shift: px by which augmentation shifts at most.
        mirror: share of the images that augmentation mirrors; 0 where all point the same way, as shoes do in
            Fashion-MNIST.
        weight_decay: AlexNet's 5e-4 acts over 450,000 steps; a training of few steps needs more.
        lrn_alpha: AlexNet's 1e-4 is for pixels of 0 to 255, whose deviation is about 60; here it is 1.
        overfit: gap between test and training error, in points, that the network without any must have.
    """

    width: int = 16
    drop_rate: float = 0.5
    shift: int = 1
    mirror: float = 0.0
    weight_decay: float = 5e-4
    lrn_alpha: float = 0.36
    overfit: float = 5.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a value is out of its range.
        """
        super().__post_init__()
        for name in ("width", "shift"):
            check_count(name, getattr(self, name), least=1)
        if not 0.0 < self.drop_rate < 1.0:
            raise ValueError(f"`drop_rate`={self.drop_rate}; expected a rate between 0 and 1, such as 0.5")
        if not 0.0 <= self.mirror <= 1.0:
            raise ValueError(f"`mirror`={self.mirror}; expected a share of 0 to 1")
        for name in ("weight_decay", "lrn_alpha"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"`{name}`={getattr(self, name)}; expected a number above 0")


class SmallAlexNet(nn.Module):
    """AlexNet in small: three convolutions, two of them with LRN and overlapping pooling; two linear layers.

    Args:
        in_chans: channels of the images.
        num_classes: K.
        width: channels of the first convolution.
        drop_rate: of dropout before both linear layers.
        lrn_alpha: of the normalisations; 0 for none.
    """

    def __init__(
        self, *, in_chans: int, num_classes: int, width: int, drop_rate: float, lrn_alpha: float
    ) -> None:
        super().__init__()

        def layer(entering: int, leaving: int, kernel_size: int, pooled: bool) -> list[nn.Module]:
            conv = nn.Conv2d(entering, leaving, kernel_size, padding=kernel_size // 2)
            norm = [LocalResponseNorm(alpha=lrn_alpha)] if pooled and lrn_alpha else []
            return [conv, nn.ReLU(), *norm, *([nn.MaxPool2d(3, stride=2, padding=1)] if pooled else [])]

        double = 2 * width
        self.features = nn.Sequential(
            *layer(in_chans, width, 5, True), *layer(width, double, 5, True), *layer(double, double, 3, False)
        )
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.classifier = nn.Sequential(
            nn.Dropout(drop_rate),
            nn.Linear(16 * double, 16 * width),
            nn.ReLU(),
            nn.Dropout(drop_rate),
            nn.Linear(16 * width, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images: (B, C, H, W) -> (B, K)."""
        x = self.pool(self.features(x))  # (B, 2 width, 4, 4)
        return self.classifier(x.flatten(1))  # (B, K)


def run(ctx: StudyContext[RegularisationKnobs]) -> Outcome:
    """Trains the network with each of the regularisers, with none and with all, for each seed."""
    arms: dict[str, Arm] = {}
    for kind in KINDS:
        net, recipe = settings_for(kind, ctx.knobs)
        make = functools.partial(
            SmallAlexNet, in_chans=ctx.in_chans, num_classes=ctx.num_classes, width=ctx.knobs.width, **net
        )
        label = f"small-alexnet{ctx.knobs.width}-drop{net['drop_rate']:g}-lrn{net['lrn_alpha']:g}"
        arms[kind] = Arm(network=make, label=label, settings=recipe)
    compared = compare(ctx, arms, splits=("test", "train"))
    gaps = {kind: gap(compared, kind) for kind in KINDS}
    without = statistics.fmean(gaps["none"])
    need = ctx.knobs.overfit
    return Outcome(
        compared=compared,
        samples={
            f"gap-{_short(kind)}": [none - some for none, some in zip(gaps["none"], gaps[kind], strict=True)]
            for kind in KINDS[1:]
        },
        objections=()
        if without >= need
        else (
            f"there is no overfitting to curb: without any, test and training error differ by "
            f"{without:.1f} points, a "
            f"verdict needs {need:g}",
        ),
        reading="A gap that closes is not yet a gain: what a regulariser takes from the fit to the "
        "training images "
        "has to come back on the others.",
    )


def gap(compared: Compared, kind: str) -> list[float]:
    """By how many points each seed's network is worse on images that it has not seen."""
    return [
        test - train
        for test, train in zip(compared.errors(kind), compared.errors(kind, "train"), strict=True)
    ]


def settings_for(kind: str, knobs: RegularisationKnobs) -> tuple[dict[str, float], dict[str, Any]]:
    """What is switched on in the network, and in the recipe.

    Args:
        kind: one of `KINDS`.
        knobs: how strong each regulariser is.
    """

    def on(name: str) -> bool:
        return kind in (name, "all")

    net = {
        "drop_rate": knobs.drop_rate if on("dropout") else 0.0,
        "lrn_alpha": knobs.lrn_alpha if on("LRN") else 0.0,
    }
    shown = {"flip": knobs.mirror, "pad_crop": {"pad": knobs.shift}}
    recipe = {
        "weight_decay": knobs.weight_decay if on("weight decay") else 0.0,
        "augment": shown if on("augmentation") else {},
    }
    return net, recipe


def _short(kind: str) -> str:
    return kind.replace(" ", "-").lower()


PRINTED = {"LRN": "1.4 (ImageNet), 2 (CIFAR-10); VGG: -0.1", "augmentation": "colour alone: over 1"}

STUDY = Study(
    name="regularisation",
    version=2,
    source="Krizhevsky et al. 2012, AlexNet, Sections 3.3, 4.1, 4.2 and 5",
    published=(
        "without dropout, and without augmentation, substantial overfitting",
        "LRN: 1.4 points of top-1 error on ImageNet; CIFAR-10 13 % without, 11 % with (four layers)",
        "VGG (Simonyan and Zisserman 2014, Table 3) with LRN: 29.7 %, without: 29.6 %",
        "weight decay of 5e-4 lowers the training error, too",
    ),
    clauses=(
        *(
            Clause(
                name=f"gap-{_short(kind)}",
                says=f"{kind[0].upper()}{kind[1:]} closes the gap between test and training error.",
                measure=f"gap between test and training error, none minus {kind}",
                above=0.0,
                published="without it, substantial overfitting" if kind in KINDS[1:3] else "",
                decides=kind in KINDS[1:3],
            )
            for kind in KINDS[1:]
        ),
        *(
            Clause(
                name=f"error-{_short(kind)}",
                says="With all four the network errs less than with none."
                if kind == "all"
                else f"With {kind} the network errs less.",
                measure=f"test error, none minus {kind}",
                above=0.0,
                arms=difference("none", kind),
                published=PRINTED.get(kind, ""),
                decides=kind == "all",
            )
            for kind in KINDS[1:]
        ),
    ),
    protocol="A small network after AlexNet is trained on few images from the same seeds with no "
    "regulariser, with each of four alone, and with all, each at its own best learning rate of one "
    "grid. Training "
    "error is measured at the end, without augmentation and dropout. Without overfitting there is "
    "no verdict.",
    presets={
        "quick": RegularisationKnobs(
            images=500,
            test_images=1500,
            px=14,
            epochs=40,
            seeds=3,
            recipe="alexnet",
            batch_size=25,
            weight_decay=0.01,
            grid=(0.005, 0.015, 0.045),
            grow=1,
        ),
        "standard": RegularisationKnobs(
            images=2000, px=14, epochs=60, recipe="alexnet", weight_decay=0.002, grid=(0.005, 0.015, 0.045)
        ),
        "full": RegularisationKnobs(
            data="cifar10",
            epochs=120,
            recipe="alexnet",
            batch_size=128,
            width=64,
            shift=4,
            mirror=0.5,
            grid=(0.003, 0.01, 0.03),
            reach=30.0,
        ),
    },
    run=run,
    changes="Version 1 judged networks with 19 % training error, and had one learning rate for all.",
)
