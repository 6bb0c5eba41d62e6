"""Multipliers: what MobileNet's width alpha and resolution rho save, and what they cost.

Howard et al. 2017, "MobileNets", Sections 3.3 and 3.4, Tables 6, 7 and 9.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING

import torch

from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.context import StudyContext
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.timing import NO_CROP
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.sizing import Sheet

NETWORK = "mobilenet_v1_100"
PX = 224

Key = tuple[float, int]
"""Alpha, and height and width of the images, px."""

PUBLISHED: dict[Key, tuple[int, float]] = {
    (1.0, 224): (569, 70.6),
    (0.75, 224): (325, 68.4),
    (0.5, 224): (149, 63.7),
    (0.25, 224): (41, 50.6),
    (1.0, 192): (418, 69.1),
    (1.0, 160): (290, 67.2),
    (1.0, 128): (186, 64.4),
    (0.5, 160): (76, 60.2),
}
"""Tables 6, 7 and 9: million multiply-adds, and top-1 accuracy on ImageNet, %."""

ROUNDING = 0.01
"""How far, as a share, a printed number of multiply-adds may lie from the exact one."""

LAW = 0.2
"""How far, as a share, the cost may lie from alpha^2 rho^2, which the paper calls rough."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipliersKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        alphas: widths that are trained, at the largest size; the largest first.
        rhos: resolutions that are trained, as shares of the size of the images, at the largest width; the
            largest first.
        recipe: how all are trained, on a cosine and without random crops.
        lr: largest learning rate.
        batch_size: images of a step.
    """

    alphas: tuple[float, ...] = (1.0, 0.5, 0.25)
    rhos: tuple[float, ...] = (1.0, 0.75, 0.5)
    recipe: str = "resnet_cifar"
    lr: float = 0.05
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Checks that there is something to compare.

        Raises:
            ValueError: a row of multipliers has fewer than two, or does not fall to above 0.
        """
        super().__post_init__()
        for name, values in (("alphas", self.alphas), ("rhos", self.rhos)):
            if len(values) < 2 or list(values) != sorted(set(values), reverse=True) or values[-1] <= 0:
                raise ValueError(f"`{name}`={list(values)}; expected two or more above 0, the largest first")


Errors = dict[float, list[float]]
"""By multiplier: the test error for each seed, %."""


@dataclasses.dataclass(frozen=True)
class Results:
    """Of the networks that were trained.

    Attributes:
        widths: by alpha.
        resolutions: by rho.
        macs: multiply-adds of an image, by alpha and rho.
    """

    widths: Errors
    resolutions: Errors
    macs: dict[tuple[float, float], int]


def run(ctx: StudyContext[MultipliersKnobs]) -> Outcome:
    """Counts, then trains a row of widths and a row of resolutions."""
    knobs = ctx.knobs
    full = knobs.px or (ctx.source.image_size or (0, PX, PX))[1]
    alpha, rho = knobs.alphas[0], knobs.rhos[0]
    labs = {
        each: StudyContext(
            knobs=dataclasses.replace(knobs, px=max(1, round(each * full))),
            runs=ctx.runs,
            log=ctx.log,
        )
        for each in knobs.rhos
    }
    pairs = [*((each, rho) for each in knobs.alphas), *((alpha, each) for each in knobs.rhos)]
    results = Results(
        widths={each: [_test_error(labs[rho], each, seed) for seed in ctx.seeds] for each in knobs.alphas},
        resolutions={
            each: [_test_error(labs[each], alpha, seed) for seed in ctx.seeds] for each in knobs.rhos
        },
        macs={
            (a, r): sheet_of(a, labs[r].knobs.px, ctx.num_classes, ctx.in_chans).macs
            for a, r in dict.fromkeys(pairs)
        },
    )
    return Outcome(
        findings=(*find(results), *count(), *count_exactly(), *compare_with_law()),
        tables=(_error_table(results, full),),
        figures={"multipliers.png": render(functools.partial(draw, results))},
        reading=_reading(results),
    )


def sheet_of(alpha: float, px: int, num_classes: int = 1000, in_chans: int = 3) -> Sheet:
    """The sizes of MobileNet, by tracing."""
    with torch.device("meta"):
        net = create_model(NETWORK, num_classes=num_classes, in_chans=in_chans, width_mult=alpha)
    return size(net.eval(), px)


