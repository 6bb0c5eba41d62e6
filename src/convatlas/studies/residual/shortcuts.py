"""Options A, B and C: whether a shortcut should have weights.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", Sections 3.3 and 4.1, Table 3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from torch import nn

from convatlas.models.registry import create_model
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.residual.degradation import check_depths
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

KINDS = ("plain", "A", "B", "C")
"""No shortcut; zeros for new channels; projections where shapes differ; projections everywhere."""


PUBLISHED = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}
"""Top-1 error of 34 layers on ImageNet with ten crops, in %: Tables 2 and 3."""


MARGIN = 1.0
"""Points of test error that count as little."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortcutsKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: layers of each network, 6n + 2.
    """

    depth: int = 32

    def __post_init__(self) -> None:
        """Checks the depth.

        Raises:
            ValueError: if no network has that depth.
        """
        super().__post_init__()
        check_depths({"depth": self.depth})


def run(ctx: StudyContext[ShortcutsKnobs]) -> Outcome:
    """Counts the weights of each option, then trains each network for each seed."""
    blocks = (ctx.knobs.depth - 2) // 6
    arms = {
        kind: Arm(network="plain20_cifar", model={"blocks_per_stage": blocks})
        if kind == "plain"
        else Arm(network="resnet20_cifar", model={"blocks_per_stage": blocks, "shortcut": kind})
        for kind in KINDS
    }
    return Outcome(compared=compare(ctx, arms), facts=count_facts())


def count_facts() -> tuple[Fact, ...]:
    """What the options cost in parameters, counted in built networks against the arithmetic.

    A projection from M to N channels has M x N weights and a scale and a shift for each of its N outputs.
    """
    counts = {kind: _params(create_model("resnet34", shortcut=kind)) for kind in "ABC"}
    opening = ((64, 128), (128, 256), (256, 512))
    others = ((64, 64),) * 3 + ((128, 128),) * 3 + ((256, 256),) * 5 + ((512, 512),) * 2
    unit = create_model("resnet50_v1").get_submodule("stages.0.1")
    weights = sum(parameter.numel() for parameter in unit.parameters() if parameter.ndim == 4)
    return (
        Fact(
            name="ResNet-34: parameters of option B more than A, three projections",
            value=counts["B"] - counts["A"],
            claimed=projected(opening),
            note=f"{counts['A']:,} and {counts['B']:,} in all",
        ),
        Fact(
            name="ResNet-34: parameters of option C more than B, thirteen projections",
            value=counts["C"] - counts["B"],
            claimed=projected(others),
            note=f"{counts['C']:,} in all",
        ),
        Fact(
            name="ResNet-50: weights of a 256-to-256 projection over those of the bottleneck it bypasses",
            value=256 * 256 / weights,
            claimed=256 * 256 / (256 * 64 + 9 * 64 * 64 + 64 * 256),
            tolerance=1e-9,
            note="so that with projections everywhere a bottleneck network would be twice as large",
        ),
    )


def projected(pairs: Iterable[tuple[int, int]]) -> int:
    """Parameters of 1x1 projections with batch normalisation.

    Args:
        pairs: channels that enter and leave each.
    """
    return sum(entering * leaving + 2 * leaving for entering, leaving in pairs)


def _params(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


STUDY = Study(
    name="shortcuts",
    version=2,
    source="He et al. 2015, arXiv 1512.03385, Sections 3.3 and 4.1, Tables 2 and 3",
    published=(
        "ImageNet, 34 layers, ten crops, top-1 error: plain 28.54, A 25.03, B 24.52, C 24.19 %",
        "projections are not essential for addressing the degradation problem",
    ),
    clauses=(
        Clause(
            name="any",
            says="Identity shortcuts (A) lower the error of a plain network.",
            measure="test error, no shortcut minus A",
            above=0.0,
            arms=difference("plain", "A"),
            published="28.54 - 25.03 = 3.51 (34 layers, ImageNet)",
        ),
        Clause(
            name="B",
            says=f"Projections where shapes differ (B) change the error by less than {MARGIN:g} point.",
            measure="test error, A minus B",
            within=MARGIN,
            arms=difference("A", "B"),
            published="25.03 - 24.52 = 0.51",
        ),
        Clause(
            name="C",
            says=f"Projections everywhere (C) change the error by less than {MARGIN:g} point.",
            measure="test error, A minus C",
            within=MARGIN,
            arms=difference("A", "C"),
            published="25.03 - 24.19 = 0.84",
        ),
    ),
    protocol="Networks without shortcuts and with options A, B and C are trained from the same "
    "seeds with the same "
    "steps and order of images, each at its own best learning rate of one grid. First weights by the paper.",
    presets={
        "quick": ShortcutsKnobs(
            images=2000,
            test_images=3000,
            px=14,
            epochs=4,
            seeds=3,
            depth=20,
            batch_size=16,
            pad=1,
            warmup=60,
            grow=1,
        ),
        "standard": ShortcutsKnobs(images=10000, px=14, epochs=6, pad=1, warmup=300),
        "full": ShortcutsKnobs(
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
    changes='Version 1 decided "little" by a one-sided effect, which harm by projections could only enlarge.',
)
