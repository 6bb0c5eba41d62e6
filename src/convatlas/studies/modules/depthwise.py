"""Depthwise-separable convolution: what it saves in multiply-adds, and what of that the clock sees.

Howard et al. 2017, "MobileNets", Section 3.1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convatlas.models.network import check_count
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.clauses import MIN_PROCESSES, Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import Knobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.timing import time_in_fresh_processes
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwiseKnobs(Knobs):
    """What can be turned.

    Attributes:
        chans: numbers of channels; each layer has as many filters as inputs.
        kernels: sizes of the filters, px.
        px: height and width of the maps.
        batch_size: images in a batch.
        seeds: fresh processes in which all layers are timed; a verdict needs at least ten.
    """

    chans: tuple[int, ...] = (64, 128, 256, 512)
    kernels: tuple[int, ...] = (3, 5)
    px: int = 28
    batch_size: int = 4
    seeds: int = MIN_PROCESSES

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count is out of its range, or there is no layer.
        """
        super().__post_init__()
        for name in ("px", "batch_size"):
            check_count(name, getattr(self, name), least=1)
        for name in ("chans", "kernels"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(
                    f"`{name}`={list(getattr(self, name))}; expected one whole number or more, from 1"
                )


@dataclasses.dataclass(frozen=True)
class Pair:
    """A full convolution and its separable twin.

    Attributes:
        chans: of input and output.
        kernel: px.
        macs: of the full one and of the separable one.
        times: of a forward pass in each process, s, in the same order.
    """

    chans: int
    kernel: int
    macs: tuple[int, int]
    times: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def saved(self) -> float:
        """Multiply-adds of the full one over those of the separable one."""
        return self.macs[0] / self.macs[1]

    @property
    def sped(self) -> list[float]:
        """Time of the full one over that of the separable one, in each process."""
        return [full / separable for full, separable in zip(*self.times, strict=True)]

    @property
    def median_sped(self) -> float:
        """Median of `sped`."""
        return statistics.median(self.sped)


def run(ctx: StudyContext[DepthwiseKnobs]) -> Outcome:
    """Counts and measures each pair of layers."""
    knobs = ctx.knobs
    shapes = [[chans, kernel] for kernel in knobs.kernels for chans in knobs.chans]
    asked = {"shapes": shapes, "px": knobs.px, "batch_size": knobs.batch_size}
    times = time_in_fresh_processes(steps, asked, knobs.seeds)
    pairs = [
        Pair(chans, kernel, macs_of(chans, kernel, knobs.px), (times[2 * i], times[2 * i + 1]))
        for i, (chans, kernel) in enumerate(shapes)
    ]
    lags = [
        statistics.fmean(math.log2(pair.saved / pair.sped[i]) for pair in pairs) for i in range(knobs.seeds)
    ]
    return Outcome(
        samples={"time": lags},
        facts=count(pairs),
        tables=(_table(pairs),),
        figures={"depthwise-layers.png": render(lambda figure: draw(figure, pairs))},
        reading="A depthwise convolution does little arithmetic for each value that it moves.",
    )


def count(pairs: Sequence[Pair]) -> tuple[Fact, ...]:
    """The share of multiply-adds of each pair, and of the course's example, beside the formula."""
    full, separable = count_example()
    facts = [
        Fact(
            name=f"{pair.kernel}x{pair.kernel}, N = {pair.chans}: MACs of separable over full",
            value=pair.macs[1] / pair.macs[0],
            claimed=1.0 / pair.chans + 1.0 / pair.kernel**2,
            tolerance=1e-9,
        )
        for pair in pairs
    ]
    example = Fact(
        name="3x3 filters, 6x6x3 to 4x4x5: MACs of separable over full",
        value=separable / full,
        claimed=1.0 / 5 + 1.0 / 9,
        tolerance=1e-9,
        note=f"{separable} over {full}",
    )
    return (*facts, example)


def make_pair(chans: int, kernel: int) -> tuple[nn.Module, nn.Module]:
    """A full convolution, and depthwise followed by pointwise."""
    from torch import nn

    pad = kernel // 2
    full = nn.Conv2d(chans, chans, kernel, padding=pad, bias=False)
    depth = nn.Conv2d(chans, chans, kernel, padding=pad, groups=chans, bias=False)
    return full, nn.Sequential(depth, nn.Conv2d(chans, chans, 1, bias=False))


def count_example() -> tuple[int, int]:
    """Multiply-adds of five 3x3 filters on 6x6x3 without padding, full and separable."""
    from torch import nn

    from convatlas.sizing.run import size

    full = nn.Conv2d(3, 5, 3, bias=False)
    separable = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.Conv2d(3, 5, 1, bias=False))
    return size(full, (3, 6, 6)).macs, size(separable, (3, 6, 6)).macs


