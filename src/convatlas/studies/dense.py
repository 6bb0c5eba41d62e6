"""DenseNet: accuracy for each parameter against a ResNet, and which earlier maps each layer reads.

Huang, Liu, van der Maaten and Weinberger 2016, "Densely Connected Convolutional Networks".
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from convatlas.blocks.dense import DenseBlock, DenseLayer
from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

    from convatlas.studies.context import StudyContext, Trained

DENSE = "densenet40_12_cifar"
"""What is made small: without bottlenecks, so that a filter's weights tell which map it reads (Figure 5)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: layers of each of the three dense blocks.
        growth: k, channels that a layer makes.
        compression: share of the channels that a transition keeps.
        resnet: the network that it is compared with, by its name in the registry.
        margin: points of test error that the DenseNet may be worse.
        lr: learning rate.
        batch_size: images of a step.
    """

    depth: int = 5
    growth: int = 8
    compression: float = 0.5
    resnet: str = "resnet20_cifar"
    margin: float = 1.0
    lr: float = 0.1
    batch_size: int = 64


MOST_WRITTEN = 8
"""Layers of a block up to which the figure writes each number."""

HeatMap = NDArray[np.float64]
"""A number by layer of a block (columns) and source (rows, the block's input first).

NaN where the source comes after the layer."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one seed.

    Attributes:
        dense: test error of the DenseNet, %.
        resnet: of the ResNet.
        cut: of the DenseNet after training, when each layer sees only the map right before it.
        maps: weights in each block.
        losses: points of test error that each connection is worth; of the first seed only.
    """

    dense: float
    resnet: float
    cut: float
    maps: tuple[HeatMap, ...]
    losses: tuple[HeatMap, ...] = ()


def run(ctx: StudyContext[DenseKnobs]) -> Outcome:
    """Trains a DenseNet and a ResNet, and looks into the DenseNet."""
    results = [_result(ctx, seed) for seed in ctx.seeds]
    params = _params(ctx)
    return Outcome(
        findings=(
            *find(results, ctx.knobs.margin, params),
            *published_facts(),
            *connection_facts(ctx.knobs),
        ),
        tables=(_table(results, params),),
        figures={"dense.png": render(functools.partial(draw, results, params), width=13.0, height=6.4)},
        reading=_reading(results, params),
    )


def find(results: Sequence[Result], margin: float, params: tuple[int, int]) -> tuple[Effect | Fact, ...]:
    """The effects that decide.

    Args:
        results: for each seed.
        margin: points that the DenseNet may be worse.
        params: of the DenseNet and of the ResNet.
    """
    dense, resnet = params
    return (
        Effect(
            name=f"test error, ResNet minus DenseNet with {dense / resnet:.0%} of its parameters (no worse "
            f"by "
            f"more than {margin:g})",
            values=tuple(result.resnet - result.dense for result in results),
            unit="points",
            least=-margin,
            published="about a third of the parameters for the same error (Figure 4: curves only)",
        ),
        Fact(
            name="the DenseNet has at most a third of the ResNet's parameters (1: yes)",
            value=float(3 * dense <= resnet),
            claimed=1.0,
            note=f"{dense:,} and {resnet:,}",
        ),
        Effect(
            name="test error of the DenseNet, each layer seeing only the one right before it, minus whole",
            values=tuple(result.cut - result.dense for result in results),
            unit="points",
            least=1.0,
            published="not measured; Figure 5 shows the weights",
        ),
        Effect(
            name="weight on the block's input over weight on the layer right before, last layer of each "
            "block",
            values=tuple(
                statistics.fmean(float(m[0, -1] / m[-1, -1]) for m in result.maps) for result in results
            ),
            unit="x",
            published="Figure 5: colours only",
            decides=False,
        ),
    )


def published_facts() -> tuple[Fact, ...]:
    """The networks that the paper compares, counted by building them without storage."""
    from convatlas.models.registry import create_model

    pairs = (
        ("densenet_bc100_12_cifar", "preact_resnet1001_cifar", 0.10, "4.51 and 4.62 % on CIFAR-10"),
        ("densenet201", "resnet101_v1_5", 0.50, "22.58 % single crop; ResNet-101 21.75 % with 10 crops"),
    )
    facts: list[Fact] = []
    for dense, other, most, errors in pairs:
        with torch.device("meta"):
            counts = [sum(p.numel() for p in create_model(name).parameters()) for name in (dense, other)]
        facts.append(
            Fact(
                name=f"{dense} has at most {most:.0%} of the parameters of {other} (1: yes)",
                value=float(counts[0] <= most * counts[1]),
                claimed=1.0,
                note=f"{counts[0]:,} and {counts[1]:,}; test errors as printed: {errors}",
            )
        )
    return tuple(facts)


def connection_facts(knobs: DenseKnobs) -> tuple[Fact, ...]:
    """Direct connections of a block of L layers: each reads the block's input and all layers before it."""
    block = DenseBlock(4, knobs.depth, 2)
    found = sum(len(sources(layer, 4, 2)) for layer in block.values() if isinstance(layer, DenseLayer))
    return (
        Fact(
            name=f"connections in a dense block of {knobs.depth} layers: L (L + 1) / 2",
            value=float(found),
            claimed=knobs.depth * (knobs.depth + 1) / 2,
        ),
    )


def sources(layer: DenseLayer, first: int, growth: int) -> list[slice]:
    """The channels of each map that a layer reads: the block's input, then the layers before it.

    Args:
        layer: of a dense block.
        first: channels of the block's input.
        growth: channels that a layer makes.
    """
    starts = range(first, layer.conv1.in_channels, growth)
    return [slice(0, first), *(slice(start, start + growth) for start in starts)]


def blocks(net: nn.Module) -> list[list[tuple[DenseLayer, list[slice]]]]:
    """For each dense block its layers, each with the channels of its sources."""
    found: list[list[tuple[DenseLayer, list[slice]]]] = []
    for block in net.modules():
        if isinstance(block, DenseBlock):
            layers = [layer for layer in block.values() if isinstance(layer, DenseLayer)]
            first = layers[0].conv1.in_channels
            growth = layers[1].conv1.in_channels - first if len(layers) > 1 else 1
            found.append([(layer, sources(layer, first, growth)) for layer in layers])
    return found


def heat_maps(net: nn.Module) -> tuple[HeatMap, ...]:
    """Mean absolute weight of each layer's first convolution on each of its sources, block by block.

    Source: Huang et al. 2016, Figure 5.
    """
    maps: list[HeatMap] = []
    for layers in blocks(net):
        heat = np.full((len(layers), len(layers)), np.nan)
        for column, (layer, slices) in enumerate(layers):
            weights = layer.conv1.weight.detach().abs()
            for row, part in enumerate(slices):
                heat[row, column] = float(weights[:, part].mean())
        maps.append(heat)
    return tuple(maps)


@contextlib.contextmanager
def cut(connections: Sequence[tuple[DenseLayer, slice]]) -> Generator[None]:
    """Cuts connections, each a layer and the channels that it no longer hears; mends them afterwards."""
    weights = [layer.conv1.weight for layer, _ in connections]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, (_, part) in zip(weights, connections, strict=True):
            weight[:, part] = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, whole in zip(reversed(weights), reversed(before), strict=True):
                weight.copy_(whole)


def far(net: nn.Module) -> list[tuple[DenseLayer, slice]]:
    """All connections within blocks but those from the map right before."""
    return [(layer, part) for layers in blocks(net) for layer, parts in layers for part in parts[:-1]]


def loss_maps(ctx: StudyContext[DenseKnobs], trained: Trained) -> tuple[HeatMap, ...]:
    """Points of test error that each connection is worth: cut alone, minus whole."""
    maps: list[HeatMap] = []
    for layers in blocks(trained.net):
        heat = np.full((len(layers), len(layers)), np.nan)
        for column, (layer, parts) in enumerate(layers):
            for row, part in enumerate(parts):
                with cut([(layer, part)]):
                    heat[row, column] = _error(ctx, trained) - trained.test_error
        maps.append(heat)
    return tuple(maps)


def _error(ctx: StudyContext[DenseKnobs], trained: Trained) -> float:
    return 100.0 * (1.0 - ctx.evaluate(trained).accuracy)


def _config(knobs: DenseKnobs) -> dict[str, Any]:
    return {
        "depths": (knobs.depth,) * 3,
        "growth": knobs.growth,
        "stem_chans": 16,
        "compression": knobs.compression,
    }


def _result(ctx: StudyContext[DenseKnobs], seed: int) -> Result:
    knobs = ctx.knobs
    train = functools.partial(
        ctx.train,
        seed=seed,
        recipe="resnet_cifar",
        epochs=knobs.epochs,
        lr=knobs.lr,
        batch_size=knobs.batch_size,
    )
    dense, resnet = train(DENSE, model=_config(knobs)), train(knobs.resnet)
    losses = loss_maps(ctx, dense) if seed == ctx.seeds[0] else ()
    with cut(far(dense.net)):
        near = _error(ctx, dense)
    return Result(dense.test_error, resnet.test_error, near, heat_maps(dense.net), losses)


def _params(ctx: StudyContext[DenseKnobs]) -> tuple[int, int]:
    """Of the DenseNet and of the ResNet."""
    from convatlas.models.registry import create_model

    shape: dict[str, Any] = {"num_classes": ctx.num_classes, "in_chans": ctx.in_chans}
    nets = (
        create_model(DENSE, **shape, **_config(ctx.knobs)),
        create_model(ctx.knobs.resnet, **shape),
    )
    dense, resnet = (sum(p.numel() for p in net.parameters()) for net in nets)
    return dense, resnet


def _table(results: Sequence[Result], params: tuple[int, int]) -> Table:
    rows: list[tuple[str, ...]] = []
    names = ("DenseNet", "ResNet", "DenseNet, only the layer right before")
    for name, part, count in zip(names, ("dense", "resnet", "cut"), (*params, params[0]), strict=True):
        values = [float(getattr(result, part)) for result in results]
        seeds = ", ".join(f"{value:.2f}" for value in values)
        rows.append((name, f"{count:,}", f"{statistics.fmean(values):.2f} %", seeds))
    return Table("Test errors", ("network", "parameters", "mean", "each seed"), tuple(rows))


def _reading(results: Sequence[Result], params: tuple[int, int]) -> str:
    dense, resnet, cut = (
        statistics.fmean(getattr(result, part) for result in results) for part in ("dense", "resnet", "cut")
    )
    spread = max(float(np.nanmax(1.0 - heat / np.nanmax(heat, axis=0))) for heat in results[0].maps)
    losses = results[0].losses
    worst = max(float(np.nanmax(heat)) for heat in losses)
    far_off = statistics.fmean(float(value) for heat in losses for value in heat[0, 1:])
    return (
        f"The DenseNet errs in {dense:.1f} % of the test images with {params[0]:,} parameters, the ResNet in "
        f"{resnet:.1f} % with {params[1]:,}. When after training each layer of the DenseNet sees only the "
        f"map "
        f"right before it, the error is {cut:.1f} %. The mean absolute weight on each map, which is alike "
        f"for "
        f"all before training, differs by up to {spread:.0%} within a layer after it; what a connection is "
        f"worth "
        "shows better in the error when it alone is cut: "
        f"{worst:.1f} points for the one that matters most, {far_off:.1f} on average for those from the "
        f"block's "
        "input to layers that have others in between."
    )


def draw(results: Sequence[Result], params: tuple[int, int], figure: Figure) -> None:
    """Errors against parameters; of the first seed, weights and what each connection is worth."""
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 2.6))[0]
    errors = left.subplots()
    for index, (name, count) in enumerate(zip(("dense", "resnet"), params, strict=True)):
        values = [float(getattr(result, name)) for result in results]
        label = ("DenseNet", "ResNet")[index]
        errors.plot([count / 1e3] * len(values), values, f"C{index}o", alpha=0.6, label=label)
    top = max(max(result.dense, result.resnet) for result in results)
    errors.set(xlim=(0.0, 1.15 * max(params) / 1e3), ylim=(0.0, 1.15 * top))
    errors.set(xlabel="thousand parameters", ylabel="test error (%)", title="accuracy, a dot for each seed")
    errors.legend()
    shares = [heat / np.nanmax(heat, axis=0) for heat in results[0].maps]
    upper, lower = right.subfigures(2, 1, squeeze=False)[:, 0]
    _draw_maps(upper, shares, "mean absolute weight,\nover the layer's largest")
    _draw_maps(lower, results[0].losses, "points of test error\nwhen cut alone")


