"""Degradation: plain networks get worse with depth, on the images that they are trained on too.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", Section 4.2, Figures 1 and 6.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING

from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegradationKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        shallow: layers of the shallow networks, 6n + 2.
        deep: layers of the deep networks.
        recipe: how all are trained.
        lr: largest learning rate.
        batch_size: images of a step.
        pad: px of zeros around an image before it is cropped at random; less for smaller images.
    """

    shallow: int = 20
    deep: int = 56
    recipe: str = "resnet_cifar"
    lr: float = 0.1
    batch_size: int = 128
    pad: int = 4


@dataclasses.dataclass(frozen=True)
class Errors:
    """Of one trained network.

    Attributes:
        train: wrong training images, without augmentation, in %.
        test: wrong test images, in %.
        curve: mean training loss of each epoch.
    """

    train: float
    test: float
    curve: tuple[float, ...]


Results = dict[tuple[str, int], list[Errors]]
"""By kind, "plain" or "resnet", and depth: the errors for each seed."""


def run(ctx: StudyContext[DegradationKnobs]) -> Outcome:
    """Trains four networks for each seed."""
    knobs = ctx.knobs
    results: Results = {
        (kind, depth): [_errors(ctx, kind, depth, seed) for seed in ctx.seeds]
        for kind in ("plain", "resnet")
        for depth in (knobs.shallow, knobs.deep)
    }
    return Outcome(
        findings=find(results, knobs.shallow, knobs.deep),
        tables=(_table(results),),
        figures={"degradation.png": render(functools.partial(draw, results))},
        reading=_reading(results, knobs),
    )


def find(results: Results, shallow: int, deep: int) -> tuple[Effect, ...]:
    """The effects that decide: each would be positive if the claim were true."""

    def differences(more: tuple[str, int], less: tuple[str, int], part: str) -> tuple[float, ...]:
        pairs = zip(results[more], results[less], strict=True)
        return tuple(getattr(a, part) - getattr(b, part) for a, b in pairs)

    plain, residual = ("plain", "resnet")
    return (
        Effect(
            name=f"training error, plain-{deep} minus plain-{shallow}",
            values=differences((plain, deep), (plain, shallow), "train"),
            unit="points",
            published="curves only (Figure 6, left)",
        ),
        Effect(
            name=f"test error, plain-{deep} minus plain-{shallow}",
            values=differences((plain, deep), (plain, shallow), "test"),
            unit="points",
            published="curves only (Figure 6, left)",
        ),
        Effect(
            name=f"test error, plain-{deep} minus resnet-{deep}",
            values=differences((plain, deep), (residual, deep), "test"),
            unit="points",
            published="curves only",
        ),
        Effect(
            name=f"degradation of test error, plain minus resnet, from {shallow} to {deep} layers",
            values=tuple(
                a - b
                for a, b in zip(
                    differences((plain, deep), (plain, shallow), "test"),
                    differences((residual, deep), (residual, shallow), "test"),
                    strict=True,
                )
            ),
            unit="points",
            published="resnet: 8.75 to 6.97 % on CIFAR-10",
        ),
    )


def _errors(ctx: StudyContext[DegradationKnobs], kind: str, depth: int, seed: int) -> Errors:
    knobs = ctx.knobs
    if (depth - 2) % 6:
        raise ValueError(
            f"`shallow` and `deep` are 6n + 2 layers; received {depth}, near {depth - (depth - 2) % 6}"
        )
    name = f"{kind}{depth}_cifar"
    trained = ctx.train(
        name,
        seed=seed,
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
        augment={"flip": 0.5, "pad_crop": {"pad": knobs.pad}},
    )
    epochs = [line for line in trained.run.metrics() if "test_accuracy" in line]
    train = ctx.evaluate(trained, "train")
    return Errors(
        train=100.0 * (1.0 - train.accuracy),
        test=trained.test_error,
        curve=tuple(line["loss"] for line in epochs),
    )


