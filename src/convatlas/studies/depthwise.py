"""Depthwise-separable convolution: what it saves in multiply-adds, and what of that the clock sees.

Howard et al. 2017, "MobileNets", Section 3.1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from typing import TYPE_CHECKING

from convatlas.plots.style import render
from convatlas.studies.study import Knobs, Outcome, Study, Table
from convatlas.studies.timing import time_in_turns
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

    from convatlas.studies.context import StudyContext


@dataclasses.dataclass(frozen=True, kw_only=True)
class DepthwiseKnobs(Knobs):
    """What can be turned.

    Attributes:
        chans: numbers of channels; each layer has as many filters as inputs.
        kernels: sizes of the filters, px.
        px: height and width of the maps.
        batch_size: images in a batch.
        seeds: rounds of measuring, each on other images; each gives one value of the effect.
    """

    chans: tuple[int, ...] = (64, 128, 256, 512)
    kernels: tuple[int, ...] = (3, 5)
    px: int = 28
    batch_size: int = 4
    seeds: int = 5


@dataclasses.dataclass(frozen=True)
class Pair:
    """A full convolution and its separable twin.

    Attributes:
        chans: of input and output.
        kernel: px.
        macs: of the full one and of the separable one.
        times: medians of one forward pass for each round, s.
    """

    chans: int
    kernel: int
    macs: tuple[int, int]
    times: tuple[tuple[float, ...], tuple[float, ...]]

    @property
    def saved(self) -> float:
        """Multiply-adds of the full one over those of the separable one."""
        return self.macs[0] / self.macs[1]

    def sped(self, round_: int) -> float:
        """Time of the full one over that of the separable one."""
        return self.times[0][round_] / self.times[1][round_]

    @property
    def median_sped(self) -> float:
        """Median of `sped` over the rounds."""
        return statistics.median(self.sped(i) for i in range(len(self.times[0])))


def run(ctx: StudyContext[DepthwiseKnobs]) -> Outcome:
    """Counts and measures each pair of layers."""
    knobs = ctx.knobs
    pairs = [measure(chans, kernel, knobs) for kernel in knobs.kernels for chans in knobs.chans]
    facts = [
        Fact(
            name=f"{pair.kernel}x{pair.kernel}, N = {pair.chans}: MACs of separable over full",
            value=pair.macs[1] / pair.macs[0],
            claimed=1.0 / pair.chans + 1.0 / pair.kernel**2,
            tolerance=1e-9,
        )
        for pair in pairs
    ]
    full, separable = count_example()
    name = "3x3 filters, 6x6x3 to 4x4x5: MACs of separable over full"
    claimed = 1.0 / 5 + 1.0 / 9
    note = f"{separable} over {full}"
    facts.append(Fact(name=name, value=separable / full, claimed=claimed, tolerance=1e-9, note=note))
    lags = tuple(
        statistics.fmean(math.log2(pair.saved / pair.sped(i)) for pair in pairs) for i in range(knobs.seeds)
    )
    effect = Effect(
        name="halvings of the MAC saving that the clock does not see, mean over the layers",
        values=lags,
        unit="log2",
        published="none: the paper counts Mult-Adds, not time",
    )
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
    table = Table("Layer by layer", ("filter", "N", "full", "separable", "fewer MACs", "less time"), rows)
    saved, sped = (
        statistics.geometric_mean(getattr(pair, name) for pair in pairs) for name in ("saved", "median_sped")
    )
    return Outcome(
        findings=(*facts, effect),
        tables=(table,),
        figures={"depthwise.png": render(lambda figure: draw(figure, pairs))},
        reading=f"Over these layers the separable form needs {saved:.1f} times fewer multiply-adds and takes "
        f"{sped:.1f} times less time on this machine: a depthwise convolution does little arithmetic for "
        "each value that it moves.",
    )


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


def measure(chans: int, kernel: int, knobs: DepthwiseKnobs) -> Pair:
    """Counts the multiply-adds of a pair for one image, and times batches of it, turn by turn."""
    import torch

    from convatlas.sizing.run import size

    nets = make_pair(chans, kernel)
    macs = [size(net, (chans, knobs.px, knobs.px)).macs for net in nets]
    x = torch.randn(knobs.batch_size, chans, knobs.px, knobs.px).to(memory_format=torch.channels_last)
    ready = [net.to(memory_format=torch.channels_last) for net in nets]
    with torch.inference_mode():
        full, separable = time_in_turns([functools.partial(net, x) for net in ready], knobs.seeds)
    return Pair(chans, kernel, (macs[0], macs[1]), (full, separable))


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
    source="Howard et al. 2017, MobileNets, arXiv 1704.04861, Section 3.1",
    published=(
        "cost of separable over full: 1/N + 1/D_K^2",
        "3x3 depthwise separable convolutions use between 8 and 9 times less computation",
    ),
    protocol="A full convolution and its separable twin (depthwise, then 1x1) at several widths and filter "
    "sizes: multiply-adds by tracing, time of a forward pass by measuring, both in turns.",
    refuted_by="A ratio of MACs that differs from 1/N + 1/k^2; or times that fall as much as the MACs.",
    presets={
        "quick": DepthwiseKnobs(),
        "standard": DepthwiseKnobs(chans=(32, 64, 128, 256, 512, 1024), kernels=(3, 5, 7), seeds=11),
        "full": DepthwiseKnobs(
            chans=(32, 64, 128, 256, 512, 1024), kernels=(3, 5, 7, 9), px=56, batch_size=32, seeds=21
        ),
    },
    run=run,
)
