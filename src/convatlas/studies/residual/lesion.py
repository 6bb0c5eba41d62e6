"""Lesions: a residual network is many paths of many lengths, and loses only some of them with a block.

Veit, Wilber and Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks".
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from convatlas.models.network import check_count
from convatlas.plots.style import render
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.trainings import Trained
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

from convatlas.blocks.preact import PreActBasicBlock
from convatlas.blocks.residual import BasicBlock
from convatlas.studies.residual.paths import (
    ResidualBlock,
    chain,
    disorder,
    gradient_shares,
    mean_length,
    parts_of,
    path_gradient,
    path_shares,
    swap,
    without,
)

SURVIVES = 10.0
"""Points by which the error may rise when a block is lost, and the network still counts as surviving."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LesionKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        residual: a residual network for CIFAR; with pre-activation blocks it is the sum of the notes'
            unrolled form.
        plain: a plain one.
        blocks: blocks of each stage of both networks.
        draws: random choices for each number of removed blocks; twice as many for each number of swaps, three
            times as many for each path length.
        probe: training images that the gradient is measured on.
    """

    residual: str = "preact_resnet110_cifar"
    plain: str = "plain20_cifar"
    blocks: int = 5
    draws: int = 4
    probe: int = 64

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count is out of its range.
        """
        super().__post_init__()
        for name in ("blocks", "draws", "probe"):
            check_count(name, getattr(self, name), least=1)


@dataclasses.dataclass(frozen=True)
class Lesions:
    """What was measured on the networks of one seed. Errors are wrong test images, in %.

    Attributes:
        before: error of the whole residual network, and of the whole plain one.
        single: error with each part removed alone, first to last.
        keeping: whether each of these parts keeps the shape.
        removed: pairs of a number of blocks removed from the residual network and the error.
        swapped: pairs of how far the order of its blocks is from the trained one, and the error.
        gradient: size of the gradient through paths of k blocks, for k from 0 to n.
    """

    before: tuple[float, float]
    single: tuple[tuple[float, ...], tuple[float, ...]]
    keeping: tuple[tuple[bool, ...], tuple[bool, ...]]
    removed: tuple[tuple[int, float], ...]
    swapped: tuple[tuple[float, float], ...]
    gradient: tuple[float, ...]

    def rises(self, which: int) -> list[float]:
        """By how much the error rises with each part removed that keeps the shape; 0 residual, 1 plain."""
        kept = zip(self.single[which], self.keeping[which], strict=True)
        return [error - self.before[which] for error, keeps in kept if keeps]


def check_networks(ctx: StudyContext[LesionKnobs]) -> None:
    """Refuses networks that cannot be taken apart, before anything is trained.

    Raises:
        ValueError: if a network has no such blocks, or is of the other kind.
    """
    for knob in ("residual", "plain"):
        name = getattr(ctx.knobs, knob)
        try:
            parts = parts_of(ctx.build(name, 0, {"blocks_per_stage": ctx.knobs.blocks}))
        except ValueError as error:
            raise ValueError(f"`{knob}`={name!r}: {error}") from None
        if isinstance(parts[0].module, ResidualBlock) is not (knob == "residual"):
            raise ValueError(f"`{knob}`={name!r}; expected a {knob} network")


def run(ctx: StudyContext[LesionKnobs]) -> Outcome:
    """Trains both networks for each seed, and damages them."""
    check_networks(ctx)
    model = {"blocks_per_stage": ctx.knobs.blocks}
    arms = {kind: Arm(network=getattr(ctx.knobs, kind), model=model) for kind in ("residual", "plain")}
    compared = compare(ctx, arms)
    pairs = zip(ctx.seeds, compared.nets("residual"), compared.nets("plain"), strict=True)
    results = [examine(ctx, seed, (residual, plain)) for seed, residual, plain in pairs]
    return Outcome(
        compared=compared,
        samples=samples(results),
        facts=facts(),
        tables=(_table(results),),
        figures={
            "lesion-parts.png": render(functools.partial(draw, results, ctx.chance), width=11.0, height=8.0)
        },
        reading=_reading(results, ctx.chance),
    )