def _table(results: Results) -> Table:
    rows: list[tuple[str, ...]] = []
    for (kind, depth), errors in results.items():
        cells = [f"{kind}-{depth}"]
        for part in ("train", "test"):
            values = [getattr(error, part) for error in errors]
            cells += [f"{statistics.fmean(values):.2f} %", ", ".join(f"{value:.2f}" for value in values)]
        rows.append(tuple(cells))
    heads = ("network", "training error", "each seed", "test error", "each seed")
    return Table("Each network", heads, tuple(rows))


def _reading(results: Results, knobs: DegradationKnobs) -> str:
    def path(kind: str, part: str) -> str:
        means = [
            statistics.fmean(getattr(error, part) for error in results[kind, depth])
            for depth in (knobs.shallow, knobs.deep)
        ]
        return f"from {means[0]:.1f} to {means[1]:.1f} %"

    return (
        f"Between {knobs.shallow} and {knobs.deep} layers, the plain network's training error went "
        f"{path('plain', 'train')} and its test error {path('plain', 'test')}; the residual network's test "
        f"error went {path('resnet', 'test')}. An error that rises on the training images is no overfitting: "
        "the deep plain network could copy the shallow one, and the optimiser does not find it."
    )


def draw(results: Results, figure: Figure) -> None:
    """Training loss by epoch, and both errors at the end with every seed as a dot."""
    curves, ends = figure.subplots(1, 2)
    colours = {"plain": "C1", "resnet": "C0"}
    deepest = max(depth for _, depth in results)
    for (kind, depth), errors in results.items():
        mean = [statistics.fmean(values) for values in zip(*(error.curve for error in errors), strict=True)]
        style = ("-" if depth == deepest else "--") + ("o" if len(mean) == 1 else "")
        label = f"{kind}-{depth}"
        curves.plot(range(1, len(mean) + 1), mean, style, color=colours[kind], label=label)
    curves.set(xlabel="epoch", ylabel="training loss", title="training loss, mean over seeds")
    curves.legend()
    for place, ((kind, _), errors) in enumerate(results.items()):
        colour = colours[kind]
        for x, part in ((place - 0.15, "train"), (place + 0.15, "test")):
            values = [getattr(error, part) for error in errors]
            filled = colour if part == "test" else "none"
            ends.scatter([x] * len(values), values, facecolors=filled, edgecolors=colour)
            ends.hlines(statistics.fmean(values), x - 0.12, x + 0.12, color=colour)
    ends.set_xticks(range(len(results)), [f"{kind}-{depth}" for kind, depth in results])
    ends.set(ylabel="error (%)", title="error at the end (hollow: training, filled: test)")


STUDY = Study(
    name="degradation",
    source="He et al. 2015, arXiv 1512.03385, Section 4.2, Figure 6 and Table 6",
    published=(
        "CIFAR-10, plain networks: curves only; plain-110 ends above 60 % error",
        "CIFAR-10, residual networks, test error: 20 layers 8.75 %, 56 layers 6.97 %",
        "ImageNet, 10 crops, top-1: plain-18 27.94, plain-34 28.54; ResNet-18 27.88, ResNet-34 25.03 %",
    ),
    protocol="Plain and residual networks of 20 and 56 layers, with equal parameters at equal depth, are "
    "trained alike from the same seeds. Training error is measured at the end, on the training images "
    "without augmentation.",
    refuted_by="A deep plain network whose training and test errors are no higher than the shallow one's; or "
    "residual networks that degrade as much.",
    presets={
        # Small batches make many steps of few images: below some 500, a deep residual network has not begun.
        "quick": DegradationKnobs(
            images=3000, test_images=2000, px=14, epochs=3, lr=0.03, batch_size=16, pad=1
        ),
        "standard": DegradationKnobs(images=20000, epochs=3),
        "full": DegradationKnobs(data="cifar10", epochs=164, seeds=5),
    },
    run=run,
)