def _draw_maps(figure: SubFigure, maps: Sequence[HeatMap], label: str) -> None:
    """The blocks side by side with one scale from zero."""
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    low = min(0.0, *(float(np.nanmin(heat)) for heat in maps))
    high = max(float(np.nanmax(heat)) for heat in maps)
    image = None
    for number, (axes, heat) in enumerate(zip(panels, maps, strict=True), 1):
        image = axes.imshow(heat, vmin=low, vmax=high, cmap="viridis")
        count = heat.shape[0]
        for (row, column), value in np.ndenumerate(heat):
            if count <= MOST_WRITTEN and not np.isnan(value):
                colour = "black" if value > (low + 2.0 * high) / 3.0 else "white"
                axes.text(column, row, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(count), [str(i) for i in range(1, count + 1)])
        axes.set_yticks(range(count), ["input", *(str(i) for i in range(1, count))])
        axes.set(xlabel="layer that reads", title=f"block {number}")
    panels[0].set_ylabel("map that is read")
    if image is not None:
        figure.colorbar(image, ax=list(panels), label=label)


STUDY = Study(
    name="dense",
    source="Huang et al. 2016, Densely Connected Convolutional Networks, arXiv 1608.06993, Sections 3 to 5, "
    "Table 2 and Figures 4 and 5",
    published=(
        "CIFAR-10, test error: DenseNet-BC-100 (k = 12, 0.8M parameters) 4.51 %, pre-activation ResNet-1001 "
        "(10.2M) 4.62 %",
        "about a third of a ResNet's parameters for the same error (Figure 4: curves only)",
        "all layers spread their weights over many inputs within a block (Figure 5: colours only)",
    ),
    protocol="A small DenseNet without bottlenecks and a ResNet of at least three times its parameters are "
    "trained alike. After training, the mean absolute weight of each layer on each earlier map of its block "
    "is read off. Then all connections but those to the map right before are cut at once, and, for the first "
    "seed, each connection alone.",
    refuted_by="A DenseNet that errs clearly more than the ResNet of three times its parameters; or one that "
    "does as well when each layer sees only the map right before it.",
    presets={
        "quick": DenseKnobs(images=4000, test_images=2000, px=14, epochs=5, seeds=4),
        "standard": DenseKnobs(images=20000, epochs=6),
        "full": DenseKnobs(
            data="cifar10", epochs=164, depth=12, growth=12, resnet="resnet110_cifar", margin=0.3, seeds=5
        ),
    },
    run=run,
)