def samples(results: Sequence[Lesions]) -> dict[str, list[float]]:
    """The effects of each seed, by clause."""
    rises = [[statistics.fmean(one.rises(which)) for one in results] for which in (0, 1)]
    return {
        "survives": rises[0],
        "plain": [plain - residual for residual, plain in zip(*rises, strict=True)],
        "strided": [_strided(one) - rise for one, rise in zip(results, rises[0], strict=True)],
        "removed": [correlation(one.removed) for one in results],
        "swapped": [correlation(one.swapped) for one in results],
        "paths": [
            (len(one.gradient) - 1) / 2.0 - mean_length(gradient_shares(one.gradient)) for one in results
        ],
    }


def _strided(one: Lesions) -> float:
    """Mean rise of the error when a residual block that strides is removed; 0 where there is none."""
    found = [
        error - one.before[0] for error, keeps in zip(one.single[0], one.keeping[0], strict=True) if not keeps
    ]
    return statistics.fmean(found) if found else 0.0


def examine(ctx: StudyContext[LesionKnobs], seed: int, trained: tuple[Trained, Trained]) -> Lesions:
    """Measures a residual and a plain network with parts missing."""
    both = [parts_of(one.net) for one in trained]
    blocks = [part.module for part in both[0] if isinstance(part.module, BasicBlock | PreActBasicBlock)]
    draw_ = np.random.default_rng(seed)

    def error(which: int, net: nn.Module) -> float:
        return ctx.error(trained[which], net=net)

    single = [
        tuple(error(which, without(trained[which].net, both[which], [i])) for i in range(len(both[which])))
        for which in (0, 1)
    ]
    removed = [(1, value) for value in single[0]]
    swapped: list[tuple[float, float]] = []
    for number in counts(len(blocks)):
        for _ in range(ctx.knobs.draws):
            gone = draw_.choice(len(blocks), size=number, replace=False).tolist()
            removed.append((number, error(0, without(trained[0].net, both[0], gone))))
        for _ in range(2 * ctx.knobs.draws):
            order = swap(both[0], number, draw_)
            shuffled = chain(trained[0].net, [both[0][i].module for i in order])
            swapped.append((disorder(order), error(0, shuffled)))
    return Lesions(
        before=(trained[0].test_error, trained[1].test_error),
        single=(single[0], single[1]),
        keeping=(tuple(part.keeps_shape for part in both[0]), tuple(part.keeps_shape for part in both[1])),
        removed=tuple(removed),
        swapped=tuple(swapped),
        gradient=_gradient(ctx, trained[0], blocks, draw_),
    )


def counts(blocks: int) -> list[int]:
    """Numbers of blocks to remove: about six between two and half of them."""
    return sorted({round(2 + i * (blocks / 2 - 2) / 5) for i in range(6)} & set(range(1, blocks + 1)))


def _gradient(
    ctx: StudyContext[LesionKnobs],
    trained: Trained,
    blocks: Sequence[ResidualBlock],
    draw_: np.random.Generator,
) -> tuple[float, ...]:
    part, count = ctx.source.train, min(ctx.knobs.probe, len(ctx.source.train))
    images = torch.stack([part.image(index) for index in range(count)])
    measure = path_gradient(trained.net, blocks, trained.transform.normalise(images), part.labels[:count])

    def sizes(k: int) -> list[float]:
        draws = 1 if k in (0, len(blocks)) else 3 * ctx.knobs.draws
        return [measure(draw_.choice(len(blocks), size=k, replace=False).tolist()) for _ in range(draws)]

    return tuple(statistics.fmean(sizes(k)) for k in range(len(blocks) + 1))


def correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's rank correlation; 0 where one side does not vary."""
    from scipy.stats import rankdata  # Imported late: most commands need no statistics.

    first, second = (rankdata([pair[side] for pair in pairs]) for side in (0, 1))
    if min(float(first.std()), float(second.std())) == 0.0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def facts() -> tuple[Fact, ...]:
    """What the paper says of the paths through 54 blocks, counted."""
    shares = path_shares(54)
    return (
        Fact(
            name="ResNet-110: mean blocks on a path of 54",
            value=mean_length(shares),
            claimed=27.0,
            tolerance=1e-9,
        ),
        Fact(
            name="ResNet-110: share of all paths that pass 5 to 17 of 54 blocks",
            value=100.0 * sum(shares[5:18]),
            claimed=0.45,
            tolerance=0.02,
            unit="%",
            note="printed with two digits",
        ),
    )