def count() -> tuple[Fact, ...]:
    """Multiply-adds at the paper's multipliers, beside what it prints."""
    return tuple(
        Fact(
            name=f"alpha {alpha:g}, {px} px: multiply-adds",
            value=sheet_of(alpha, px).macs / 1e6,
            claimed=float(printed),
            tolerance=ROUNDING,
            unit="million",
            note=f"published accuracy {accuracy} %",
        )
        for (alpha, px), (printed, accuracy) in PUBLISHED.items()
    )


def split(px: int) -> tuple[int, int]:
    """Multiply-adds at alpha 1: of the pointwise convolutions, and of all else."""
    sheet = sheet_of(1.0, px)
    pointwise = sum(row.macs for row in sheet.rows if ".pointwise." in row.path)
    return pointwise, sheet.macs - pointwise


def count_exactly() -> tuple[Fact, ...]:
    """What the law leaves out: only pointwise convolutions go as alpha^2, all else goes as alpha."""
    square, linear = split(PX)
    whole = square + linear
    return tuple(
        Fact(
            name=f"alpha {alpha:g}: share of multiply-adds, exactly",
            value=sheet_of(alpha, PX).macs / whole,
            claimed=(square * alpha**2 + linear * alpha) / whole,
            tolerance=1e-9,
            note=f"{square / whole:.4f} alpha^2 + {linear / whole:.4f} alpha",
        )
        for alpha in (0.75, 0.5, 0.25)
    )


def compare_with_law() -> tuple[Fact, ...]:
    """The share that is left, beside alpha^2 rho^2."""
    whole = sheet_of(1.0, PX).macs
    facts: list[Fact] = []
    for alpha, px in list(PUBLISHED)[1:]:
        share, law = sheet_of(alpha, px).macs / whole, alpha**2 * (px / PX) ** 2
        facts.append(
            Fact(
                name=f"alpha {alpha:g}, {px} px: share of multiply-adds, beside alpha^2 rho^2",
                value=share,
                claimed=law,
                tolerance=LAW,
                note=f"{100.0 * (share / law - 1.0):+.1f} %",
            )
        )
    return tuple(facts)


def find(results: Results) -> tuple[Effect, ...]:
    """What the smallest multipliers cost."""
    published = {"alpha": "20.0 from 1 to 0.25 on ImageNet", "rho": "6.2 from 1 to 0.57 on ImageNet"}
    effects: list[Effect] = []
    for name, errors in (("alpha", results.widths), ("rho", results.resolutions)):
        most, *_, least = errors
        effects.append(
            Effect(
                name=f"test error, {name} {least:g} minus {name} {most:g}",
                values=tuple(small - large for small, large in zip(errors[least], errors[most], strict=True)),
                unit="points",
                published=published[name],
            )
        )
    return tuple(effects)


def _test_error(ctx: StudyContext[MultipliersKnobs], alpha: float, seed: int) -> float:
    knobs = ctx.knobs
    return ctx.train(
        NETWORK,
        seed=seed,
        model={"width_mult": alpha},
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
        schedule="cosine",
        **NO_CROP,
    ).test_error


def _points(results: Results) -> dict[tuple[float, float], list[float]]:
    """By alpha and rho, the test errors."""
    alpha, rho = next(iter(results.widths)), next(iter(results.resolutions))
    points = {(each, rho): errors for each, errors in results.widths.items()}
    return points | {(alpha, each): errors for each, errors in results.resolutions.items()}


def _error_table(results: Results, px: int) -> Table:
    whole = next(iter(results.macs.values()))
    rows = tuple(
        (
            f"{alpha:g}",
            f"{rho:g} ({max(1, round(rho * px))} px)",
            f"{results.macs[alpha, rho] / 1e6:.2f} M",
            f"{results.macs[alpha, rho] / whole:.3f}",
            f"{statistics.fmean(errors):.2f} %",
            ", ".join(f"{error:.2f}" for error in errors),
        )
        for (alpha, rho), errors in _points(results).items()
    )
    heads = ("alpha", "rho", "MACs of an image", "share", "test error", "each seed")
    return Table("The networks that were trained", heads, rows)


