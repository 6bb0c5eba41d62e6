"""ReLU against tanh: how many epochs a convolutional network needs to reach a given training error.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
Section 3.1 and Figure 1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, relu
from convatlas.blocks.init import gaussian_, he_normal_, init_layers, linear_uniform_, xavier_uniform_
from convatlas.plots.style import render
from convatlas.runs.run import epoch_lines
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect
from convatlas.training.nonfinite import TrainingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.data.sets import Samples
    from convatlas.studies.context import StudyContext

KINDS = ("ReLU", "tanh")
FIRST_STD = 0.01
"""Of the paper's first weights (Section 5)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReluKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        error: training error to be reached, in %.
        lrs: learning rates from the paper's start; each kind is compared at the one that is best for it.
        scaled_lrs: the same from a start that is scaled for each kind.
        width: filters of the first two convolutions; the third has twice as many.
        kernel_size: px of each filter, odd.
        batch_size: images of a step.
    """

    error: float = 25.0
    lrs: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    scaled_lrs: tuple[float, ...] = (0.03, 0.1)
    width: int = 16
    kernel_size: int = 5
    batch_size: int = 64

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: `error` is no share that can be reached, `kernel_size` is even, or there is no rate.
        """
        super().__post_init__()
        if not 0.0 < self.error < 100.0:
            raise ValueError(f"`error`={self.error}; expected between 0 and 100, in %")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size`={self.kernel_size}; expected an odd number, such as 3 or 5")
        for name in ("lrs", "scaled_lrs"):
            rates = getattr(self, name)
            if not rates or min(rates) <= 0.0:
                raise ValueError(f"`{name}`={rates}; expected one rate above 0 or more")


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
        """Images to logits: (B, C, H, W) -> (B, K)."""
        return self.fc(self.layers(x * self.factor).mean(dim=(2, 3)))  # (B, K)


Curves = dict[tuple[str, float], list[tuple[float, ...]]]
"""By kind and learning rate: the training error of each epoch for each seed, in %; empty if it diverged."""


def run(ctx: StudyContext[ReluKnobs]) -> Outcome:
    """Trains both kinds at each learning rate, from the paper's start and from a scaled one."""
    knobs, raw = ctx.knobs, raw_deviation(ctx.source.train)
    paper, scaled = (
        {(kind, lr): [_curve(ctx, kind, std, lr, seed) for seed in ctx.seeds] for kind in KINDS for lr in lrs}
        for std, lrs in ((raw, knobs.lrs), (None, knobs.scaled_lrs))
    )
    return Outcome(
        findings=find(paper, scaled, knobs.error, knobs.epochs),
        tables=(
            _table("From the paper's start", paper, knobs),
            _table("From a start scaled for each kind", scaled, knobs),
        ),
        figures={"relu.png": render(functools.partial(draw, paper, scaled, knobs), width=13.0)},
        reading=_reading(paper, scaled, knobs),
    )


def raw_deviation(part: Samples, images: int = 512) -> float:
    """Standard deviation of the values of px, from 0 to 255, over some images."""
    count = min(images, len(part))
    return float(torch.stack([part.image(index) for index in range(count)]).float().std())


def _curve(
    ctx: StudyContext[ReluKnobs], kind: str, raw_std: float | None, lr: float, seed: int
) -> tuple[float, ...]:
    knobs = ctx.knobs
    make: Callable[[], nn.Module] = functools.partial(
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
    settings: dict[str, Any] = {"schedule.kind": "constant", "augment.flip": 0.0, "weight_decay": 0.0}
    try:
        trained = ctx.train(
            make,
            label=label,
            seed=seed,
            recipe="cs231n",
            epochs=knobs.epochs,
            batch_size=knobs.batch_size,
            lr=lr,
            **settings,
        )
    except TrainingError:
        ctx.log(f"{label}, lr {lr:g}, seed {seed}: diverged")
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


def best_rate(curves: Curves, kind: str, error: float, budget: int) -> float:
    """The learning rate at which a kind of network is fastest on average."""
    rates = {
        lr: statistics.fmean(epochs_to(curve, error, budget) for curve in seeds)
        for (name, lr), seeds in curves.items()
        if name == kind
    }
    return min(rates, key=lambda lr: rates[lr])


def fastest(curves: Curves, kind: str, error: float, budget: int) -> list[float]:
    """Epochs that a kind of network needs with each seed, at its best learning rate."""
    lr = best_rate(curves, kind, error, budget)
    return [epochs_to(curve, error, budget) for curve in curves[kind, lr]]


def find(paper: Curves, scaled: Curves, error: float, budget: int) -> tuple[Effect, ...]:
    """The effect that decides, from the paper's start; and the same from a scaled start."""

    def ratios(curves: Curves) -> tuple[float, ...]:
        relu_, tanh = (fastest(curves, kind, error, budget) for kind in KINDS)
        return tuple(math.log2(slow / fast) for slow, fast in zip(tanh, relu_, strict=True))

    name = f"epochs to {error:g} % training error, tanh over ReLU, each at its best learning rate"
    return (
        Effect(
            name=name,
            values=ratios(paper),
            unit="log2",
            published=f"six times: {math.log2(6.0):.1f} (CIFAR-10, 25 %)",
        ),
        Effect(
            name="the same, images and first weights scaled for each kind (no claim)",
            values=ratios(scaled),
            unit="log2",
            decides=False,
        ),
    )


def _table(title: str, curves: Curves, knobs: ReluKnobs) -> Table:
    rows: list[tuple[str, ...]] = []
    for (kind, lr), seeds in curves.items():
        needed = [epochs_to(curve, knobs.error, knobs.epochs) for curve in seeds]
        reached = sum(bool(curve) and min(curve) <= knobs.error for curve in seeds)
        ends = [curve[-1] for curve in seeds if curve]
        rows.append(
            (
                kind,
                f"{lr:g}",
                f"{statistics.fmean(needed):.2f}",
                f"{reached} of {len(seeds)}",
                f"{statistics.fmean(ends):.1f} %" if ends else "diverged",
            )
        )
    heads = ("units", "learning rate", f"epochs to {knobs.error:g} %", "seeds that got there", "last epoch")
    return Table(
        f"{title} (a run that did not get there counts as {knobs.epochs} epochs)", heads, tuple(rows)
    )


def _reading(paper: Curves, scaled: Curves, knobs: ReluKnobs) -> str:
    def told(curves: Curves) -> str:
        means = [statistics.fmean(fastest(curves, kind, knobs.error, knobs.epochs)) for kind in KINDS]
        return f"{means[0]:.1f} epochs with ReLUs, {means[1]:.1f} with tanh ({means[1] / means[0]:.1f} times)"

    return (
        f"To {knobs.error:g} % training error it took, from the paper's start, {told(paper)}; from a start "
        f"that is scaled for each kind, {told(scaled)}. The error is counted over each epoch's images as "
        "they are learnt from. A tanh unit passes almost no gradient where it saturates, as raw values of "
        "px make it; a ReLU passes all of it where it is on. A start that keeps the units out of "
        "saturation came later (Glorot and Bengio 2010 for tanh, He et al. 2015 for ReLUs)."
    )


def draw(paper: Curves, scaled: Curves, knobs: ReluKnobs, figure: Figure) -> None:
    """Training error by epoch as in the paper's figure, from both starts; and the epochs at each rate."""
    first, second, needed = figure.subplots(1, 3)
    for axes, curves, title in (
        (first, paper, "start as in the paper"),
        (second, scaled, "start scaled for each kind"),
    ):
        for kind, style in zip(KINDS, ("C0-", "C1--"), strict=True):
            lr = best_rate(curves, kind, knobs.error, knobs.epochs)
            for number, curve in enumerate(curves[kind, lr]):
                label = f"{kind}, learning rate {lr:g}" if number == 0 else None
                axes.plot([i + 0.5 for i in range(len(curve))], curve, style, label=label, alpha=0.8)
        axes.axhline(knobs.error, color="k", ls=":", lw=1.0)
        axes.set(xlabel="epoch", ylabel="training error (%)", ylim=(0, 100), title=f"every seed; {title}")
    for curves, rates, mark in ((paper, knobs.lrs, "o"), (scaled, knobs.scaled_lrs, "s")):
        for kind, style in zip(KINDS, ("C0-", "C1--"), strict=True):
            means = [
                statistics.fmean(epochs_to(curve, knobs.error, knobs.epochs) for curve in curves[kind, rate])
                for rate in rates
            ]
            label = f"{kind}, {'paper' if curves is paper else 'scaled'}"
            needed.plot(rates, means, f"{style}{mark}", label=label)
    needed.set(xlabel="learning rate", xscale="log", ylabel="epochs", ylim=(0, knobs.epochs * 1.05))
    needed.set_title(f"epochs to {knobs.error:g} % training error (top: never)")
    for axes in (first, second, needed):
        axes.legend()


STUDY = Study(
    name="relu",
    source="Krizhevsky et al. 2012, Section 3.1 and Figure 1",
    published=(
        "a four-layer convolutional network with ReLUs reaches 25 % training error on CIFAR-10 six times "
        "faster than an equivalent one with tanh neurons",
        "the learning rate of each was chosen to make its training as fast as possible; no regularisation",
        "no normalisation but that the mean is subtracted from the values of px; weights from N(0, 0.01^2)",
    ),
    protocol="A network of three convolutions and a linear layer is trained with ReLUs and with tanh "
    "units at several constant learning rates, without augmentation, weight decay or normalisation; each "
    "kind is compared at the rate at which it is fastest. This is done from the paper's start (raw values "
    "of px less their mean, weights from N(0, 0.01^2)), which decides, and from one that is scaled for "
    "each kind, which is reported.",
    refuted_by="Networks of tanh units that reach the training error in as few epochs.",
    presets={
        "quick": ReluKnobs(images=3000, test_images=500, px=14, epochs=12),
        "standard": ReluKnobs(images=20000, error=12.0, scaled_lrs=(0.01, 0.03, 0.1), epochs=20, seeds=5),
        "full": ReluKnobs(
            data="cifar10",
            lrs=(0.001, 0.003, 0.01, 0.03, 0.1),
            scaled_lrs=(0.003, 0.01, 0.03, 0.1),
            width=32,
            epochs=40,
            seeds=5,
        ),
    },
    run=run,
)
