"""Receptive field: what an output position can see, and what it does see, before and after training.

Luo, Li, Urtasun and Zemel 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural
Networks".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct
from convatlas.blocks.init import he_normal_, init_layers, linear_uniform_
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.trainings import Trained
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


TWO_SIGMA = 1.0 - 0.9545
"""A px belongs to the effective field if its gradient is more than this share of the largest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReceptiveFieldKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depths: 3x3 layers of the networks whose field is measured before training.
        depth: 3x3 layers of the network that is trained.
        width: channels.
        probe: images that a gradient is a mean over.
    """

    depths: tuple[int, ...] = (4, 8, 16, 32)
    depth: int = 12
    width: int = 16
    probe: int = 64


class Stack(nn.Module):
    """3x3 convolutions of one width, with batch normalisation and ReLUs, then the mean and a linear layer.

    Args:
        depth: convolutions.
        width: channels.
        in_chans: channels of the images.
        num_classes: K.
    """

    def __init__(self, depth: int, width: int, *, in_chans: int, num_classes: int) -> None:
        super().__init__()
        chans = [in_chans, *[width] * depth]
        self.layers = nn.Sequential(
            *(ConvNormAct(chans[i], chans[i + 1], 3, padding=1) for i in range(depth))
        )
        self.fc = nn.Linear(width, num_classes)
        init_layers(self, conv=he_normal_, linear=linear_uniform_)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images: (B, C, H, W) -> (B, K)."""
        return self.fc(self.layers(x).mean(dim=(2, 3)))  # (B, K)


def theoretical(layers: nn.Module, in_chans: int, px: int) -> int:
    """Side of what an output position can see, in px, as the sizing finds it.

    Raises:
        ValueError: it is the whole image, whatever its size.
    """
    field = size(layers, (in_chans, px, px)).receptive_field
    if field is None or field.size[0] is None:
        raise ValueError("the layers see the whole image, so that they have no receptive field of a size")
    return field.size[0]


def gradient_map(layers: nn.Module, x: Tensor) -> Array:
    """How much each px matters for the centre of the last map: (H, W).

    A random combination of the centre's channels is sent back, a new one for each image; what comes out is
    the root mean square of the gradient over images and channels.

    Args:
        layers: from images to a map of their size.
        x: images (B, C, H, W).

    Source: Section 3 of the paper.
    """
    x = x.clone().requires_grad_()
    maps: Tensor = layers(x)
    centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
    (slope,) = torch.autograd.grad((centre * torch.randn_like(centre)).sum(), x)
    return slope.double().square().mean(dim=(0, 1)).sqrt().numpy()


def effective(gradient: Array) -> float:
    """Side of the square that has as many px as matter, in px.

    Source: Section 3.2: those whose gradient is more than 1 - 95.45 % of the largest.
    """
    return math.sqrt(int((gradient > TWO_SIGMA * gradient.max()).sum()))


def reach(gradient: Array) -> int:
    """Side of the square that holds every px whose gradient is not 0, in px."""
    rows, columns = np.nonzero(gradient)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


@dataclasses.dataclass(frozen=True)
class Fields:
    """What was measured for one seed.

    Attributes:
        by_depth: side of the effective field before training for each depth, in px.
        before: gradient of the network that is trained, before that; (H, W).
        after: the same afterwards.
    """

    by_depth: tuple[float, ...]
    before: Array
    after: Array


def run(ctx: StudyContext[ReceptiveFieldKnobs]) -> Outcome:
    """Measures fresh networks of several depths, and one before and after training."""
    knobs = ctx.knobs
    arm = Arm(network=functools.partial(_make, ctx, knobs.depth), label=f"stack{knobs.depth}x{knobs.width}")
    compared = compare(ctx, {"stack": arm})
    pairs = zip(ctx.seeds, compared.nets("stack"), strict=True)
    fields = [examine(ctx, seed, trained) for seed, trained in pairs]
    depths = sorted(set(knobs.depths))
    sides = {depth: _theoretical(ctx, depth) for depth in (*depths, knobs.depth)}
    drawn = functools.partial(draw, fields, depths, sides, knobs.depth)
    return Outcome(
        compared=compared,
        samples=samples(fields, depths),
        facts=facts(ctx, depths),
        tables=(_table(fields, depths, sides, knobs.depth),),
        figures={"receptive-field-maps.png": render(drawn, width=13.0)},
        reading=_reading(fields, depths, sides, knobs.depth),
    )


