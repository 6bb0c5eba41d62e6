"""Degradation: plain networks get worse with depth, on the images that they are trained on too.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", Section 4.2, Figures 1 and 6.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study


@dataclasses.dataclass(frozen=True, kw_only=True)
class DegradationKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        shallow: layers of the shallow networks, 6n + 2.
        deep: layers of the deep networks, 6n + 2.
    """

    shallow: int = 20
    deep: int = 56

    def __post_init__(self) -> None:
        """Checks the depths.

        Raises:
            ValueError: if no network has such a depth, or the deep ones are no deeper.
        """
        super().__post_init__()
        check_depths({"shallow": self.shallow, "deep": self.deep})


def check_depths(depths: Mapping[str, int]) -> None:
    """Checks that depths are 6n + 2 and rise.

    Raises:
        ValueError: if they are not.
    """
    for name, depth in depths.items():
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"`{name}`={depth}; expected 6n + 2 layers, near {max(8, depth - (depth - 2) % 6)}"
            )
    values = list(depths.values())
    if values != sorted(set(values)):
        raise ValueError(f"`{'`, `'.join(depths)}`={values}; expected depths that rise")


def run(ctx: StudyContext[DegradationKnobs]) -> Outcome:
    """Trains four networks for each seed."""
    arms = {
        f"{kind} {which}": Arm(
            network=f"{kind}20_cifar", model={"blocks_per_stage": (getattr(ctx.knobs, which) - 2) // 6}
        )
        for kind in ("plain", "residual")
        for which in ("shallow", "deep")
    }
    arms = {
        name: dataclasses.replace(arm, network=str(arm.network).replace("residual", "resnet"))
        for name, arm in arms.items()
    }
    return Outcome(
        compared=compare(ctx, arms, splits=("test", "train")),
        reading="An error that rises with depth on the training images is no overfitting: the deep "
        "plain network "
        "could copy the shallow one, and the optimiser does not find it.",
    )


MARGIN = 1.0
"""Points by which a deep residual network may be worse and still count as not degraded."""


def _clause(kind: str, split: Literal["test", "train"]) -> Clause:
    plain = kind == "plain"
    errors = "training" if split == "train" else "test"
    return Clause(
        name=f"{kind}-{split}",
        says=f"A deep plain network's {errors} error is higher than a shallow one's."
        if plain
        else f"A deep residual network's {errors} error is higher than a shallow one's by less than "
        f"{MARGIN:g} point.",
        measure=f"{errors} error, deep {kind} minus shallow {kind}",
        above=0.0 if plain else None,
        below=None if plain else MARGIN,
        arms=difference(f"{kind} deep", f"{kind} shallow"),
        split=split,
        published="curves only (Figure 6)" if plain or split == "train" else "6.97 - 8.75 = -1.78 (CIFAR-10)",
    )


STUDY = Study(
    name="degradation",
    version=2,
    source="He et al. 2015, arXiv 1512.03385, Section 4.2, Figure 6 and Table 6",
    published=(
        "CIFAR-10, plain networks: curves only; plain-110 ends above 60 % error",
        "CIFAR-10, residual networks, test error: 20 layers 8.75 %, 56 layers 6.97 %",
        "ImageNet, 10 crops, top-1: plain-18 27.94, plain-34 28.54; ResNet-18 27.88, ResNet-34 25.03 %",
    ),
    clauses=(
        _clause("plain", "train"),
        _clause("plain", "test"),
        _clause("residual", "train"),
        _clause("residual", "test"),
        Clause(
            name="deep",
            says="At the larger depth the residual network errs less.",
            measure="test error, deep plain minus deep residual",
            above=0.0,
            arms=difference("plain deep", "residual deep"),
            decides=False,
        ),
    ),
    protocol="Plain and residual networks of two depths, with equal parameters at equal depth, are "
    "trained from the "
    "same seeds with the same steps, order of images and warm-up, each at its own best learning "
    "rate of one grid. "
    "First weights by the paper (He 2015, option A). Training error is measured at the end, without "
    "augmentation.",
    presets={
        "quick": DegradationKnobs(
            images=2000,
            test_images=2000,
            px=14,
            epochs=4,
            seeds=3,
            deep=44,
            batch_size=16,
            pad=1,
            warmup=60,
            grid=(0.01, 0.03, 0.1),
            grow=1,
        ),
        "standard": DegradationKnobs(
            images=10000, px=14, epochs=6, pad=1, warmup=300, grid=(0.02, 0.05, 0.12)
        ),
        "full": DegradationKnobs(
            data="cifar10",
            epochs=164,
            schedule="recipe",
            batch_size=128,
            flip=0.5,
            pad=4,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 had no clause for residual networks, one learning rate for all, and "
    "intervals over seeds alone.",
)
