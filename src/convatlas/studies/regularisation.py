"""What kept AlexNet from overfitting: dropout, augmentation, weight decay and LRN, each alone and together.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
Sections 3.3, 4 and 5.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from convatlas.blocks.norm import LocalResponseNorm
from convatlas.models.network import check_count
from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext

KINDS = ("none", "dropout", "augmentation", "weight decay", "LRN", "all")
"""What is switched on: nothing, one of four, or all four."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularisationKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        width: channels of the first convolution; the others have twice as many.
        batch_size: images of a step.
        lr: learning rate at first; it falls to 0 along a cosine.
        drop_rate: of dropout, before both fully connected layers.
        pad: px by which augmentation shifts at most.
        flip: share of the images that augmentation mirrors; 0 where all point the same way, as shoes do in
            Fashion-MNIST.
        weight_decay: AlexNet's 5e-4 acts over 450,000 steps; a training of few steps needs more.
        lrn_alpha: AlexNet's 1e-4 is for pixels of 0 to 255, whose deviation is about 60; here it is 1.
    """

    width: int = 16
    batch_size: int = 25
    lr: float = 0.01
    drop_rate: float = 0.5
    pad: int = 1
    flip: float = 0.0
    weight_decay: float = 5e-4
    lrn_alpha: float = 0.36

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        super().__post_init__()
        for name in ("width", "batch_size", "pad"):
            check_count(name, getattr(self, name), least=1)
        if not 0.0 < self.drop_rate < 1.0:
            raise ValueError(f"`drop_rate`={self.drop_rate}; expected a rate between 0 and 1, such as 0.5")
        if not 0.0 <= self.flip <= 1.0:
            raise ValueError(f"`flip`={self.flip}; expected a share of 0 to 1")
        for name in ("lr", "weight_decay", "lrn_alpha"):
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
        """Images to logits: (B, C, H, W) -> (B, K)."""
        x = self.pool(self.features(x))  # (B, 2 width, 4, 4)
        return self.classifier(x.flatten(1))  # (B, K)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Of one trained network.

    Attributes:
        train: wrong training images, without augmentation, in %.
        test: wrong test images, in %.
    """

    train: float
    test: float

    @property
    def gap(self) -> float:
        """How much worse the network is on images that it has not seen, in points."""
        return self.test - self.train


Results = dict[str, list[Errors]]
"""By what is switched on: one for each seed."""


def run(ctx: StudyContext[RegularisationKnobs]) -> Outcome:
    """Trains the network with each of the regularisers, with none and with all, for each seed."""
    results: Results = {kind: [_errors(ctx, kind, seed) for seed in ctx.seeds] for kind in KINDS}
    return Outcome(
        findings=find(results),
        tables=(_table(results),),
        figures={"regularisation.png": render(functools.partial(draw, results))},
        reading=_reading(results),
    )


def find(results: Results) -> tuple[Effect, ...]:
    """The effects; those on the gap by dropout and augmentation, and all four on the error, decide."""

    def gains(kind: str, part: str) -> tuple[float, ...]:
        pairs = zip(results["none"], results[kind], strict=True)
        return tuple(getattr(none, part) - getattr(some, part) for none, some in pairs)

    gaps = tuple(
        Effect(
            name=f"gap between test and training error, none minus {kind}",
            values=gains(kind, "gap"),
            unit="points",
            published="without it, substantial overfitting" if kind in KINDS[1:3] else "",
            decides=kind in KINDS[1:3],
        )
        for kind in KINDS[1:]
    )
    printed = {"LRN": "1.4 (ImageNet), 2 (CIFAR-10); VGG: -0.1", "augmentation": "colour alone: over 1"}
    errors = tuple(
        Effect(
            name=f"test error, none minus {kind}",
            values=gains(kind, "test"),
            unit="points",
            published=printed.get(kind, ""),
            decides=kind == "all",
        )
        for kind in KINDS[1:]
    )
    return (*gaps, *errors)


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
    recipe = {
        "weight_decay": knobs.weight_decay if on("weight decay") else 0.0,
        "augment": {"flip": knobs.flip, "pad_crop": {"pad": knobs.pad}} if on("augmentation") else {},
    }
    return net, recipe