def _make(ctx: StudyContext[ReceptiveFieldKnobs], depth: int) -> Stack:
    return Stack(depth, ctx.knobs.width, in_chans=ctx.in_chans, num_classes=ctx.num_classes)


def _theoretical(ctx: StudyContext[ReceptiveFieldKnobs], depth: int) -> int:
    return theoretical(_make(ctx, depth).layers, ctx.in_chans, 2 * depth + 3)


def examine(ctx: StudyContext[ReceptiveFieldKnobs], seed: int, trained: Trained) -> Fields:
    """Measures the networks of one seed.

    Fresh networks see noise, with a border that their field does not reach; the trained one sees test images.
    """
    knobs = ctx.knobs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        by_depth: list[float] = []
        for depth in sorted(set(knobs.depths)):
            px = 2 * depth + 3
            layers = _make(ctx, depth).layers.train()  # Statistics of the batch: it has no others yet.
            noise = torch.randn(max(2, knobs.probe // 4), ctx.in_chans, px, px)
            by_depth.append(effective(gradient_map(layers, noise)))
    part = ctx.source.test
    images = torch.stack([part.image(i) for i in range(min(knobs.probe, len(part)))])
    x = trained.transform.normalise(images)
    fresh = ctx.build(
        functools.partial(_make, ctx, knobs.depth), seed
    )  # The weights that training began with.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        before = gradient_map(fresh.get_submodule("layers").train(), x)
        torch.manual_seed(seed)
        after = gradient_map(trained.net.get_submodule("layers").train(), x)
    return Fields(tuple(by_depth), before, after)


def facts(ctx: StudyContext[ReceptiveFieldKnobs], depths: Sequence[int]) -> tuple[Fact, ...]:
    """What an output position can see: by the sizing, by the rule, and by where a gradient arrives."""
    found: list[Fact] = []
    for depth in depths:
        found.append(
            Fact(
                name=f"{depth} layers of 3x3: side of the theoretical field",
                value=float(_theoretical(ctx, depth)),
                claimed=2.0 * depth + 1.0,
                unit="px",
                note="claimed: 1 + 2n",
            )
        )
    depth, width = depths[0], ctx.knobs.width
    linear = nn.Sequential(
        *(nn.Conv2d(width if i else ctx.in_chans, width, 3, padding=1).double() for i in range(depth))
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.knobs.first_seed)
        gradient = gradient_map(linear, torch.randn(4, ctx.in_chans, 2 * depth + 9, 2 * depth + 9).double())
    found.append(
        Fact(
            name=f"{depth} linear layers: side of where the gradient is not 0",
            value=float(reach(gradient)),
            claimed=2.0 * depth + 1.0,
            unit="px",
        )
    )
    return tuple(found)


def growth(depths: Sequence[int], sides: Sequence[float]) -> float:
    """The power of the depth with which a side grows: the slope in logarithms, by least squares."""
    return float(np.polyfit(np.log(np.asarray(depths)), np.log(np.asarray(sides)), 1)[0])


def samples(fields: Sequence[Fields], depths: Sequence[int]) -> dict[str, list[float]]:
    """The effects of each seed, by clause."""
    rule = [2.0 * depth + 1.0 for depth in depths]
    return {
        "unused": [1.0 - one.by_depth[-1] / rule[-1] for one in fields],
        "growth": [growth(depths, rule) - growth(depths, one.by_depth) for one in fields],
        "training": [effective(one.after) - effective(one.before) for one in fields],
    }


def _table(fields: Sequence[Fields], depths: Sequence[int], sides: dict[int, int], trained: int) -> Table:
    rows: list[tuple[str, ...]] = []
    for i, depth in enumerate(depths):
        mean = statistics.fmean(one.by_depth[i] for one in fields)
        rows.append((str(depth), "none", f"{sides[depth]}", f"{mean:.1f}", f"{mean / sides[depth]:.2f}"))
    for when in ("before", "after"):
        mean = statistics.fmean(effective(getattr(one, when)) for one in fields)
        rows.append(
            (
                str(trained),
                f"{when}, on images",
                f"{sides[trained]}",
                f"{mean:.1f}",
                f"{mean / sides[trained]:.2f}",
            )
        )
    return Table(
        "Side of the field, px", ("3x3 layers", "training", "theoretical", "effective", "share"), tuple(rows)
    )


def _reading(fields: Sequence[Fields], depths: Sequence[int], sides: dict[int, int], depth: int) -> str:
    before, after = (
        statistics.fmean(effective(getattr(one, when)) for one in fields) for when in ("before", "after")
    )
    power = statistics.fmean(growth(depths, one.by_depth) for one in fields)
    return (
        "The field that layers of 3x3 can see grows by 2 px a layer; what matters in it, before training, "
        f"grows with about the power {power:.2f} of the depth. Of {depth} layers, which can see "
        f"{sides[depth]} px, {before:.1f} px matter before training and {after:.1f} px afterwards (sides "
        "of squares of as many px)."
    )


def draw(
    fields: Sequence[Fields], depths: Sequence[int], sides: dict[int, int], depth: int, figure: Figure
) -> None:
    """Both fields by depth, and where the gradient of the trained network arrives, before and after."""
    growth_, before, after = figure.subplots(1, 3)
    growth_.plot(depths, [sides[d] for d in depths], "k--", label="theoretical, 1 + 2n")
    for number, one in enumerate(fields):
        growth_.plot(
            depths, one.by_depth, "C0o-", alpha=0.6, label=None if number else "effective, each seed"
        )
    growth_.set(xlabel="3x3 layers", ylabel="side (px)", xscale="log", yscale="log", title="before training")
    growth_.set_xticks(list(depths), [str(d) for d in depths])
    growth_.minorticks_off()
    growth_.legend()
    for axes, when in ((before, "before"), (after, "after")):
        gradient = np.mean([getattr(one, when) / getattr(one, when).max() for one in fields], axis=0)
        axes.imshow(gradient, cmap="magma", interpolation="nearest", vmin=0.0, vmax=1.0)
        side = statistics.fmean(effective(getattr(one, when)) for one in fields)
        axes.set_title(f"gradient {when} training: {side:.1f} px of {sides[depth]}")
        axes.set(xlabel="px", ylabel="px")
        low, width = gradient.shape[0] // 2 - sides[depth] // 2 - 0.5, sides[depth]
        axes.plot(
            [low, low + width, low + width, low, low],
            [low, low, low + width, low + width, low],
            "w:",
            lw=1.0,
        )


STUDY = Study(
    name="receptive-field",
    version=2,
    source="Luo et al. 2016, arXiv 1701.04128, Sections 2 and 3, Figures 1 to 4",
    published=(
        "the theoretical field grows with the depth n, the effective one with its root: a share of 1/sqrt(n)",
        "the effective field is like a Gaussian, and grows while the network learns",
    ),
    clauses=(
        Clause(
            name="unused",
            says="Before training less than half of what the deepest network can see matters to it.",
            measure="share of the theoretical field's side that is not effective, deepest network",
            unit="share",
            above=0.5,
            published="curves only (Figure 2)",
        ),
        Clause(
            name="growth",
            says="The effective field grows more slowly with depth than the theoretical one.",
            measure="power of the depth with which the field grows, theoretical minus effective",
            unit="power",
            above=0.0,
            published="theory: 1 - 0.5",
        ),
        Clause(
            name="training",
            says="Training enlarges the effective field.",
            measure="effective field's side, after training minus before",
            unit="px",
            above=0.0,
            published="curves only (Figure 4): it grows",
        ),
    ),
    protocol="The theoretical field of stacks of 3x3 convolutions comes from the sizing. The effective "
    "field is the px whose gradient, sent back from the centre of the last map, is more than 4.55 % of "
    "the largest: for fresh networks of several depths, and for one before and after it learns to "
    "classify at the best learning rate of a grid.",
    presets={
        "quick": ReceptiveFieldKnobs(images=1500, test_images=500, epochs=3, seeds=3, batch_size=16),
        "standard": ReceptiveFieldKnobs(images=6000, test_images=2000, epochs=5, depths=(4, 8, 16, 32, 64)),
        "full": ReceptiveFieldKnobs(
            data="cifar10",
            epochs=60,
            depth=15,
            width=64,
            depths=(5, 10, 20, 40, 80),
            batch_size=64,
            flip=0.5,
            pad=4,
            reach=30.0,
        ),
    },
    run=run,
    changes="Version 1 had one learning rate, and another noise before and after training.",
)
