"""Bottlenecks in inception modules: what 1x1 convolutions before the larger ones save, and what they cost.

Szegedy et al. 2014, "Going Deeper with Convolutions", Section 4, Figure 2 and Table 1. CS231n, "CNN
Architectures", works out both modules for an input of 28x28x256.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, Norm
from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.inception import InceptionMix, batch_norm
from convatlas.models.googlenet import ROWS, GoogLeNetConfig, Row, make_module
from convatlas.models.network import check_count
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import MIN_PROCESSES, Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.timing import time_in_fresh_processes
from convatlas.studies.verdict import Fact

PX = 28


LEAST_CHANS = 4


MARGIN = 1.0
"""Points of test error that bottlenecks may cost and still count as no less accurate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BottleneckKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        modules: of GoogLeNet's Table 1, in the networks that are trained; those of 4 follow a pool.
        share: the networks have a `share`-th of GoogLeNet's channels.
        timed_batch: images of the batch that is timed.
        processes: fresh processes in which both modules are timed.
    """

    modules: tuple[str, ...] = ("3a", "3b", "4a")
    share: int = 8
    timed_batch: int = 2
    processes: int = MIN_PROCESSES

    def __post_init__(self) -> None:
        """Checks the modules.

        Raises:
            ValueError: if one is not in the table, or a count is out of its range.
        """
        super().__post_init__()
        for module in self.modules:
            if module not in ROWS:
                raise ValueError(
                    f"`modules`={list(self.modules)}: no module {module!r}; they are {', '.join(ROWS)}"
                )
        for name in ("share", "timed_batch", "processes"):
            check_count(name, getattr(self, name), least=1)


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
        """Scores images."""
        return self.head(self.stages(self.stem(x)))


def run(ctx: StudyContext[BottleneckKnobs]) -> Outcome:
    """Counts, measures and trains."""
    knobs = ctx.knobs
    arms: dict[str, Arm] = {}
    for name, bottlenecks in (("naive", False), ("bottlenecks", True)):
        make = functools.partial(
            InceptionNet,
            bottlenecks=bottlenecks,
            modules=knobs.modules,
            share=knobs.share,
            in_chans=ctx.in_chans,
            num_classes=ctx.num_classes,
        )
        arms[name] = Arm(network=make, label=f"inception-{name}-{'-'.join(knobs.modules)}-{knobs.share}")
    compared = compare(ctx, arms)
    times = time_in_fresh_processes(steps, {"batch": knobs.timed_batch}, knobs.processes)
    pairs = [list(zip(times[2 * i], times[2 * i + 1], strict=True)) for i in range(len(EXAMPLES))]
    return Outcome(
        compared=compared,
        samples={f"time-{i}": [naive / reduced for naive, reduced in each] for i, each in enumerate(pairs)},
        facts=count(),
    )


def steps(batch: int) -> list[Callable[[], object]]:
    """Forward passes through each example's module, naive and with bottlenecks."""
    found: list[Callable[[], object]] = []
    for example in EXAMPLES:
        x = torch.randn(batch, example.in_chans, PX, PX).to(memory_format=torch.channels_last)
        for module in make_modules(example):
            found.append(functools.partial(_forward, module.to(memory_format=torch.channels_last), x))
    return found


@torch.inference_mode()
def _forward(module: nn.Module, x: Tensor) -> object:
    return module(x)


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


STUDY = Study(
    name="bottleneck",
    version=2,
    source="Szegedy et al. 2014, arXiv 1409.4842, Section 4 and Table 1; CS231n, CNN Architectures",
    published=(
        "CS231n, input 28x28x256: naive 854M operations, 672 channels; with bottlenecks 358M, 480 channels",
        "GoogLeNet's Table 1, module 3a on 28x28x192: 128M operations",
        "no error of a network without bottlenecks is printed",
    ),
    clauses=(
        Clause(
            name="no-worse",
            says=f"Networks with bottlenecks err less than {MARGIN:g} point more than naive ones.",
            measure="test error, bottlenecks minus naive",
            below=MARGIN,
            arms=difference("bottlenecks", "naive"),
        ),
        *(
            Clause(
                name=f"time-{i}",
                says=f"{example.name} takes less time with bottlenecks.",
                measure=f"time of a forward pass, naive over bottlenecks: {example.name}",
                unit="x",
                above=1.0,
                needs=MIN_PROCESSES,
            )
            for i, example in enumerate(EXAMPLES)
        ),
    ),
    protocol="Two published modules, each without bottlenecks and with them: multiply-adds by tracing, time "
    "of a forward pass in fresh processes, all in turns. Small networks of both kinds of module, "
    "with batch norm "
    "and the channels of GoogLeNet's table divided by one number, are trained from the same seeds, "
    "each at its "
    "own best learning rate of one grid.",
    presets={
        "quick": BottleneckKnobs(
            images=2000, test_images=4000, px=14, epochs=4, seeds=3, batch_size=16, warmup=60
        ),
        "standard": BottleneckKnobs(images=10000, px=14, epochs=6, warmup=300),
        "full": BottleneckKnobs(
            data="cifar10", epochs=100, share=2, batch_size=128, flip=0.5, pad=4, reach=20.0
        ),
    },
    run=run,
    changes="Version 1 took rounds of one process for independent times, and had one learning rate for both.",
)