def _reading(results: Results) -> str:
    square, linear = split(PX)
    said: list[str] = []
    for name, errors in (("alpha", results.widths), ("rho", results.resolutions)):
        most, *_, least = errors
        said.append(
            f"From {name} {most:g} to {least:g} the mean test error goes from "
            f"{statistics.fmean(errors[most]):.1f} to {statistics.fmean(errors[least]):.1f} %."
        )
    return " ".join(
        [
            f"At {PX} px, {100.0 * square / (square + linear):.1f} % of MobileNet's multiply-adds are "
            "pointwise and go as alpha^2; the others go as alpha, so that the law is too low by more, the "
            "narrower the network. The law of rho is missed only by the classifier, which costs the same at "
            "any size.",
            *said,
        ]
    )


def draw(results: Results, figure: Figure) -> None:
    """Cost over alpha, exact and by the law; and test error over cost."""
    costs, ends = figure.subplots(1, 2)
    square, linear = split(PX)
    grid = [index / 100.0 for index in range(20, 101)]
    costs.plot(grid, [each**2 for each in grid], "k--", lw=1.0, label="law: the multiplier squared")
    exact = [(square * each**2 + linear * each) / (square + linear) for each in grid]
    costs.plot(grid, exact, "C0-", lw=1.0, label="pointwise alpha^2, the rest alpha")
    for label, colour, marker, keys in (
        ("alpha at 224 px", "C0", "o", [key for key in PUBLISHED if key[1] == PX]),
        ("rho at alpha 1", "C1", "s", [key for key in PUBLISHED if key[0] == 1.0]),
    ):
        x = [alpha * px / PX for alpha, px in keys]
        shares = [sheet_of(alpha, px).macs / (square + linear) for alpha, px in keys]
        costs.plot(x, shares, f"{colour}{marker}", label=f"{label}, traced")
    costs.set(xlabel="multiplier", ylabel="share of the multiply-adds", title="MobileNet's cost at 224 px")
    costs.legend()
    alpha, rho = next(iter(results.widths)), next(iter(results.resolutions))
    for label, style, errors, keys in (
        ("alpha", "C0o-", results.widths, [(each, rho) for each in results.widths]),
        ("rho", "C1s-", results.resolutions, [(alpha, each) for each in results.resolutions]),
    ):
        x = [results.macs[key] / 1e6 for key in keys]
        means = [statistics.fmean(values) for values in errors.values()]
        ends.plot(x, means, style, label=f"{label}: {', '.join(f'{each:g}' for each in errors)}")
        for place, values in zip(x, errors.values(), strict=True):
            ends.scatter([place] * len(values), values, color=style[:2], s=12, alpha=0.6)
    ends.set(xlabel="million multiply-adds of an image", ylabel="test error (%)", xscale="log")
    ends.set_title("trained here (small dots: seeds)")
    ends.legend()


STUDY = Study(
    name="multipliers",
    source="Howard et al. 2017, MobileNets, arXiv 1704.04861, Sections 3.3 and 3.4, Tables 6, 7 and 9",
    published=(
        "alpha reduces cost and parameters by roughly alpha^2, rho the cost by rho^2",
        "alpha 1, 0.75, 0.5, 0.25 at 224 px: 569, 325, 149, 41 million; 70.6, 68.4, 63.7, 50.6 % on ImageNet",
        "224, 192, 160, 128 px at alpha 1: 569, 418, 290, 186 million; 70.6, 69.1, 67.2, 64.4 %",
    ),
    protocol="MobileNet at the paper's multipliers, sized by tracing; then MobileNets of several widths, and "
    "the widest on images brought to several sizes, for training and for testing, are trained alike from the "
    "same seeds.",
    refuted_by="Multiply-adds other than the paper's, or more than a fifth away from alpha^2 rho^2; a test "
    "error that is no higher at the smallest multiplier.",
    presets={
        "quick": MultipliersKnobs(images=2000, test_images=3000, px=32, epochs=4, rhos=(1.0, 0.5)),
        "standard": MultipliersKnobs(
            images=20000,
            px=48,
            epochs=4,
            alphas=(1.0, 0.75, 0.5, 0.25),
            rhos=(1.0, 0.75, 0.5, 0.33),
            batch_size=128,
        ),
        "full": MultipliersKnobs(
            data="cifar10",
            px=128,
            epochs=100,
            seeds=5,
            alphas=(1.0, 0.75, 0.5, 0.25),
            rhos=(1.0, 0.75, 0.5, 0.25),
            batch_size=128,
        ),
    },
    run=run,
)
