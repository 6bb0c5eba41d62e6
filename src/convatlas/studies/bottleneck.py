"""Bottlenecks in inception modules: what 1x1 convolutions before the larger ones save, and what they cost.

Szegedy et al. 2014, "Going Deeper with Convolutions", Section 4, Figure 2 and Table 1. CS231n, "CNN
Architectures", works out both modules for an input of 28x28x256.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, Norm
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import InceptionMix, batch_norm
from convatlas.models.googlenet import ROWS, GoogLeNetConfig, Row, make_module
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

PX = 28
LEAST_CHANS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottleneckKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        modules: of GoogLeNet's Table 1, in the networks that are trained; those of 4 follow a pool.
        share: the networks have a `share`-th of GoogLeNet's channels.
        margin: points of test error that bottlenecks may cost and still count as no worse.
        recipe: how all are trained.
        lr: largest learning rate.
        batch_size: images of a step.
        timed_batch: images of the batch that is timed.
    """

    modules: tuple[str, ...] = ("3a", "3b", "4a")
    share: int = 8
    margin: float = 1.0
    recipe: str = "resnet_cifar"
    lr: float = 0.05
    batch_size: int = 32
    timed_batch: int = 2

    def __post_init__(self) -> None:
        """Checks the modules.

        Raises:
            ValueError: one is not in the table, or a count is out of its range.
        """
        super().__post_init__()
        for module in self.modules:
            if module not in ROWS:
                raise ValueError(
                    f"`modules`={list(self.modules)}: no module {module!r}; they are {', '.join(ROWS)}"
                )
        check_count("share", self.share, least=1)
        check_count("timed_batch", self.timed_batch, least=1)


class Example(NamedTuple):
    """A module whose arithmetic somebody printed.

    Attributes:
        name: for a reader.
        in_chans: of a map of 28x28 px.
        row: channels of the branches.
        naive: its multiply-adds without bottlenecks, by hand.
        reduced: with them, by hand.
        note: on the second.
    """

    name: str
    in_chans: int
    row: Row
    naive: int
    reduced: int
    note: str


EXAMPLES = (
    Example(
        "CS231n's module",
        256,
        Row(conv1x1=128, reduce3x3=64, conv3x3=192, reduce5x5=64, conv5x5=96, pool_project=64),
        naive=PX**2 * (256 * 128 + 9 * 256 * 192 + 25 * 256 * 96),
        reduced=PX**2 * (256 * (128 + 64 + 64 + 64) + 9 * 64 * 192 + 25 * 64 * 96),
        note="the slide prints 358M: its own terms, with 86.7M of the 3x3 counted twice",
    ),
    Example(
        "GoogLeNet's 3a",
        192,
        ROWS["3a"],
        naive=PX**2 * (192 * 64 + 9 * 192 * 128 + 25 * 192 * 32),
        reduced=PX**2 * (192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32),
        note="Table 1 prints 128M",
    ),
)


class NormedConfig(GoogLeNetConfig):
    """GoogLeNet's modules with batch norm, which small networks on little data train well with."""

    @property
    def norm(self) -> Norm | None:
        """Batch norm after each convolution."""
        return batch_norm


