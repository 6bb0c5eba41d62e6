"""Cardinality: more groups in a residual block, of fewer channels each, at the same cost.

Xie et al. 2016, "Aggregated Residual Transformations for Deep Neural Networks", Tables 2 and 3.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.head import ClassifierHead
from convatlas.models.network import check_count
from convatlas.models.resnext import EXPANSION, make_resnext_block
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.timing import NO_CROP
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext

WIDTHS = {1: 64, 2: 40, 4: 24, 8: 14, 32: 4}
"""Table 2: cardinality C, and the width d of a group at which a block has about 70 thousand weights."""

PUBLISHED = {1: 23.9, 32: 22.2}
"""Table 3: top-1 error of the 50-layer network of this cardinality on ImageNet, %, at both ends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardinalityKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        cardinalities: C, from Table 2; the first is compared with the others, and the last decides.
        stage_widths: a block of width w has w / 64 times the channels of the paper's first stage. Whole
            multiples of 16, or of 32 with 8 groups, keep the costs equal.
        blocks: residual blocks in each stage.
        recipe: how all are trained, on a cosine and without random crops.
        lr: largest learning rate.
        batch_size: images of a step.
    """

    cardinalities: tuple[int, ...] = (1, 4, 32)
    stage_widths: tuple[int, ...] = (16, 32)
    blocks: int = 2
    recipe: str = "resnet_cifar"
    lr: float = 0.1
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Checks the groups.

        Raises:
            ValueError: a cardinality is not in Table 2, or a count is out of its range.
        """
        super().__post_init__()
        unknown = [count for count in self.cardinalities if count not in WIDTHS]
        if unknown or len(self.cardinalities) < 2:
            raise ValueError(
                f"`cardinalities`={list(self.cardinalities)}; expected two or more of "
                f"{', '.join(map(str, WIDTHS))}"
            )
        check_count("blocks", self.blocks, least=1)
        step = 32 if 8 in self.cardinalities else 16
        for width in self.stage_widths:
            if width < step or width % step:
                raise ValueError(
                    f"`stage_widths`={list(self.stage_widths)}; expected multiples of {step}, with which "
                    "the costs are equal"
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
        """Computes the logits of images."""
        return self.head(self.stages(self.stem(x)))


Errors = dict[int, list[float]]
"""By cardinality: the test error for each seed, %."""


def run(ctx: StudyContext[CardinalityKnobs]) -> Outcome:
    """Counts, then trains a network of each cardinality for each seed."""
    knobs = ctx.knobs
    errors: Errors = {
        cardinality: [_test_error(ctx, cardinality, seed) for seed in ctx.seeds]
        for cardinality in knobs.cardinalities
    }
    costs = {cardinality: cost(ctx, cardinality) for cardinality in knobs.cardinalities}
    return Outcome(
        findings=(*find(errors), *count(), *compare(costs)),
        tables=(_table(errors, costs),),
        figures={"cardinality.png": render(functools.partial(draw, errors, costs))},
        reading=_reading(errors),
    )


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


def compare(costs: dict[int, Cost]) -> tuple[Fact, ...]:
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


def find(errors: Errors) -> tuple[Effect, ...]:
    """What more groups gain over the fewest; the most groups decide."""
    first, *others = errors
    effects: list[Effect] = []
    for other in others:
        printed = {first, other} <= PUBLISHED.keys()
        effects.append(
            Effect(
                name=f"test error, {name_of(first)} minus {name_of(other)}",
                values=tuple(few - many for few, many in zip(errors[first], errors[other], strict=True)),
                unit="points",
                published=f"{PUBLISHED[first] - PUBLISHED[other]:.1f} on ImageNet" if printed else "",
                decides=other == others[-1],
            )
        )
    return tuple(effects)


def _net(ctx: StudyContext[CardinalityKnobs], cardinality: int) -> CardinalityNet:
    return CardinalityNet(
        cardinality=cardinality,
        stage_widths=ctx.knobs.stage_widths,
        blocks=ctx.knobs.blocks,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )


def _test_error(ctx: StudyContext[CardinalityKnobs], cardinality: int, seed: int) -> float:
    knobs = ctx.knobs
    return ctx.train(
        functools.partial(_net, ctx, cardinality),
        label=f"groups{name_of(cardinality)}-{'-'.join(map(str, knobs.stage_widths))}x{knobs.blocks}",
        seed=seed,
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
        schedule="cosine",
        **NO_CROP,
    ).test_error


def _table(errors: Errors, costs: dict[int, Cost]) -> Table:
    rows = tuple(
        (
            name_of(cardinality),
            f"{costs[cardinality][0]:,}",
            f"{costs[cardinality][1] / 1e6:.2f} M",
            f"{statistics.fmean(values):.2f} %",
            ", ".join(f"{value:.2f}" for value in values),
            f"{PUBLISHED[cardinality]} %" if cardinality in PUBLISHED else "",
        )
        for cardinality, values in errors.items()
    )
    heads = ("blocks", "parameters", "MACs of an image", "test error", "each seed", "published, ImageNet")
    return Table("Each network", heads, rows)


def _reading(errors: Errors) -> str:
    first, *_, last = errors
    means = {cardinality: statistics.fmean(values) for cardinality, values in errors.items()}
    return (
        f"From {name_of(first)} to {name_of(last)}, at the same cost, the mean test error goes "
        f"from {means[first]:.2f} to {means[last]:.2f} %. A block is named by the paper's first "
        "stage; the trained networks have fewer channels throughout. The paper's gain on ImageNet, from "
        f"{name_of(1)} to {name_of(32)}, is {PUBLISHED[1] - PUBLISHED[32]:.1f} points."
    )


def draw(errors: Errors, costs: dict[int, Cost], figure: Figure) -> None:
    """Test error over cardinality, the paper's beside it, and what the networks cost."""
    ends, sizes = figure.subplots(1, 2, width_ratios=(3, 2))
    places = list(range(len(errors)))
    names = [name_of(cardinality) for cardinality in errors]
    for place, values in zip(places, errors.values(), strict=True):
        ends.scatter([place] * len(values), values, color="C0", alpha=0.7)
    means = [statistics.fmean(values) for values in errors.values()]
    ends.plot(places, means, "C0-", label="here (dots: seeds)")
    printed = [(place, PUBLISHED[key]) for place, key in zip(places, errors, strict=True) if key in PUBLISHED]
    ends.plot(*zip(*printed, strict=True), "kx", label="published, ImageNet top-1")
    ends.set(ylabel="test error (%)", title="more groups at equal cost")
    ends.legend()
    for shift, index, label in ((-0.2, 0, "parameters"), (0.2, 1, "multiply-adds")):
        first = next(iter(costs.values()))[index]
        ratios = [cost_[index] / first for cost_ in costs.values()]
        sizes.bar([place + shift for place in places], ratios, 0.36, label=label, color=f"C{2 + index}")
    sizes.set(ylabel=f"over {names[0]}'s", title="cost of the networks", ylim=(0.0, 1.4))
    sizes.legend(loc="upper right", ncols=2)
    for axes in (ends, sizes):
        axes.set_xticks(places, names)
    ends.set_xlabel("groups x channels of each, in the paper's first stage")


STUDY = Study(
    name="cardinality",
    source="Xie et al. 2016, arXiv 1611.05431, Tables 2 and 3",
    published=(
        "a block of 1x64d, 2x40d, 4x24d, 8x14d or 32x4d has about 70 thousand weights",
        "ImageNet, 50 layers, top-1 error: 1x64d 23.9 %, 32x4d 22.2 %",
    ),
    protocol="Small residual networks with the blocks of Table 2, all channels divided by one number, so "
    "that parameters and multiply-adds stay equal (computed by tracing), are trained alike.",
    refuted_by="Networks whose costs differ; or a test error that is no lower with the most groups.",
    presets={
        "quick": CardinalityKnobs(images=3000, test_images=4000, px=14, epochs=3, seeds=4),
        "standard": CardinalityKnobs(
            images=20000, epochs=6, px=20, seeds=5, cardinalities=(1, 2, 4, 32), stage_widths=(32, 64)
        ),
        "full": CardinalityKnobs(
            data="cifar10",
            epochs=164,
            seeds=5,
            cardinalities=(1, 2, 4, 8, 32),
            stage_widths=(64, 128, 256),
            blocks=3,
            batch_size=128,
        ),
    },
    run=run,
)
