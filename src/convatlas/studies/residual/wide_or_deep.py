"""Wide or deep: where parameters are better spent in a residual network, on channels or on layers.

Zagoruyko and Komodakis 2016, "Wide Residual Networks", Section 3 and Table 5.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from convatlas.models.network import check_count
from convatlas.models.registry import create_model
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import MIN_PROCESSES, Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.timing import time_in_fresh_processes
from convatlas.studies.verdict import Fact

NETWORK = "wide_resnet16_4_cifar"


DEEPEST = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideOrDeepKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        blocks: residual blocks in each stage of the wide network, n; it has 6n + 4 convolutions.
        width_mult: k, how much wider than the thin network it is.
        processes: fresh processes in which both are timed.
    """

    blocks: int = 1
    width_mult: int = 3
    processes: int = MIN_PROCESSES

    def __post_init__(self) -> None:
        """Checks the counts.

        Raises:
            ValueError: if one is out of its range.
        """
        super().__post_init__()
        check_count("blocks", self.blocks, least=1)
        check_count("width_mult", self.width_mult, least=2)
        check_count("processes", self.processes, least=1)


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of a network, WRN-d-k, and what it costs.

    Attributes:
        blocks: n, of each stage.
        width_mult: k.
        params: trainable parameters.
        macs: multiply-adds of an image.
    """

    blocks: int
    width_mult: int
    params: int
    macs: int

    @property
    def depth(self) -> int:
        """Convolutions, as the paper counts them."""
        return 6 * self.blocks + 4

    @property
    def name(self) -> str:
        """As the paper's."""
        return f"WRN-{self.depth}-{self.width_mult}"


def make_net(blocks: int, width_mult: int, in_chans: int, num_classes: int) -> nn.Module:
    """A wide residual network for the images; with `width_mult` 1 a thin one."""
    return create_model(
        NETWORK, num_classes=num_classes, in_chans=in_chans, blocks_per_stage=blocks, width_mult=width_mult
    )


def shape(ctx: StudyContext[WideOrDeepKnobs], blocks: int, width_mult: int) -> Shape:
    """What a network costs, by tracing."""
    in_chans, num_classes = ctx.in_chans, ctx.num_classes
    with torch.device("meta"):
        net = make_net(blocks, width_mult, in_chans, num_classes)
    sheet = size(net.eval(), ctx.source.image_size or 32)
    return Shape(blocks, width_mult, sheet.params, sheet.macs)


def match(ctx: StudyContext[WideOrDeepKnobs], wide: Shape) -> Shape:
    """The thin network whose number of parameters is nearest to the wide one's.

    Raises:
        ValueError: it would be too deep to be built.
    """
    one, two = shape(ctx, 1, 1), shape(ctx, 2, 1)
    blocks = 1 + max(0, round((wide.params - one.params) / (two.params - one.params)))
    if blocks > DEEPEST:
        raise ValueError(
            f"`width_mult`={wide.width_mult}, `blocks`={wide.blocks}: the thin network would need {blocks} "
            f"blocks in each stage; the most is {DEEPEST}"
        )
    return shape(ctx, blocks, 1)


def steps(nets: list[list[int]], in_chans: int, px: int, num_classes: int) -> list[Callable[[], object]]:
    """Forward passes of one image through networks given as (blocks, width)."""
    x = torch.randn(1, in_chans, px, px).to(memory_format=torch.channels_last)
    made = [
        make_net(blocks, width, in_chans, num_classes).eval().to(memory_format=torch.channels_last)
        for blocks, width in nets
    ]
    return [functools.partial(_forward, net, x) for net in made]


@torch.inference_mode()
def _forward(net: nn.Module, x: Tensor) -> object:
    return net(x)


def run(ctx: StudyContext[WideOrDeepKnobs]) -> Outcome:
    """Finds the thin network with as many parameters, times both, and trains both for each seed."""
    knobs = ctx.knobs
    wide = shape(ctx, knobs.blocks, knobs.width_mult)
    thin = match(ctx, wide)
    nets = {"thin": thin, "wide": wide}
    arms = {
        name: Arm(network=NETWORK, model={"blocks_per_stage": net.blocks, "width_mult": net.width_mult})
        for name, net in nets.items()
    }
    compared = compare(ctx, arms)
    shapes = [[net.blocks, net.width_mult] for net in nets.values()]
    asked = {"nets": shapes, "in_chans": ctx.in_chans, "px": ctx.px, "num_classes": ctx.num_classes}
    slow, fast = time_in_fresh_processes(steps, asked, knobs.processes)
    rows = tuple(
        (
            name,
            net.name,
            f"{net.params:,}",
            f"{net.macs / 1e6:.1f} M",
            f"{1e3 * statistics.median(taken):.2f} ms",
        )
        for (name, net), taken in zip(nets.items(), (slow, fast), strict=True)
    )
    return Outcome(
        compared=compared,
        samples={"sooner": [a / b for a, b in zip(slow, fast, strict=True)]},
        facts=(
            Fact(
                name=f"parameters, {thin.name} over {wide.name}",
                value=thin.params / wide.params,
                claimed=1.0,
                tolerance=0.1,
                note=f"{thin.params:,} over {wide.params:,}; multiply-adds {thin.macs / wide.macs:.2f} times",
            ),
        ),
        tables=(Table("Networks", ("arm", "network", "parameters", "MACs", "one image"), rows),),
    )


STUDY = Study(
    name="wide-or-deep",
    version=2,
    source="Zagoruyko and Komodakis 2016, arXiv 1605.07146, Section 3, Table 5 and Figure 4",
    published=(
        "CIFAR-10, test error: WRN-40-4 (8.9M parameters) 4.53 %, pre-activation ResNet-1001 (10.2M) 4.92 %",
        "forward and backward on a Titan X, batch of 32: WRN-40-4 68 ms, ResNet-1001 512 ms",
    ),
    clauses=(
        Clause(
            name="error",
            says="The wide network errs less than the thin one of as many parameters.",
            measure="test error, thin minus wide",
            above=0.0,
            arms=difference("thin", "wide"),
            published="4.92 - 4.53 = 0.39 (CIFAR-10)",
        ),
        Clause(
            name="sooner",
            says="The wide network answers sooner.",
            measure="time of a forward pass of one image, thin over wide",
            unit="x",
            above=1.0,
            needs=MIN_PROCESSES,
            published="training step: 512 / 68 = 7.5 (Titan X)",
        ),
    ),
    protocol="A wide residual network of few layers, and the thin one (k = 1) whose number of "
    "parameters is nearest, "
    "are trained from the same seeds with the same steps and order of images, each at its own best "
    "learning rate of "
    "one grid; first weights by the paper. A forward pass of one image is timed in fresh processes, "
    "both in turns.",
    presets={
        "quick": WideOrDeepKnobs(
            images=2000, test_images=3000, px=14, epochs=4, seeds=3, batch_size=16, warmup=60
        ),
        "standard": WideOrDeepKnobs(images=10000, epochs=6, px=14, warmup=300),
        "full": WideOrDeepKnobs(
            data="cifar10",
            blocks=6,
            width_mult=4,
            epochs=200,
            recipe="wide_resnet_cifar",
            schedule="recipe",
            batch_size=128,
            flip=0.5,
            pad=4,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 had one learning rate for both, and rounds of one process as independent times.",
)