def _table(results: Sequence[Lesions]) -> Table:
    def row(name: str, which: int, keeps: bool) -> tuple[str, ...] | None:
        errors = [
            error
            for one in results
            for error, kept in zip(one.single[which], one.keeping[which], strict=True)
            if kept is keeps
        ]
        if not errors:
            return None
        before = statistics.fmean(one.before[which] for one in results)
        return (name, f"{before:.1f} %", f"{statistics.fmean(errors):.1f} %", f"{max(errors):.1f} %")

    rows = (
        row("residual block", 0, True),
        row("residual block that strides (its shortcut stays)", 0, False),
        row("plain layer", 1, True),
    )
    heads = ("removed, one at a time", "test error before", "after, mean", "after, worst")
    return Table("One part removed", heads, tuple(cells for cells in rows if cells))


def _reading(results: Sequence[Lesions], chance: float) -> str:
    rises = [statistics.fmean(statistics.fmean(one.rises(which)) for one in results) for which in (0, 1)]
    blocks = len(results[0].gradient) - 1
    weighted = statistics.fmean(mean_length(gradient_shares(one.gradient)) for one in results)
    return (
        f"Without one of its blocks, the residual network's test error rises by {rises[0]:.1f} points on "
        f"average; without one of its layers, the plain network's rises by {rises[1]:.1f} (chance is "
        f"{chance:.0f} %). Taking out a block of n leaves 2^(n-1) of 2^n paths, taking out a plain layer "
        f"leaves none. The paths through {blocks} blocks pass {blocks / 2:g} on average; weighted with the "
        f"gradient that they carry, {weighted:.1f}."
    )


def draw(results: Sequence[Lesions], chance: float, figure: Figure) -> None:
    """One part removed, several removed, others swapped; and paths by length with their gradient."""
    (one, several), (order, paths) = figure.subplots(2, 2)
    _draw_single(one, results, chance)
    several.set(xlabel="residual blocks removed", title="several random blocks removed")
    order.set(xlabel="pairs of blocks in the wrong order (%)", title="random blocks of one stage swapped")
    before = statistics.fmean(seed.before[0] for seed in results)
    for axes, points in (
        (several, [point for seed in results for point in seed.removed]),
        (order, [(100.0 * share, error) for seed in results for share, error in seed.swapped]),
    ):
        axes.scatter(*zip(*points, strict=True), s=14, color="C0", alpha=0.6)
        axes.axhline(before, color="C0", ls=":", lw=1.2)
        axes.axhline(chance, color="k", ls="--", lw=1.0)
        axes.set(ylabel="test error (%)", ylim=(0, 100))
    blocks = len(results[0].gradient) - 1
    shares = [100.0 * share for share in path_shares(blocks)]
    paths.bar(range(blocks + 1), shares, color="0.8", label="paths (binomial)")
    columns = zip(*(gradient_shares(seed.gradient) for seed in results), strict=True)
    mean = [100.0 * statistics.fmean(values) for values in columns]
    paths.plot(range(blocks + 1), mean, "C3o-", label="gradient that they carry")
    paths.set(xlabel=f"blocks on the path, of {blocks}", ylabel="share (%)", title="paths by length")
    paths.legend()