def _errors(ctx: StudyContext[RegularisationKnobs], kind: str, seed: int) -> Errors:
    knobs = ctx.knobs
    net, recipe = settings_for(kind, knobs)

    def make() -> nn.Module:
        return SmallAlexNet(in_chans=ctx.in_chans, num_classes=ctx.num_classes, width=knobs.width, **net)

    trained = ctx.train(
        make,
        label=f"small-alexnet{knobs.width}-drop{net['drop_rate']:g}-lrn{net['lrn_alpha']:g}",
        seed=seed,
        recipe="alexnet",
        epochs=knobs.epochs,
        batch_size=knobs.batch_size,
        lr=knobs.lr,
        schedule="cosine",
        **recipe,
    )
    train = ctx.evaluate(trained, "train")
    return Errors(train=100.0 * (1.0 - train.accuracy), test=trained.test_error)


def _table(results: Results) -> Table:
    rows: list[tuple[str, ...]] = []
    for kind, errors in results.items():
        means = [
            statistics.fmean(getattr(error, part) for error in errors) for part in ("train", "test", "gap")
        ]
        each = ", ".join(f"{error.test:.2f}" for error in errors)
        rows.append((kind, f"{means[0]:.2f} %", f"{means[1]:.2f} %", each, f"{means[2]:.2f} points"))
    heads = ("regulariser", "training error", "test error", "test error, each seed", "gap")
    return Table("Each regulariser", heads, tuple(rows))


def _reading(results: Results) -> str:
    tests = {kind: statistics.fmean(error.test for error in errors) for kind, errors in results.items()}
    gaps = {kind: statistics.fmean(error.gap for error in errors) for kind, errors in results.items()}
    best = min(KINDS[1:5], key=lambda kind: tests[kind])
    return (
        f"Without any regulariser, the network errs on {tests['none']:.1f} % of the test images, "
        f"{gaps['none']:.1f} points more than on those it was trained on; with all four on "
        f"{tests['all']:.1f} %, {gaps['all']:.1f} points more. Of the four alone, {best} brings the lowest "
        f"test error, {tests[best]:.1f} %. A gap that closes is not yet a gain: what a regulariser takes "
        "from the fit to the training images has to come back on the others."
    )


def draw(results: Results, figure: Figure) -> None:
    """Training and test error with each regulariser, every seed as a dot."""
    axes = figure.subplots()
    for place, errors in enumerate(results.values()):
        train, test = ([getattr(error, part) for error in errors] for part in ("train", "test"))
        means = [statistics.fmean(train), statistics.fmean(test)]
        axes.plot([place, place], means, color="0.8", lw=6.0, zorder=0)
        axes.annotate(
            f"gap {means[1] - means[0]:.1f}",
            (place, statistics.fmean(means)),
            xytext=(8, -3),
            textcoords="offset points",
        )
        axes.scatter([place] * len(train), train, facecolors="none", edgecolors="C0")
        axes.scatter([place] * len(test), test, color="C0")
    axes.axhline(statistics.fmean(error.test for error in results["none"]), color="0.5", ls="--", lw=1.0)
    axes.set_xticks(range(len(results)), list(results))
    axes.set(ylabel="error (%)", ylim=(0.0, None), xlim=(-0.5, len(results) - 0.3))
    axes.set_title("error at the end (filled: test, hollow: training; dashed: test error with none)")


STUDY = Study(
    name="regularisation",
    source="Krizhevsky et al. 2012, AlexNet, Sections 3.3, 4.1, 4.2 and 5",
    published=(
        "without dropout, and without augmentation, substantial overfitting",
        "LRN: 1.4 points of top-1 error on ImageNet; CIFAR-10 13 % without, 11 % with (four layers)",
        "VGG (Simonyan and Zisserman 2014, Table 3) with LRN: 29.7 %, without: 29.6 %",
        "weight decay of 5e-4 lowers the training error, too",
    ),
    protocol="A small network after AlexNet is trained on few images from the same seeds with no "
    "regulariser, with each of four alone, and with all. Training error is measured at the end, without "
    "augmentation and dropout.",
    refuted_by="Dropout or augmentation that leave the gap between test and training error as it is; or a "
    "network with all four that tests no better than with none.",
    presets={
        "quick": RegularisationKnobs(images=500, test_images=1500, px=14, epochs=60, weight_decay=0.01),
        "standard": RegularisationKnobs(images=5000, epochs=60, width=32, pad=2, seeds=5, weight_decay=0.002),
        "full": RegularisationKnobs(data="cifar10", epochs=120, width=64, pad=4, flip=0.5, seeds=5),
    },
    run=run,
)
