"""Cardinality: more groups in a residual block, of fewer channels each, at the same cost.

Xie et al. 2016, "Aggregated Residual Transformations for Deep Neural Networks", Tables 2 and 3.
"""

from __future__ import annotations

import dataclasses
import functools

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.head import ClassifierHead
from convatlas.models.network import check_count
from convatlas.models.resnext import EXPANSION, make_resnext_block
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

WIDTHS = {1: 64, 2: 40, 4: 24, 8: 14, 32: 4}
"""Table 2: cardinality C, and the width d of a group at which a block has about 70 thousand weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardinalityKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        few: C of the network with the fewest groups, from Table 2.
        many: C of the network with the most groups.
        stage_widths: a block of width w has w / 64 times the channels of the paper's first stage.
        blocks: residual blocks in each stage.
    """

    few: int = 1
    many: int = 4
    stage_widths: tuple[int, ...] = (16, 32)
    blocks: int = 2

    def __post_init__(self) -> None:
        """Checks the groups.

        Raises:
            ValueError: if a cardinality is not in Table 2, there are not more groups in one network, a group
                would have fewer than two channels, or a count is out of its range.
        """
        super().__post_init__()
        if self.few not in WIDTHS or self.many not in WIDTHS or not self.few < self.many:
            raise ValueError(
                f"`few`={self.few}, `many`={self.many}; expected two of "
                f"{', '.join(map(str, WIDTHS))} that rise"
            )
        check_count("blocks", self.blocks, least=1)
        step = 32 if 8 in (self.few, self.many) else 16
        for width in self.stage_widths:
            if width < step or width % step:
                raise ValueError(
                    f"`stage_widths`={list(self.stage_widths)}; expected multiples of {step}, with which "
                    "the costs are equal"
                )
        if WIDTHS[self.many] * min(self.stage_widths) < 2 * 64:
            raise ValueError(
                f"`many`={self.many} with `stage_widths`={list(self.stage_widths)}: groups of one "
                f"channel are "
                f"another kind of layer; the narrowest stage must be at least {128 // WIDTHS[self.many]}"
            )


class CardinalityNet(nn.Module):
    """A 3x3 convolution, stages of ResNeXt's blocks that halve H and W between them, mean, linear layer.

    Args:
        cardinality: C.
        stage_widths: as ResNeXt's 64, 128, ...
        blocks: in each stage.
        in_chans: channels of the images.
        num_classes: K.

    Shape: x (B, C, H, W) -> (B, K).
    """

    def __init__(
        self,
        *,
        cardinality: int,
        stage_widths: tuple[int, ...],
        blocks: int,
        in_chans: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        chans = stage_widths[0]
        self.stem = ConvNormAct(in_chans, chans, 3, padding=1)
        layers: list[nn.Module] = []
        for stage, width in enumerate(stage_widths):
            for block in range(blocks):
                layers.append(
                    make_resnext_block(
                        chans,
                        width,
                        2 if stage > 0 and block == 0 else 1,
                        cardinality=cardinality,
                        bottleneck_width=WIDTHS[cardinality],
                        shortcut="B",
                        drop_path_rate=0.0,
                    )
                )
                chans = EXPANSION * width
        self.stages = nn.Sequential(*layers)
        self.head = ClassifierHead(chans, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images."""
        return self.head(self.stages(self.stem(x)))


def run(ctx: StudyContext[CardinalityKnobs]) -> Outcome:
    """Counts, then trains a network of each cardinality for each seed."""
    knobs = ctx.knobs
    arms = {
        name: Arm(
            network=functools.partial(_net, ctx, groups),
            label=f"groups{name_of(groups)}-{'-'.join(map(str, knobs.stage_widths))}x{knobs.blocks}",
        )
        for name, groups in (("few groups", knobs.few), ("many groups", knobs.many))
    }
    costs = {groups: cost(ctx, groups) for groups in (knobs.few, knobs.many)}
    return Outcome(compared=compare(ctx, arms), facts=(*count(), *compare_costs(costs)))


def name_of(cardinality: int) -> str:
    """As the paper calls the block."""
    return f"{cardinality}x{WIDTHS[cardinality]}d"


def block_weights(cardinality: int) -> int:
    """Weights of the convolutions of a block with 256 channels: its multiply-adds for a map of 1 px."""
    block = make_resnext_block(
        256,
        64,
        1,
        cardinality=cardinality,
        bottleneck_width=WIDTHS[cardinality],
        shortcut="B",
        drop_path_rate=0.0,
    )
    return size(block.eval(), (256, 1, 1)).macs


def count() -> tuple[Fact, ...]:
    """The blocks of Table 2, which prints about 70 thousand weights for each."""
    return tuple(
        Fact(
            name=f"weights of a block {name_of(cardinality)}, 256 channels in and out",
            value=block_weights(cardinality),
            claimed=70_000,
            tolerance=0.03,
            note="C (256 d + 9 d^2 + 256 d)",
        )
        for cardinality in WIDTHS
    )


Cost = tuple[int, int]
"""Parameters, and multiply-adds of an image."""


def cost(ctx: StudyContext[CardinalityKnobs], cardinality: int) -> Cost:
    """Of a network that is trained, by tracing."""
    sheet = size(_net(ctx, cardinality).eval(), ctx.source.image_size or 32)
    return sheet.params, sheet.macs


def compare_costs(costs: dict[int, Cost]) -> tuple[Fact, ...]:
    """Whether the networks that are trained cost the same."""
    first, *others = costs
    return tuple(
        Fact(
            name=f"{what} of the trained network, {name_of(other)} over {name_of(first)}",
            value=costs[other][index] / costs[first][index],
            claimed=1.0,
            tolerance=0.05,
        )
        for other in others
        for index, what in enumerate(("parameters", "multiply-adds"))
    )


def _net(ctx: StudyContext[CardinalityKnobs], cardinality: int) -> CardinalityNet:
    return CardinalityNet(
        cardinality=cardinality,
        stage_widths=ctx.knobs.stage_widths,
        blocks=ctx.knobs.blocks,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )


STUDY = Study(
    name="cardinality",
    version=2,
    source="Xie et al. 2016, arXiv 1611.05431, Tables 2 and 3",
    published=(
        "a block of 1x64d, 2x40d, 4x24d, 8x14d or 32x4d has about 70 thousand weights",
        "ImageNet, 50 layers, top-1 error: 1x64d 23.9 %, 32x4d 22.2 %",
    ),
    clauses=(
        Clause(
            name="error",
            says="At equal cost, the network with more groups errs less.",
            measure="test error, few groups minus many groups",
            above=0.0,
            arms=difference("few groups", "many groups"),
            published="1x64d minus 32x4d: 1.7 on ImageNet",
        ),
    ),
    protocol="Small residual networks with the blocks of Table 2, all channels divided by one number, so "
    "that parameters and multiply-adds stay equal (computed by tracing) and every group has at "
    "least two channels, "
    "are trained from the same seeds, each at its own best learning rate of one grid.",
    presets={
        "quick": CardinalityKnobs(
            images=2000, test_images=4000, px=14, epochs=4, seeds=3, batch_size=16, warmup=60
        ),
        "standard": CardinalityKnobs(
            images=10000, epochs=6, px=14, many=8, stage_widths=(32, 64), warmup=300
        ),
        "full": CardinalityKnobs(
            data="cifar10",
            epochs=164,
            schedule="recipe",
            many=32,
            stage_widths=(64, 128, 256),
            blocks=3,
            batch_size=128,
            flip=0.5,
            pad=4,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 compared 32 groups of one channel, which are depthwise, and had one learning rate.",
)
