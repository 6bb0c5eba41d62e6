"""FractalNet: drop-path, single columns that work alone, and answers at any time.

Larsson, Maire and Shakhnarovich 2016, "FractalNet: Ultra-Deep Neural Networks without Residuals".
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from convatlas.models.registry import create_model
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.trainings import Trained
from convatlas.studies.verdict import Fact

NUM_BLOCKS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FractalKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        network: name of the FractalNet in the registry.
        widths: channels of its five blocks.
        drop_path_rate: local drop-path, of the networks that have it.
        drops: dropout of the five blocks.
        settle: training images from which the statistics of normalisation are taken for each answer.
    """

    network: str = "fractalnet20_cifar"
    widths: tuple[int, ...] = (16, 16, 32, 32, 32)
    drop_path_rate: float = 0.15
    drops: tuple[float, ...] = (0.0,) * NUM_BLOCKS
    settle: int = 1000


@dataclasses.dataclass(frozen=True)
class Answers:
    """Test errors of one trained network, %.

    Attributes:
        columns: of each column alone, shallow to deep.
        whole: of all columns joined.
        as_trained: of all columns, with the statistics of normalisation from the training.
    """

    columns: tuple[float, ...]
    whole: float
    as_trained: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one answer.

    Attributes:
        depth: convolutions on the longest path.
        macs: multiply-adds for one image.
        params: that it uses.
    """

    depth: int
    macs: int
    params: int


def run(ctx: StudyContext[FractalKnobs]) -> Outcome:
    """Trains the network without and with drop-path, and tests it whole and column by column."""
    knobs = ctx.knobs
    model = {"widths": knobs.widths, "block_drop_rates": knobs.drops}
    arms = {
        name: Arm(network=knobs.network, model={**model, "drop_path_rate": rate})
        for name, rate in (("without", 0.0), ("with", knobs.drop_path_rate))
    }
    compared = compare(ctx, arms)
    results = {name: [_answers(ctx, one) for one in compared.nets(name)] for name in arms}
    costs = _costs(ctx)
    return Outcome(
        compared=compared,
        samples=samples(results),
        facts=facts(costs),
        tables=(_table(results, costs),),
    )


Results = Mapping[str, Sequence[Answers]]
"""Trained "without" and "with" drop-path: the answers of each seed."""


def samples(results: Results) -> dict[str, list[float]]:
    """The effects of each seed, by clause."""
    with_ = results["with"]
    pairs = list(zip(results["without"], with_, strict=True))
    return {
        "alone": [min(a.columns) - min(b.columns) for a, b in pairs],
        "deepest": [answer.columns[-1] - answer.whole for answer in with_],
        "early": [answer.columns[0] - answer.whole for answer in with_],
        "whole": [a.whole - b.whole for a, b in pairs],
        "statistics": [answer.as_trained - answer.whole for answer in with_],
    }


def facts(costs: Sequence[Cost]) -> tuple[Fact, ...]:
    """The depth of the columns and of the whole network, which is that of the deepest column."""
    named = [*(f"column {index}" for index in range(len(costs) - 1)), "whole network"]
    claimed = [NUM_BLOCKS * 2**index for index in range(len(costs) - 1)]
    return tuple(
        Fact(name=f"convolutions on the longest path, {name}", value=cost.depth, claimed=depth)
        for name, cost, depth in zip(named, costs, [*claimed, claimed[-1]], strict=True)
    )


def _answers(ctx: StudyContext[FractalKnobs], trained: Trained) -> Answers:
    errors = [_error(ctx, trained, part) for part in (*columns(trained.net), trained.net)]
    return Answers(columns=tuple(errors[:-1]), whole=errors[-1], as_trained=trained.test_error)


def _error(ctx: StudyContext[FractalKnobs], trained: Trained, part: nn.Module) -> float:
    """Test error, %, of the network or a column, with its own statistics of normalisation."""
    samples = ctx.source.train
    count = min(ctx.knobs.settle, len(samples))
    images = torch.stack([samples.image(index) for index in range(count)])
    ready = settled(part, trained.transform.normalise(images))
    return 100.0 * (1.0 - ctx.evaluate(trained, net=ready).accuracy)


def settled(net: nn.Module, images: Tensor, batch_size: int = 250) -> nn.Module:
    """A copy whose batch normalisations hold the statistics of these images, all else as in a test.

    While training, drop-path sends one column or another through a join; the mean of all columns that a test
    sends has a smaller variance, for which the statistics of the training are wrong.

    Args:
        net: a network.
        images: (B, C, H, W), normalised.
        batch_size: of the passes; the statistics of the batches are averaged.
    """
    copy = deepcopy(net).eval()
    for layer in copy.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
            layer.train()
    with torch.no_grad():
        for part in images.split(batch_size):
            copy(part)
    return copy.eval()


def columns(net: nn.Module) -> list[nn.Module]:
    """The columns of a FractalNet as plain networks that share its weights, shallow to deep.

    Raises:
        TypeError: the network has no columns.
    """
    from convatlas.models.fractalnet import FractalNet

    if not isinstance(net, FractalNet):
        raise TypeError(f"`network` is a {type(net).__name__}; expected a FractalNet, which has columns")
    return [net.column(index) for index in range(net.config.num_columns)]


def _costs(ctx: StudyContext[FractalKnobs]) -> list[Cost]:
    """Of each column and, last, of the whole network."""
    knobs = ctx.knobs
    net = create_model(
        knobs.network,
        num_classes=ctx.num_classes,
        in_chans=ctx.in_chans,
        widths=knobs.widths,
        block_drop_rates=knobs.drops,
    ).eval()
    px = 32 if ctx.source.image_size is None else ctx.source.image_size[1]
    costs: list[Cost] = []
    for part in (*columns(net), net):
        sheet = size(part, (ctx.in_chans, px, px))
        depths: dict[int, int] = {}
        for row in sheet.rows:
            before = max((depths.get(index, 0) for index in row.inputs), default=0)
            depths[row.index] = before + (row.kind == "conv")
        costs.append(Cost(max(depths.values()), sheet.macs, sheet.params))
    return costs


def _table(results: Results, costs: Sequence[Cost]) -> Table:
    rows: list[tuple[str, ...]] = []
    for index, cost in enumerate(costs):
        whole = index == len(costs) - 1
        cells = ["whole network" if whole else f"column {index}", str(cost.depth)]
        cells += [f"{cost.macs / 1e6:.1f} M", f"{cost.params:,}"]
        for answers in results.values():
            values = [(*answer.columns, answer.whole)[index] for answer in answers]
            cells += [f"{statistics.fmean(values):.2f} %", ", ".join(f"{value:.2f}" for value in values)]
        rows.append(tuple(cells))
    heads = ("answer", "depth", "MACs", "params", "without drop-path", "each seed", "with", "each seed")
    return Table("Test errors of each answer", heads, tuple(rows))


STUDY = Study(
    name="fractal",
    version=2,
    source="Larsson, Maire and Shakhnarovich 2016, FractalNet, arXiv 1605.07648, Sections 3.1 and 4",
    published=(
        "drop-path keeps columns from adapting to each other, so that one column alone is a strong network",
        "shallow subnetworks give a quick answer, deeper ones a more accurate one",
        "test errors of 20 layers as printed by Huang et al. (DenseNet, Table 2), without and with drop-path "
        "and dropout: CIFAR-10 10.18 and 7.33 %; CIFAR-100 with augmentation 23.30 and 23.73 %",
    ),
    clauses=(
        Clause(
            name="alone",
            says="A column works alone only if drop-path was used: it errs at least 5 points less "
            "than without.",
            measure="test error of the best column alone, trained without drop-path minus with",
            above=5.0,
            published="no table read",
        ),
        Clause(
            name="deepest",
            says="With drop-path the deepest column alone is less than 5 points worse than the "
            "whole network.",
            measure="with drop-path, test error of the deepest column alone minus the whole network",
            below=5.0,
        ),
        Clause(
            name="early",
            says="The shallowest column answers early and errs more than the whole network.",
            measure="with drop-path, test error of the shallowest column alone minus the whole network",
            above=0.0,
            published="a quick answer, then a more accurate one: no table read",
        ),
        Clause(
            name="whole",
            says="Drop-path lowers the error of the whole network.",
            measure="test error of the whole network, without drop-path minus with",
            above=0.0,
            published="with dropout: 10.18 to 7.33 on CIFAR-10",
            decides=False,
        ),
        Clause(
            name="statistics",
            says="The training's statistics of normalisation are wrong for the whole network.",
            measure="with drop-path, test error with the training's statistics minus with its own",
            above=0.0,
            decides=False,
        ),
    ),
    protocol="A narrow FractalNet of three columns is trained without and with drop-path (half of "
    "the samples "
    "global, half local), each at its own best learning rate of one grid, from the same seeds. Each "
    "column is then "
    "tested alone, as a plain network with the weights that it has in the whole one. Before each "
    "test the statistics "
    "of normalisation are taken anew, from training images without drop-path.",
    presets={
        "quick": FractalKnobs(
            images=2000,
            test_images=2000,
            px=32,
            epochs=6,
            seeds=3,
            recipe="fractalnet_cifar",
            batch_size=20,
            grow=1,
            widths=(8, 8, 16, 16, 16),
        ),
        "standard": FractalKnobs(
            images=8000, test_images=4000, px=32, epochs=15, seeds=3, recipe="fractalnet_cifar", batch_size=32
        ),
        "full": FractalKnobs(
            data="cifar10",
            epochs=400,
            recipe="fractalnet_cifar",
            schedule="recipe",
            batch_size=100,
            flip=0.5,
            pad=4,
            widths=(64, 128, 256, 512, 512),
            drops=(0.0, 0.1, 0.2, 0.3, 0.4),
            grid=(0.007, 0.02, 0.06),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 judged networks that had not learnt, at one learning rate.",
)
