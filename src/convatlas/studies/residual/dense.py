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

from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.trainings import Trained
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

from convatlas.blocks.dense import DenseBlock, DenseLayer

DENSE = "densenet40_12_cifar"
"""What is made small: without bottlenecks, so that a filter's weights tell which map it reads (Figure 5)."""


MARGIN = 1.0
"""Points of test error by which the DenseNet may be worse."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: layers of each of the three dense blocks.
        growth: k, channels that a layer makes.
        compression: share of the channels that a transition keeps.
        resnet: the network that it is compared with, by its name in the registry.
    """

    depth: int = 5
    growth: int = 8
    compression: float = 0.5
    resnet: str = "resnet20_cifar"


MOST_WRITTEN = 8
"""Layers of a block up to which the figure writes each number."""


HeatMap = NDArray[np.float64]
"""A number by layer of a block (columns) and source (rows, the block's input first).

NaN where the source comes after the layer."""


def run(ctx: StudyContext[DenseKnobs]) -> Outcome:
    """Trains a DenseNet and a ResNet, and looks into the DenseNet."""
    arms = {"dense": Arm(network=DENSE, model=_config(ctx.knobs)), "residual": Arm(network=ctx.knobs.resnet)}
    compared = compare(ctx, arms)
    trained = compared.nets("dense")
    rises = {"far": [cut_error(ctx, one, far(one.net)) - one.test_error for one in trained]}
    rises["near"] = [cut_error(ctx, one, near(one.net)) - one.test_error for one in trained]
    weights, losses = heat_maps(trained[0].net), loss_maps(ctx, trained[0])
    return Outcome(
        compared=compared,
        samples={
            "far": [a - b for a, b in zip(rises["far"], rises["near"], strict=True)],
            "cut": rises["far"],
        },
        facts=(third(ctx), *published_facts(), *connection_facts(ctx.knobs)),
        figures={"dense-maps.png": render(functools.partial(draw, weights, losses), width=11.0, height=6.4)},
        reading=f"Cutting all connections but those to the map right before raises the DenseNet's error by "
        f"{statistics.fmean(rises['far']):.1f} points; cutting those to the map right before alone, "
        f"as a control, by "
        f"{statistics.fmean(rises['near']):.1f}.",
    )


def third(ctx: StudyContext[DenseKnobs]) -> Fact:
    """Whether the DenseNet that is trained has at most a third of the ResNet's parameters."""
    dense, resnet = _params(ctx)
    return Fact(
        name="the DenseNet has at most a third of the ResNet's parameters (1: yes)",
        value=float(3 * dense <= resnet),
        claimed=1.0,
        note=f"{dense:,} and {resnet:,}",
    )


def published_facts() -> tuple[Fact, ...]:
    """The networks that the paper compares, counted by building them without storage."""
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


def near(net: nn.Module) -> list[tuple[DenseLayer, slice]]:
    """The connections within blocks to the map right before, of layers that have others."""
    return [(layer, parts[-1]) for layers in blocks(net) for layer, parts in layers if len(parts) > 1]


def cut_error(
    ctx: StudyContext[DenseKnobs], trained: Trained, connections: Sequence[tuple[DenseLayer, slice]]
) -> float:
    """Test error with these connections cut, in %."""
    with cut(connections):
        return ctx.error(trained)


def loss_maps(ctx: StudyContext[DenseKnobs], trained: Trained) -> tuple[HeatMap, ...]:
    """Points of test error that each connection is worth: cut alone, minus whole."""
    maps: list[HeatMap] = []
    for layers in blocks(trained.net):
        heat = np.full((len(layers), len(layers)), np.nan)
        for column, (layer, parts) in enumerate(layers):
            for row, part in enumerate(parts):
                heat[row, column] = cut_error(ctx, trained, [(layer, part)]) - trained.test_error
        maps.append(heat)
    return tuple(maps)


def _config(knobs: DenseKnobs) -> dict[str, Any]:
    return {
        "depths": (knobs.depth,) * 3,
        "growth": knobs.growth,
        "stem_chans": 16,
        "compression": knobs.compression,
    }


def _params(ctx: StudyContext[DenseKnobs]) -> tuple[int, int]:
    """Of the DenseNet and of the ResNet."""
    shape: dict[str, Any] = {"num_classes": ctx.num_classes, "in_chans": ctx.in_chans}
    nets = (
        create_model(DENSE, **shape, **_config(ctx.knobs)),
        create_model(ctx.knobs.resnet, **shape),
    )
    dense, resnet = (sum(p.numel() for p in net.parameters()) for net in nets)
    return dense, resnet


def draw(weights: Sequence[HeatMap], losses: Sequence[HeatMap], figure: Figure) -> None:
    """Of the first seed: weights, and what each connection is worth."""
    upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
    shares = [heat / np.nanmax(heat, axis=0) for heat in weights]
    _draw_maps(upper, shares, "mean absolute weight,\nover the layer's largest")
    _draw_maps(lower, losses, "points of test error\nwhen cut alone")


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
    version=2,
    source="Huang et al. 2016, arXiv 1608.06993, Sections 4 and 5, Figures 4 and 5",
    published=(
        "CIFAR-10, test error: DenseNet-BC-100 (k = 12, 0.8M parameters) 4.51 %, pre-activation ResNet-1001 "
        "(10.2M) 4.62 %",
        "about a third of a ResNet's parameters for the same error (Figure 4: curves only)",
        "all layers spread their weights over many inputs within a block (Figure 5: colours only)",
    ),
    clauses=(
        Clause(
            name="error",
            says=f"A DenseNet errs less than {MARGIN:g} point more than a ResNet of thrice its parameters.",
            measure="test error, DenseNet minus ResNet of at least thrice its parameters",
            below=MARGIN,
            arms=difference("dense", "residual"),
            published="about the same error (Figure 4: curves only)",
        ),
        Clause(
            name="far",
            says="Maps of far before matter more together than the map right before.",
            measure="rise of the error, all connections but the nearest cut minus the nearest alone cut",
            above=0.0,
            published="not measured; Figure 5 shows the weights",
        ),
        Clause(
            name="cut",
            says="Cutting all connections but the nearest raises the error.",
            measure="rise of the error, all connections but the nearest cut",
            above=0.0,
            decides=False,
        ),
    ),
    protocol="A small DenseNet without bottlenecks and a ResNet of at least three times its "
    "parameters are trained "
    "from the same seeds, each at its own best learning rate of one grid; first weights by each paper. After "
    "training, all connections but those to the map right before are cut at once, and as a control "
    "those to the map "
    "right before; for the first seed, each connection alone. Any trained network breaks when an "
    "input is cut: the "
    "claim needs the far maps to matter more than the near one.",
    presets={
        "quick": DenseKnobs(
            images=2000, test_images=2000, px=14, epochs=5, seeds=3, batch_size=16, warmup=60
        ),
        "standard": DenseKnobs(images=10000, px=14, epochs=6, warmup=300),
        "full": DenseKnobs(
            data="cifar10",
            epochs=164,
            schedule="recipe",
            depth=12,
            growth=12,
            resnet="resnet110_cifar",
            batch_size=64,
            flip=0.5,
            pad=4,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 had no control for the cut, and one learning rate for both.",
)
