"""Multipliers: what MobileNet's width alpha and resolution rho save, and what they cost.

Howard et al. 2017, "MobileNets", Sections 3.3 and 3.4, Tables 6, 7 and 9.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from convatlas.models.registry import create_model
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
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
        alpha: the small width that is trained, beside 1.
        rho: the small resolution that is trained, beside 1, as a share of the size of the images.
    """

    alpha: float = 0.25
    rho: float = 0.5

    def __post_init__(self) -> None:
        """Checks that there is something to compare.

        Raises:
            ValueError: if a multiplier is not between 0 and 1.
        """
        super().__post_init__()
        for name in ("alpha", "rho"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"`{name}`={getattr(self, name)}; expected a share between 0 and 1")


def run(ctx: StudyContext[MultipliersKnobs]) -> Outcome:
    """Counts, then trains the whole network, a narrow one, and the whole one on small images."""
    knobs = ctx.knobs
    arms = {
        "whole": Arm(network=NETWORK, model={"width_mult": 1.0}),
        "narrow": Arm(network=NETWORK, model={"width_mult": knobs.alpha}),
        "small images": Arm(network=NETWORK, model={"width_mult": 1.0}, px=max(1, round(knobs.rho * ctx.px))),
    }
    return Outcome(
        compared=compare(ctx, arms),
        facts=(*count(), *count_exactly(), *compare_with_law()),
        reading="Only pointwise convolutions go as alpha^2, all else goes as alpha, so that the law "
        "is too low by "
        "more, the narrower the network.",
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


STUDY = Study(
    name="multipliers",
    version=2,
    source="Howard et al. 2017, MobileNets, arXiv 1704.04861, Sections 3.3 and 3.4, Tables 6, 7 and 9",
    published=(
        "alpha reduces cost and parameters by roughly alpha^2, rho the cost by rho^2",
        "alpha 1, 0.75, 0.5, 0.25 at 224 px: 569, 325, 149, 41 million; 70.6, 68.4, 63.7, 50.6 % on ImageNet",
        "224, 192, 160, 128 px at alpha 1: 569, 418, 290, 186 million; 70.6, 69.1, 67.2, 64.4 %",
    ),
    clauses=(
        Clause(
            name="alpha",
            says="A narrower network errs more.",
            measure="test error, narrow minus whole",
            above=0.0,
            arms=difference("narrow", "whole"),
            published="20.0 from 1 to 0.25 on ImageNet",
        ),
        Clause(
            name="rho",
            says="The whole network errs more on smaller images.",
            measure="test error, small images minus whole",
            above=0.0,
            arms=difference("small images", "whole"),
            published="6.2 from 1 to 0.57 on ImageNet",
        ),
    ),
    protocol="MobileNet at the paper's multipliers, sized by tracing; then MobileNets of two widths, and the "
    "whole one on images brought to a smaller size for training and for testing, are trained from "
    "the same seeds, "
    "each at its own best learning rate of one grid.",
    presets={
        "quick": MultipliersKnobs(images=2000, test_images=2000, px=32, epochs=4, seeds=3, grow=1),
        "standard": MultipliersKnobs(images=6000, test_images=4000, px=32, epochs=6, warmup=200),
        "full": MultipliersKnobs(
            data="cifar10", px=128, epochs=100, batch_size=128, flip=0.5, warmup=400, reach=20.0
        ),
    },
    run=run,
    changes="Version 1 had one learning rate for all.",
)