class InceptionNet(nn.Module):
    """A 3x3 convolution, inception modules, mean, linear layer; H and W halve at each module called "a".

    Args:
        bottlenecks: 1x1 convolutions before the 3x3 and 5x5, and after the pool.
        modules: of GoogLeNet's Table 1.
        share: a `share`-th of their channels, at least 4 each.
        in_chans: channels of the images.
        num_classes: K.

    Shape: x (B, C, H, W) -> (B, K).
    """

    def __init__(
        self, *, bottlenecks: bool, modules: tuple[str, ...], share: int, in_chans: int, num_classes: int
    ) -> None:
        super().__init__()
        chans = max(LEAST_CHANS, 192 // share)
        self.stem = ConvNormAct(in_chans, chans, 3, padding=1)
        config = NormedConfig(bottlenecks=bottlenecks)
        layers: list[nn.Module] = []
        for index, name in enumerate(modules):
            if index > 0 and name.endswith("a"):
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            row = Row(*(max(LEAST_CHANS, width // share) for width in ROWS[name]))
            module = make_module(chans, row, config)
            layers.append(module)
            chans = module.out_chans
        self.stages = nn.Sequential(*layers)
        self.head = ClassifierHead(chans, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of images."""
        return self.head(self.stages(self.stem(x)))


Pair = tuple[float, float]
"""Of the naive module or network, and of the one with bottlenecks."""


def run(ctx: StudyContext[BottleneckKnobs]) -> Outcome:
    """Counts, measures and trains."""
    knobs = ctx.knobs
    times = {example.name: measure(example, knobs) for example in EXAMPLES}
    errors = [(_test_error(ctx, False, seed), _test_error(ctx, True, seed)) for seed in ctx.seeds]
    return Outcome(
        findings=(*find(times, errors, knobs.margin), *count()),
        tables=(_macs_table(ctx, times), _error_table(errors)),
        figures={"bottleneck.png": render(functools.partial(draw, times, errors))},
        reading=_reading(times, errors),
    )


def make_modules(example: Example) -> tuple[InceptionMix, InceptionMix]:
    """The module without bottlenecks and with them, as GoogLeNet has it, without normalisation."""
    naive, reduced = (
        make_module(example.in_chans, example.row, GoogLeNetConfig(bottlenecks=bottlenecks))
        for bottlenecks in (False, True)
    )
    return naive, reduced


def macs_of(example: Example) -> tuple[int, int]:
    """Multiply-adds of both modules for one map, by tracing."""
    naive, reduced = (size(module, (example.in_chans, PX, PX)).macs for module in make_modules(example))
    return naive, reduced


def count() -> tuple[Fact, ...]:
    """Multiply-adds by tracing, beside those by hand; and how deep the output gets."""
    facts: list[Fact] = []
    for example in EXAMPLES:
        naive, reduced = macs_of(example)
        name = f"{example.name}, {PX}x{PX}x{example.in_chans}"
        facts.append(
            Fact(name=f"{name}, naive", value=naive, claimed=example.naive, unit="MACs", note=f"{naive:,}")
        )
        note = f"{reduced:,}, {naive / reduced:.2f} times fewer; {example.note}"
        facts.append(
            Fact(
                name=f"{name}, with bottlenecks",
                value=reduced,
                claimed=example.reduced,
                unit="MACs",
                note=note,
            )
        )
    for module, kind, claimed in zip(
        make_modules(EXAMPLES[0]), ("naive", "with bottlenecks"), (672, 480), strict=True
    ):
        facts.append(
            Fact(
                name=f"{EXAMPLES[0].name}, {kind}: channels of the output",
                value=module.out_chans,
                claimed=claimed,
            )
        )
    return tuple(facts)


def measure(example: Example, knobs: BottleneckKnobs) -> list[Pair]:
    """Seconds of a forward pass through both modules, in turns, for each round."""
    torch.manual_seed(knobs.first_seed)
    x = torch.randn(knobs.timed_batch, example.in_chans, PX, PX).to(memory_format=torch.channels_last)
    modules = [module.to(memory_format=torch.channels_last) for module in make_modules(example)]
    with torch.inference_mode():
        naive, reduced = time_in_turns([functools.partial(module, x) for module in modules], knobs.seeds)
    return list(zip(naive, reduced, strict=True))


def find(times: dict[str, list[Pair]], errors: list[Pair], margin: float) -> tuple[Effect, ...]:
    """The effects that decide: less time, and no more errors."""
    faster = [
        Effect(
            name=f"time of a forward pass, naive over bottlenecks: {name}",
            values=tuple(naive / reduced for naive, reduced in pairs),
            unit="x",
            least=1.0,
        )
        for name, pairs in times.items()
    ]
    no_worse = Effect(
        name=f"test error, naive minus bottlenecks (no worse; margin {margin:g})",
        values=tuple(naive - reduced for naive, reduced in errors),
        unit="points",
        least=-margin,
    )
    return (*faster, no_worse)


def _net(ctx: StudyContext[BottleneckKnobs], bottlenecks: bool) -> InceptionNet:
    return InceptionNet(
        bottlenecks=bottlenecks,
        modules=ctx.knobs.modules,
        share=ctx.knobs.share,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )


def _test_error(ctx: StudyContext[BottleneckKnobs], bottlenecks: bool, seed: int) -> float:
    knobs = ctx.knobs
    kind = "reduced" if bottlenecks else "naive"
    return ctx.train(
        functools.partial(_net, ctx, bottlenecks),
        label=f"inception-{kind}-{'-'.join(knobs.modules)}-{knobs.share}",
        seed=seed,
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
        schedule="cosine",
        **NO_CROP,
    ).test_error


def _macs_table(ctx: StudyContext[BottleneckKnobs], times: dict[str, list[Pair]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for example in EXAMPLES:
        naive, reduced = macs_of(example)
        slow, fast = (1e3 * statistics.median(part) for part in zip(*times[example.name], strict=True))
        cells = (f"{naive / 1e6:,.1f} M", f"{reduced / 1e6:,.1f} M", f"{naive / reduced:.2f}x")
        clock = (f"{slow:.1f} ms", f"{fast:.1f} ms", f"{slow / fast:.2f}x")
        rows.append((example.name, *cells, *clock))
    with torch.device("meta"):
        whole = [size(create_model(name).eval(), 224).macs for name in ("googlenet_naive", "googlenet")]
    trained = [size(_net(ctx, kind), ctx.source.image_size or 224).macs for kind in (False, True)]
    for name, (naive, reduced) in (("GoogLeNet, 224 px", whole), ("the trained networks", trained)):
        cells = (f"{naive / 1e6:,.1f} M", f"{reduced / 1e6:,.1f} M", f"{naive / reduced:.2f}x")
        rows.append((name, *cells, "", "", ""))
    heads = ("", "naive", "bottlenecks", "fewer MACs", "naive", "bottlenecks", "less time")
    title = f"Multiply-adds of one image, and median time of a forward pass of {ctx.knobs.timed_batch}"
    return Table(title, heads, tuple(rows))


def _error_table(errors: list[Pair]) -> Table:
    rows = tuple(
        (kind, f"{statistics.fmean(values):.2f} %", ", ".join(f"{value:.2f}" for value in values))
        for kind, values in zip(("naive", "bottlenecks"), zip(*errors, strict=True), strict=True)
    )
    return Table("Test error of small networks of both modules", ("modules", "mean", "each seed"), rows)


def _reading(times: dict[str, list[Pair]], errors: list[Pair]) -> str:
    said: list[str] = []
    for example in EXAMPLES:
        naive, reduced = macs_of(example)
        less = statistics.median(slow / fast for slow, fast in times[example.name])
        said.append(
            f"{example.name} needs {naive / reduced:.1f} times fewer multiply-adds with bottlenecks and "
            f"takes {less:.1f} times less time."
        )
    naive_error, reduced_error = (statistics.fmean(part) for part in zip(*errors, strict=True))
    said.append(
        f"Small networks of both, trained alike, err on {naive_error:.1f} % (naive) and "
        f"{reduced_error:.1f} % (bottlenecks) of the test images. Without bottlenecks a module passes all of "
        "its input on through the pool, so that each module is deeper than the one before, and the savings "
        "of a network exceed those of a module."
    )
    return " ".join(said)


def draw(times: dict[str, list[Pair]], errors: list[Pair], figure: Figure) -> None:
    """Multiply-adds and time saved by the modules, and the test error of every seed."""
    saved, ends = figure.subplots(1, 2, width_ratios=(3, 2))
    for place, example in enumerate(EXAMPLES):
        naive, reduced = macs_of(example)
        ratios = [slow / fast for slow, fast in times[example.name]]
        bars = (naive / reduced, statistics.median(ratios))
        for shift, value, colour, label in zip(
            (-0.2, 0.2), bars, ("C0", "C2"), ("multiply-adds", "time"), strict=True
        ):
            saved.bar(place + shift, value, 0.36, color=colour, label=label if place == 0 else None)
            saved.annotate(f"{value:.2f}", (place + shift, value), ha="center", va="bottom")
    saved.axhline(1.0, color="k", lw=1.0, ls="--")
    saved.set_xticks(range(len(EXAMPLES)), [f"{e.name}\n{PX}x{PX}x{e.in_chans}" for e in EXAMPLES])
    saved.set(ylabel="naive over bottlenecks", title="what bottlenecks save in a module")
    saved.margins(y=0.25)
    saved.legend(loc="upper right", ncols=2)
    for place, values in enumerate(zip(*errors, strict=True)):
        colour = ("C1", "C0")[place]
        ends.scatter([place] * len(values), values, color=colour, alpha=0.7)
        ends.hlines(statistics.fmean(values), place - 0.2, place + 0.2, color=colour)
    ends.set_xticks((0, 1), ("naive", "bottlenecks"))
    ends.set_xlim(-0.6, 1.6)
    ends.set(ylabel="test error (%)", title="small networks (dots: seeds)")


STUDY = Study(
    name="bottleneck",
    source="Szegedy et al. 2014, arXiv 1409.4842, Section 4 and Table 1; CS231n, CNN Architectures",
    published=(
        "CS231n, input 28x28x256: naive 854M operations, 672 channels; with bottlenecks 358M, 480 channels",
        "GoogLeNet's Table 1, module 3a on 28x28x192: 128M operations",
        "no error of a network without bottlenecks is printed",
    ),
    protocol="Two published modules, each without bottlenecks and with them: multiply-adds by tracing, time "
    "of a forward pass by measuring, both in turns. Small networks of both kinds of module, with batch norm "
    "and the channels of GoogLeNet's table divided by one number, are trained alike from the same seeds.",
    refuted_by="Multiply-adds that differ from the arithmetic; a module with bottlenecks that takes as long; "
    "or networks with bottlenecks that err more, by the margin or beyond.",
    presets={
        "quick": BottleneckKnobs(images=3000, test_images=4000, px=14, epochs=4, seeds=5),
        "standard": BottleneckKnobs(images=20000, epochs=4, seeds=5),
        "full": BottleneckKnobs(
            data="cifar10",
            epochs=100,
            seeds=5,
            share=2,
            batch_size=128,
            modules=("3a", "3b", "4a", "4b", "4c", "5a", "5b"),
        ),
    },
    run=run,
)