def macs_of(chans: int, kernel: int, px: int) -> tuple[int, int]:
    """Multiply-adds of a pair for one image."""
    full, separable = (size(net, (chans, px, px)).macs for net in make_pair(chans, kernel))
    return full, separable


def steps(shapes: list[list[int]], px: int, batch_size: int) -> list[Callable[[], object]]:
    """Forward passes through both layers of each pair, given as (channels, kernel)."""
    found: list[Callable[[], object]] = []
    for chans, kernel in shapes:
        x = torch.randn(batch_size, chans, px, px).to(memory_format=torch.channels_last)
        for net in make_pair(chans, kernel):
            found.append(functools.partial(_forward, net.to(memory_format=torch.channels_last), x))
    return found


@torch.inference_mode()
def _forward(net: nn.Module, x: Tensor) -> object:
    return net(x)


def _table(pairs: Sequence[Pair]) -> Table:
    rows = tuple(
        (
            f"{pair.kernel}x{pair.kernel}",
            str(pair.chans),
            f"{pair.macs[0] / 1e6:,.1f} M",
            f"{pair.macs[1] / 1e6:,.1f} M",
            f"{pair.saved:.1f}x",
            f"{pair.median_sped:.1f}x",
        )
        for pair in pairs
    )
    return Table("Layer by layer", ("filter", "N", "full", "separable", "fewer MACs", "less time"), rows)


def draw(figure: Figure, pairs: list[Pair]) -> None:
    """MACs saved against time saved; on the line, the clock would see all of it."""
    axes = figure.subplots()
    for index, kernel in enumerate(sorted({pair.kernel for pair in pairs})):
        mine = [pair for pair in pairs if pair.kernel == kernel]
        axes.plot(
            [pair.saved for pair in mine],
            [pair.median_sped for pair in mine],
            f"C{index}o-",
            label=f"{kernel}x{kernel}",
        )
        for pair in mine:
            axes.annotate(
                f"{pair.chans}", (pair.saved, pair.median_sped), xytext=(6, -3), textcoords="offset points"
            )
    top = max(pair.saved for pair in pairs) * 1.1
    axes.plot([1.0, top], [1.0, top], "k--", lw=1.0, label="time as MACs")
    axes.set(xlabel="times fewer multiply-adds", ylabel="times less time", xscale="log", yscale="log")
    axes.set_title("Depthwise-separable against full convolution (numbers: channels)")
    axes.legend()


STUDY = Study(
    name="depthwise",
    version=2,
    source="Howard et al. 2017, MobileNets, arXiv 1704.04861, Section 3.1",
    published=(
        "cost of separable over full: 1/N + 1/D_K^2",
        "3x3 depthwise separable convolutions use between 8 and 9 times less computation",
    ),
    clauses=(
        Clause(
            name="time",
            says="Time falls less than multiply-adds.",
            measure="halvings of the MAC saving that the clock does not see, mean over the layers",
            unit="log2",
            above=0.0,
            needs=MIN_PROCESSES,
            published="none: the paper counts Mult-Adds, not time",
        ),
    ),
    protocol="A full convolution and its separable twin (depthwise, then 1x1) at several widths and filter "
    "sizes: multiply-adds by tracing, time of a forward pass in fresh processes, all layers in turns.",
    presets={
        "quick": DepthwiseKnobs(),
        "standard": DepthwiseKnobs(chans=(32, 64, 128, 256, 512, 1024), kernels=(3, 5, 7), seeds=20),
        "full": DepthwiseKnobs(
            chans=(32, 64, 128, 256, 512, 1024), kernels=(3, 5, 7, 9), px=56, batch_size=32, seeds=30
        ),
    },
    run=run,
    changes="Version 1 took rounds of one process for independent times.",
)
