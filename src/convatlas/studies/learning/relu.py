"""ReLU against tanh: how many epochs a convolutional network needs to reach a given training error.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
Section 3.1 and Figure 1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu
from convatlas.blocks.init import gaussian_, he_normal_, init_layers, linear_uniform_, xavier_uniform_
from convatlas.plots.style import render
from convatlas.studies.arms import Arm, train_arm
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from convatlas.data.sets import Samples
from convatlas.runs.run import epoch_lines
from convatlas.studies.arms import TUNE_SEED, Tuned, choose, grown

KINDS = ("ReLU", "tanh")


FIRST_STD = 0.01
"""Of the paper's first weights (Section 5)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReluKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        error: training error to be reached, in %.
        width: filters of the first two convolutions; the third has twice as many.
        kernel_size: px of each filter, odd.
    """

    error: float = 25.0
    width: int = 16
    kernel_size: int = 5

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if `error` is no share that can be reached, or `kernel_size` is even.
        """
        super().__post_init__()
        if not 0.0 < self.error < 100.0:
            raise ValueError(f"`error`={self.error}; expected between 0 and 100, in %")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size`={self.kernel_size}; expected an odd number, such as 3 or 5")


class FourLayers(nn.Module):
    """Three convolutions, each with a 2x2 maximum behind it, and a linear layer; no normalisation.

    From the paper's start, it sees raw values of px, less their mean, and begins with weights from
    N(0, 0.01^2). Scaled, images have a deviation of 1, and the weights follow He for ReLUs, Glorot and Bengio
    for tanh.

    Departs from paper: Figure 1 comes without the network's sizes; all biases begin as 0.

    Args:
        kind: "ReLU" or "tanh".
        raw_std: deviation of the raw values of px; None for a scaled start.
        width: filters of the first two convolutions; the third has twice as many.
        kernel_size: px, odd.
        in_chans: channels of the images.
        num_classes: K.
    """

    def __init__(
        self,
        kind: str,
        raw_std: float | None,
        *,
        width: int,
        kernel_size: int,
        in_chans: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.factor = 1.0 if raw_std is None else raw_std
        act = relu if kind == "ReLU" else nn.Tanh
        chans = [in_chans, width, width, 2 * width]
        self.layers = nn.Sequential()
        for i in range(3):
            pad = kernel_size // 2
            self.layers.append(
                ConvNormAct(chans[i], chans[i + 1], kernel_size, padding=pad, norm=None, act=act)
            )
            self.layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.fc = nn.Linear(chans[-1], num_classes)
        if raw_std is not None:
            first = functools.partial(gaussian_, std=FIRST_STD)
            init_layers(self, conv=first, linear=first)
        else:
            init_layers(self, conv=he_normal_ if kind == "ReLU" else xavier_uniform_, linear=linear_uniform_)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images: (B, C, H, W) -> (B, K)."""
        return self.fc(self.layers(x * self.factor).mean(dim=(2, 3)))  # (B, K)


Curves = list[tuple[float, ...]]
"""The training error of each epoch for each seed, in %; empty if it diverged."""


@dataclasses.dataclass(frozen=True)
class Race:
    """Of one kind of unit from one start.

    Attributes:
        tuned: epochs needed by learning rate, on the seeds of the trials.
        curves: of the seeds of the report, at the best rate.
        needed: epochs that each of them took.
    """

    tuned: Tuned
    curves: Curves
    needed: tuple[float, ...]


def run(ctx: StudyContext[ReluKnobs]) -> Outcome:
    """Finds each kind's fastest rate from the paper's start and from a scaled one, then races them."""
    knobs, raw = ctx.knobs, raw_deviation(ctx.source.train)
    races: dict[tuple[str, str], Race] = {}
    for start, std in (("paper", raw), ("scaled", None)):
        for kind, tuned in fastest_rates(ctx, std).items():
            curves = [curve_of(ctx, kind, std, tuned.best, seed) for seed in ctx.seeds]
            needed = tuple(epochs_to(curve, knobs.error, knobs.epochs) for curve in curves)
            races[start, kind] = Race(tuned, curves, needed)
    return Outcome(
        samples={start: ratios(races, start) for start in ("paper", "scaled")},
        objections=objections(races, knobs),
        tables=(_table(races, knobs),),
        figures={"relu-curves.png": render(functools.partial(draw, races, knobs), width=11.0)},
        reading="A tanh unit passes almost no gradient where it saturates, as raw values of px make "
        "it; a ReLU "
        "passes all of it where it is on. A start that keeps the units out of saturation came later "
        "(Glorot and "
        "Bengio 2010 for tanh, He et al. 2015 for ReLUs).",
    )


def ratios(races: Mapping[tuple[str, str], Race], start: str) -> list[float]:
    """Epochs of tanh over those of ReLU for each seed, as a power of 2."""
    pairs = zip(races[start, "tanh"].needed, races[start, "ReLU"].needed, strict=True)
    return [math.log2(slow / fast) for slow, fast in pairs]


def objections(races: Mapping[tuple[str, str], Race], knobs: ReluKnobs) -> tuple[str, ...]:
    """A kind whose fastest rate is at an end of the grid, or a ReLU network that never got there."""
    told = [
        f"{kind} units: fastest rate at the edge of the grid, {race.tuned.best:g}"
        for (start, kind), race in races.items()
        if start == "paper" and race.tuned.at_edge
    ]
    late = [n for n in races["paper", "ReLU"].needed if n >= knobs.epochs]
    if late:
        told.append(f"{len(late)} networks of ReLUs did not reach {knobs.error:g} % in {knobs.epochs} epochs")
    return tuple(told)


def fastest_rates(ctx: StudyContext[ReluKnobs], raw_std: float | None) -> dict[str, Tuned]:
    """For each kind the epochs that it needs by learning rate, on seeds of the trials alone."""
    knobs, grid = ctx.knobs, list(ctx.knobs.grid)
    for growth in range(knobs.grow + 1):
        tuned = {kind: choose({lr: _trial(ctx, kind, raw_std, lr) for lr in grid}) for kind in KINDS}
        longer = grown(grid, tuned)
        if growth == knobs.grow or longer == grid:
            return tuned
        grid = longer
    raise AssertionError("the loop returns")


def _trial(ctx: StudyContext[ReluKnobs], kind: str, raw_std: float | None, lr: float) -> float:
    knobs = ctx.knobs
    curves = [
        curve_of(ctx, kind, raw_std, lr, seed) for seed in range(TUNE_SEED, TUNE_SEED + knobs.tune_seeds)
    ]
    # Of rates that do not get there the one with the lowest error is nearest to it.
    return statistics.fmean(
        epochs_to(curve, knobs.error, knobs.epochs) + (min(curve) / 100.0 if curve else 1.0)
        for curve in curves
    )


def raw_deviation(part: Samples, images: int = 512) -> float:
    """Standard deviation of the values of px, from 0 to 255, over some images."""
    count = min(images, len(part))
    return float(torch.stack([part.image(index) for index in range(count)]).float().std())


def curve_of(
    ctx: StudyContext[ReluKnobs], kind: str, raw_std: float | None, lr: float, seed: int
) -> tuple[float, ...]:
    """Training error of each epoch, in %; empty if the training diverged."""
    knobs = ctx.knobs
    make = functools.partial(
        FourLayers,
        kind,
        raw_std,
        width=knobs.width,
        kernel_size=knobs.kernel_size,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )
    start = "scaled" if raw_std is None else "raw"
    label = f"four-layers-{start}-{kind.lower()}-{knobs.width}-{knobs.kernel_size}px"
    arm = Arm(
        network=make, label=label, settings={"weight_decay": 0.0, "schedule": "constant", "warmup": 0.0}
    )
    trained = train_arm(ctx, kind, arm, lr, seed)
    if trained is None:
        return ()
    return tuple(100.0 * (1.0 - line["train_accuracy"]) for line in epoch_lines(trained.run.metrics()))


def epochs_to(curve: Sequence[float], error: float, budget: int) -> float:
    """After how many epochs a training error was reached, on the line between those around it.

    An epoch's error is a mean over the epoch, so it stands for the epoch's middle.

    Args:
        curve: training error of each epoch, in %.
        error: to be reached, in %.
        budget: what is returned where it was not: all epochs that were tried.
    """
    for i, value in enumerate(curve):
        if value <= error:
            if i == 0:
                return 0.5
            before = curve[i - 1]
            return i - 0.5 + (before - error) / (before - value)
    return float(budget)


def _table(races: Mapping[tuple[str, str], Race], knobs: ReluKnobs) -> Table:
    rows = tuple(
        (
            start,
            kind,
            f"{race.tuned.best:g}",
            ", ".join(f"{lr:g}: {value:.2f}" for lr, value in race.tuned.trials.items()),
            f"{statistics.fmean(race.needed):.2f}",
            ", ".join(f"{value:.2f}" for value in race.needed),
        )
        for (start, kind), race in races.items()
    )
    heads = ("start", "units", "learning rate", "trials: epochs + lowest error", "epochs needed", "each seed")
    title = f"Epochs to {knobs.error:g} % training error ({knobs.epochs}: not reached)"
    return Table(title, heads, rows)


def draw(races: Mapping[tuple[str, str], Race], knobs: ReluKnobs, figure: Figure) -> None:
    """Training error by epoch as in the paper's figure, from both starts, every seed."""
    for axes, start in zip(figure.subplots(1, 2), ("paper", "scaled"), strict=True):
        for kind, style in zip(KINDS, ("C0-", "C1--"), strict=True):
            race = races[start, kind]
            for number, curve in enumerate(race.curves):
                label = f"{kind}, learning rate {race.tuned.best:g}" if number == 0 else None
                axes.plot([i + 0.5 for i in range(len(curve))], curve, style, label=label, alpha=0.8)
        axes.axhline(knobs.error, color="k", ls=":", lw=1.0)
        title = "start as in the paper" if start == "paper" else "start scaled for each kind"
        axes.set(xlabel="epoch", ylabel="training error (%)", ylim=(0, 100), title=f"every seed; {title}")
        axes.legend()


STUDY = Study(
    name="relu",
    version=2,
    source="Krizhevsky et al. 2012, Section 3.1 and Figure 1",
    published=(
        "a four-layer convolutional network with ReLUs reaches 25 % training error on CIFAR-10 six times "
        "faster than an equivalent one with tanh neurons",
        "the learning rate of each was chosen to make its training as fast as possible; no regularisation",
        "no normalisation but that the mean is subtracted from the values of px; weights from N(0, 0.01^2)",
    ),
    clauses=(
        Clause(
            name="paper",
            says="From the start of 2012, tanh units need more epochs than ReLUs, each at its fastest rate.",
            measure="epochs to the training error, tanh over ReLU, start of 2012",
            unit="log2",
            above=0.0,
            published=f"six times: {math.log2(6.0):.1f} (CIFAR-10, 25 %)",
        ),
        Clause(
            name="scaled",
            says="From a start that is scaled for each kind too.",
            measure="epochs to the training error, tanh over ReLU, start scaled for each kind",
            unit="log2",
            above=0.0,
            decides=False,
        ),
    ),
    protocol="A network of three convolutions and a linear layer is trained with ReLUs and with tanh "
    "units at a constant learning rate, without augmentation, weight decay or normalisation. Each "
    "kind's fastest "
    "rate is found on one grid by seeds of their own, and must lie inside the grid. This is done "
    "from the paper's "
    "start (raw values of px less their mean, weights from N(0, 0.01^2)), which decides, and from "
    "one that is "
    "scaled for each kind, which is reported.",
    presets={
        "quick": ReluKnobs(
            images=3000,
            test_images=500,
            px=14,
            epochs=12,
            seeds=3,
            recipe="cs231n",
            batch_size=64,
            grid=(0.003, 0.01, 0.03, 0.1),
        ),
        "standard": ReluKnobs(
            images=10000,
            test_images=1000,
            px=14,
            error=20.0,
            epochs=20,
            recipe="cs231n",
            batch_size=64,
            grid=(0.001, 0.003, 0.01, 0.03, 0.1),
        ),
        "full": ReluKnobs(
            data="cifar10",
            width=32,
            epochs=40,
            recipe="cs231n",
            batch_size=64,
            grid=(0.001, 0.003, 0.01, 0.03, 0.1),
        ),
    },
    run=run,
    changes="Version 1 chose the rates on the seeds of the report, from a grid that ended at tanh's best.",
)