def _draw_single(axes: Axes, results: Sequence[Lesions], chance: float) -> None:
    for which, (name, colour) in enumerate((("residual", "C0"), ("plain", "C1"))):
        means = [
            statistics.fmean(errors) for errors in zip(*(one.single[which] for one in results), strict=True)
        ]
        keeping = results[0].keeping[which]
        points = [(i / (len(means) - 1), mean) for i, mean in enumerate(means)]
        kept = [point for point, keeps in zip(points, keeping, strict=True) if keeps]
        axes.plot(*zip(*kept, strict=True), f"{colour}o-", label=name)
        if which == 0:
            strided = [point for point, keeps in zip(points, keeping, strict=True) if not keeps]
            axes.plot(
                *zip(*strided, strict=True), f"{colour}s", mfc="none", label="residual, one that strides"
            )
        before = statistics.fmean(one.before[which] for one in results)
        axes.axhline(before, color=colour, ls=":", lw=1.2)
    axes.axhline(chance, color="k", ls="--", lw=1.0)
    axes.set(xlabel="place of the removed part (0: first, 1: last)", ylabel="test error (%)", ylim=(0, 100))
    axes.set_title("one part removed (dotted: none; dashed: chance)")
    axes.legend(loc="lower right")


STUDY = Study(
    name="lesion",
    version=2,
    source="Veit et al. 2016, arXiv 1605.06431, Sections 3 to 5, Figures 3, 5 and 6",
    published=(
        "removing any layer of a VGG network takes its CIFAR-10 error to chance; removing a block of "
        "ResNet-110 hardly changes it, blocks that down-sample apart (curves only)",
        "54 blocks: 2^54 paths, 27 blocks long on average; most gradient comes from paths of 5 to 17 blocks, "
        "0.45 % of all",
    ),
    clauses=(
        Clause(
            name="survives",
            says=f"The error of a residual network that loses a block rises by less than "
            f"{SURVIVES:g} points.",
            measure="rise of the test error, one residual block removed, mean over those that keep the shape",
            below=SURVIVES,
            published="curves only (Figure 3): hardly any",
        ),
        Clause(
            name="plain",
            says="That of a plain network that loses a layer rises by at least 20 points more.",
            measure="rise of the test error, one plain layer removed minus one residual block removed",
            above=20.0,
            published="curves only (Figure 3): plain to chance",
        ),
        Clause(
            name="strided",
            says="A block that strides is worth more than others.",
            measure="rise of the test error, residual blocks that stride (their shortcut stays) "
            "minus the others",
            above=0.0,
            published="curves only (Figure 3): more",
            decides=False,
        ),
        Clause(
            name="removed",
            says="The error grows smoothly with the number of lost blocks.",
            measure="test error against number of removed blocks: rank correlation",
            unit="rho",
            above=0.0,
            published="curve only (Figure 5a): smooth",
            decides=False,
        ),
        Clause(
            name="swapped",
            says="The error grows smoothly with the disorder of the blocks.",
            measure="test error against disorder of the blocks: rank correlation",
            unit="rho",
            above=0.0,
            published="curve only (Figure 5b): smooth",
            decides=False,
        ),
        Clause(
            name="paths",
            says="Gradient comes from paths that are shorter than the mean.",
            measure="mean path length, all paths alike minus weighted with their gradient",
            unit="blocks",
            above=0.0,
            published="54 blocks: most gradient from paths of 5 to 17",
            decides=False,
        ),
    ),
    protocol="A pre-activation residual network, whose blocks add to what they read, and a plain "
    "network of as many "
    "layers are trained, each at its own best learning rate of one grid. Then, without further "
    "training, each block "
    "or plain layer is removed alone; blocks that stride leave their shortcut and are counted "
    "apart. Several random "
    "blocks are removed; random blocks of one stage are swapped. The gradient through paths of k "
    "blocks is measured "
    "by letting it pass k random blocks by their branch alone and the others by their shortcut alone.",
    presets={
        "quick": LesionKnobs(
            images=3000,
            test_images=500,
            px=14,
            epochs=4,
            seeds=3,
            blocks=3,
            batch_size=16,
            warmup=60,
            draws=2,
        ),
        "standard": LesionKnobs(images=10000, test_images=2000, px=14, epochs=6, warmup=300),
        "full": LesionKnobs(
            data="cifar10",
            blocks=18,
            epochs=164,
            recipe="preact_resnet_cifar",
            schedule="recipe",
            batch_size=128,
            flip=0.5,
            pad=4,
            draws=20,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes='Version 1 called an error of 80 % after the loss of a block "survives", did not count '
    "strided blocks "
    "apart, took post-activation blocks, and had one learning rate for both.",
)
