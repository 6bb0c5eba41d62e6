"""Wide or deep: where parameters are better spent in a residual network, on channels or on layers.

Zagoruyko and Komodakis 2016, "Wide Residual Networks", Section 3 and Table 5.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING

import torch
from torch import nn

from convatlas.models.network import check_count
from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.timing import NO_CROP, time_in_turns
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext

NETWORK = "wide_resnet16_4_cifar"
DEEPEST = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideOrDeepKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        blocks: residual blocks in each stage of the wide network, n; it has 6n + 4 convolutions.
        width_mult: k, how much wider than the thin network it is.
        recipe: how both are trained, on a cosine and without random crops.
        lr: largest learning rate.
        batch_size: images of a step, timed steps too.
        rounds: how often both networks are timed, in turns; each round gives one value of the effect.
    """

    blocks: int = 1
    width_mult: int = 3
    recipe: str = "wide_resnet_cifar"
    lr: float = 0.1
    batch_size: int = 64
    rounds: int = 9

    def __post_init__(self) -> None:
        """Checks the counts.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_count("blocks", self.blocks, least=1)
        check_count("width_mult", self.width_mult, least=2)
        check_count("rounds", self.rounds, least=1)


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


Times = tuple[tuple[float, ...], tuple[float, ...]]
"""Of the thin and of the wide network, s, for each round."""


@dataclasses.dataclass(frozen=True)
class Results:
    """Of the thin and the wide network.

    Attributes:
        errors: on the test images, %, for each seed.
        steps: of a training step, forward and backward, s, for each round.
        passes: of a forward pass of one image.
    """

    errors: tuple[list[float], list[float]]
    steps: Times
    passes: Times


def run(ctx: StudyContext[WideOrDeepKnobs]) -> Outcome:
    """Finds the thin network with as many parameters, times both, and trains both for each seed."""
    knobs = ctx.knobs
    wide = shape(ctx, knobs.blocks, knobs.width_mult)
    thin = match(ctx, wide)
    steps, passes = measure(ctx, thin, wide)
    results = Results(
        errors=(
            [_test_error(ctx, thin, seed) for seed in ctx.seeds],
            [_test_error(ctx, wide, seed) for seed in ctx.seeds],
        ),
        steps=steps,
        passes=passes,
    )
    return Outcome(
        findings=find(thin, wide, results),
        tables=(_table(thin, wide, results),),
        figures={"wide-or-deep.png": render(functools.partial(draw, thin, wide, results))},
        reading=_reading(thin, wide, results, knobs),
    )


def make_net(ctx: StudyContext[WideOrDeepKnobs], blocks: int, width_mult: int) -> nn.Module:
    """A wide residual network for the images; with `width_mult` 1 a thin one."""
    return create_model(
        NETWORK,
        num_classes=ctx.num_classes,
        in_chans=ctx.in_chans,
        blocks_per_stage=blocks,
        width_mult=width_mult,
    )


def shape(ctx: StudyContext[WideOrDeepKnobs], blocks: int, width_mult: int) -> Shape:
    """What a network costs, by tracing."""
    px = ctx.source.image_size or 32
    with torch.device("meta"):
        net = make_net(ctx, blocks, width_mult)
    sheet = size(net.eval(), px)
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


def measure(ctx: StudyContext[WideOrDeepKnobs], thin: Shape, wide: Shape) -> tuple[Times, Times]:
    """Times training steps of a batch and forward passes of one image, both networks in turns."""
    knobs = ctx.knobs
    chans, height, width = ctx.source.image_size or (ctx.in_chans, 32, 32)
    torch.manual_seed(knobs.first_seed)
    x = torch.randn(knobs.batch_size, chans, height, width).to(memory_format=torch.channels_last)
    labels = torch.randint(ctx.num_classes, (knobs.batch_size,))
    nets = [
        make_net(ctx, each.blocks, each.width_mult).to(memory_format=torch.channels_last)
        for each in (thin, wide)
    ]
    slow, fast = time_in_turns(
        [functools.partial(_step, net.train(), x, labels) for net in nets], knobs.rounds
    )
    with torch.inference_mode():
        passes = [functools.partial(net.eval(), x[:1]) for net in nets]
        late, soon = time_in_turns(passes, knobs.rounds)
    return (slow, fast), (late, soon)


def _step(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> None:
    net.zero_grad()
    nn.functional.cross_entropy(net(x), labels).backward()


def find(thin: Shape, wide: Shape, results: Results) -> tuple[Effect | Fact, ...]:
    """The effects that decide, and that the comparison is fair."""
    return (
        Effect(
            name=f"test error, {thin.name} minus {wide.name}",
            values=tuple(a - b for a, b in zip(*results.errors, strict=True)),
            unit="points",
            published="ResNet-1001 4.92 minus WRN-40-4 4.53 = 0.39 (CIFAR-10, 10.2M and 8.9M parameters)",
        ),
        Effect(
            name=f"time of a training step, {thin.name} over {wide.name}",
            values=tuple(a / b for a, b in zip(*results.steps, strict=True)),
            unit="x",
            least=1.0,
            published="ResNet-1001 512 ms over WRN-40-4 68 ms = 7.5 (Titan X)",
            decides=False,
        ),
        Effect(
            name=f"time of a forward pass of one image, {thin.name} over {wide.name}",
            values=tuple(a / b for a, b in zip(*results.passes, strict=True)),
            unit="x",
            least=1.0,
        ),
        Fact(
            name=f"parameters, {thin.name} over {wide.name}",
            value=thin.params / wide.params,
            claimed=1.0,
            tolerance=0.1,
            note=f"{thin.params:,} over {wide.params:,}; multiply-adds {thin.macs / wide.macs:.2f} times",
        ),
    )


def _test_error(ctx: StudyContext[WideOrDeepKnobs], each: Shape, seed: int) -> float:
    knobs = ctx.knobs
    return ctx.train(
        functools.partial(make_net, ctx, each.blocks, each.width_mult),
        label=each.name.lower(),
        seed=seed,
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
        schedule="cosine",
        **NO_CROP,
    ).test_error


def _table(thin: Shape, wide: Shape, results: Results) -> Table:
    rows = tuple(
        (
            each.name,
            f"{each.depth}",
            f"{each.params:,}",
            f"{each.macs / 1e6:.1f} M",
            f"{1e3 * statistics.median(steps):.0f} ms",
            f"{1e3 * statistics.median(passes):.2f} ms",
            f"{statistics.fmean(errors):.2f} %",
            ", ".join(f"{error:.2f}" for error in errors),
        )
        for each, errors, steps, passes in zip(
            (thin, wide), results.errors, results.steps, results.passes, strict=True
        )
    )
    heads = ("network", "convolutions", "parameters", "MACs", "training step", "one image", "test error")
    return Table("Both networks", (*heads, "each seed"), rows)


def _reading(thin: Shape, wide: Shape, results: Results, knobs: WideOrDeepKnobs) -> str:
    thin_error, wide_error = (statistics.fmean(errors) for errors in results.errors)
    step, one = (
        statistics.median(a / b for a, b in zip(*times, strict=True))
        for times in (results.steps, results.passes)
    )
    return (
        f"With about as many parameters, the thin network of {thin.depth} convolutions errs on "
        f"{thin_error:.1f} % of the test images and the wide one of {wide.depth} on {wide_error:.1f} %. A "
        f"training step of the thin one takes {step:.1f} times as long and a forward pass of one image "
        f"{one:.1f} times, with {thin.macs / wide.macs:.1f} times the multiply-adds: many small layers, one "
        f"after the other, keep a processor less busy than a few large ones. The errors are those after "
        f"{knobs.epochs} epochs, where depth still delays the thin network; the paper trains to the end, "
        "where the difference is a fraction of a point."
    )


def draw(thin: Shape, wide: Shape, results: Results, figure: Figure) -> None:
    """Test errors of every seed, and times of every round, side by side."""
    names = [f"{each.name}\n{each.params / 1e6:.2f} M" for each in (thin, wide)]
    steps, passes = (
        [[1e3 * value for value in values] for values in times] for times in (results.steps, results.passes)
    )
    titles = ("test error (dots: seeds)", "training step of a batch", "forward pass of one image")
    panels = zip(figure.subplots(1, 3), titles, (results.errors, steps, passes), strict=True)
    for index, (axes, title, values) in enumerate(panels):
        for place, mine in enumerate(values):
            axes.scatter([place] * len(mine), mine, color=("C1", "C0")[place], alpha=0.7)
            axes.hlines(statistics.median(mine), place - 0.2, place + 0.2, color=("C1", "C0")[place])
        axes.set_xticks((0, 1), names)
        axes.set_xlim(-0.6, 1.6)
        axes.set_xlabel("network and its parameters")
        axes.set(ylabel="ms" if index else "test error (%)", title=title)
        if index:
            axes.set_ylim(0.0, 1.1 * max(map(max, values)))


STUDY = Study(
    name="wide-or-deep",
    source="Zagoruyko and Komodakis 2016, arXiv 1605.07146, Section 3, Table 5 and Figure 4",
    published=(
        "CIFAR-10, test error: WRN-40-4 (8.9M parameters) 4.53 %, pre-activation ResNet-1001 (10.2M) 4.92 %",
        "forward and backward on a Titan X, batch of 32: WRN-40-4 68 ms, ResNet-1001 512 ms",
    ),
    protocol="A wide residual network of few layers, and the thin one (k = 1) whose number of parameters is "
    "nearest, by depth. Both are trained alike from the same seeds; training steps of a batch and forward "
    "passes of one image are timed in turns. On a processor with few cores a training step of a batch keeps "
    "both networks about as busy, so that its ratio is reported and does not decide.",
    refuted_by="A thin deep network of as many parameters that errs no more, or that takes no longer to "
    "answer.",
    presets={
        "quick": WideOrDeepKnobs(images=2000, test_images=3000, px=14, epochs=3),
        "standard": WideOrDeepKnobs(images=10000, epochs=4, px=20),
        "full": WideOrDeepKnobs(data="cifar10", blocks=6, width_mult=4, epochs=200, seeds=5, batch_size=128),
    },
    run=run,
)
