"""FractalNet: drop-path, single columns that work alone, and answers at any time.

Larsson, Maire and Shakhnarovich 2016, "FractalNet: Ultra-Deep Neural Networks without Residuals".
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext, Trained

NUM_BLOCKS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FractalKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        network: name of the FractalNet in the registry.
        widths: channels of its five blocks.
        drop_path_rate: local drop-path, of the networks that have it.
        drops: dropout of the five blocks.
        lr: learning rate.
        settle: training images from which the statistics of normalisation are taken for each answer.
    """

    network: str = "fractalnet20_cifar"
    widths: tuple[int, ...] = (16, 16, 32, 32, 32)
    drop_path_rate: float = 0.15
    drops: tuple[float, ...] = (0.0,) * NUM_BLOCKS
    lr: float = 0.05
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


Results = dict[bool, list[Answers]]
"""Without and with drop-path: the answers for each seed."""


def run(ctx: StudyContext[FractalKnobs]) -> Outcome:
    """Trains the network without and with drop-path, and tests it whole and column by column."""
    results = {drop: [_answers(ctx, drop, seed) for seed in ctx.seeds] for drop in (False, True)}
    costs = _costs(ctx)
    return Outcome(
        findings=(*find(results), *facts(costs)),
        tables=(_table(results, costs),),
        figures={"fractal.png": render(functools.partial(draw, results, costs), height=4.2)},
        reading=_reading(results, costs),
    )


def find(results: Results) -> tuple[Effect, ...]:
    """The effects; those that decide would be positive if the claim were true."""

    def paired(values: Sequence[tuple[float, float]]) -> tuple[float, ...]:
        return tuple(a - b for a, b in values)

    without, with_ = results[False], results[True]
    alone = zip(without, with_, strict=True)
    last = len(with_[0].columns) - 1
    return (
        Effect(
            name="test error of the best column alone, trained without drop-path minus with",
            values=tuple(min(a.columns) - min(b.columns) for a, b in alone),
            unit="points",
            least=5.0,
            published="no table read",
        ),
        Effect(
            name="with drop-path, test error of the whole network minus the deepest column alone "
            "(no worse by more than 5)",
            values=paired([(answer.whole, answer.columns[last]) for answer in with_]),
            unit="points",
            least=-5.0,
        ),
        Effect(
            name="with drop-path, test error of the shallowest column minus the whole network",
            values=paired([(answer.columns[0], answer.whole) for answer in with_]),
            unit="points",
            published="a quick answer, then a more accurate one: no table read",
        ),
        Effect(
            name="with drop-path, test error of the shallowest column minus the deepest (no claim here)",
            values=paired([(answer.columns[0], answer.columns[last]) for answer in with_]),
            unit="points",
            decides=False,
        ),
        Effect(
            name="test error of the whole network, without drop-path minus with (no claim here)",
            values=paired([(a.whole, b.whole) for a, b in zip(without, with_, strict=True)]),
            unit="points",
            published="with dropout: 10.18 to 7.33 on CIFAR-10, 23.30 to 23.73 on CIFAR-100 with "
            "augmentation",
            decides=False,
        ),
        Effect(
            name="with drop-path, test error of the whole network with the training's statistics of "
            "normalisation minus with its own (no claim)",
            values=paired([(answer.as_trained, answer.whole) for answer in with_]),
            unit="points",
            decides=False,
        ),
    )


def facts(costs: Sequence[Cost]) -> tuple[Fact, ...]:
    """The depth of the columns and of the whole network, which is that of the deepest column."""
    named = [*(f"column {index}" for index in range(len(costs) - 1)), "whole network"]
    claimed = [NUM_BLOCKS * 2**index for index in range(len(costs) - 1)]
    return tuple(
        Fact(name=f"convolutions on the longest path, {name}", value=cost.depth, claimed=depth)
        for name, cost, depth in zip(named, costs, [*claimed, claimed[-1]], strict=True)
    )


def _answers(ctx: StudyContext[FractalKnobs], drop: bool, seed: int) -> Answers:
    knobs = ctx.knobs
    trained = ctx.train(
        knobs.network,
        seed=seed,
        model={
            "widths": knobs.widths,
            "block_drop_rates": knobs.drops,
            "drop_path_rate": knobs.drop_path_rate if drop else 0.0,
        },
        recipe="fractalnet_cifar",
        epochs=knobs.epochs,
        lr=knobs.lr,
    )
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
    from convatlas.models.registry import create_model
    from convatlas.sizing.run import size

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
        for drop in (False, True):
            values = _errors(results[drop], index)
            cells += [f"{statistics.fmean(values):.2f} %", ", ".join(f"{value:.2f}" for value in values)]
        rows.append(tuple(cells))
    heads = ("answer", "depth", "MACs", "params", "without drop-path", "each seed", "with", "each seed")
    return Table("Test errors of each answer", heads, tuple(rows))


def _errors(answers: Sequence[Answers], index: int) -> list[float]:
    """For each seed, of a column or, behind the last, of the whole network."""
    return [(*answer.columns, answer.whole)[index] for answer in answers]


def _reading(results: Results, costs: Sequence[Cost]) -> str:
    def mean(drop: bool, index: int) -> str:
        return f"{statistics.fmean(_errors(results[drop], index)):.1f} %"

    whole = len(costs) - 1
    return (
        f"Trained with drop-path, the columns alone err in {', '.join(mean(True, i) for i in range(whole))} "
        f"of "
        f"the test images, shallow to deep, and all together in {mean(True, whole)}; trained without it, in "
        f"{', '.join(mean(False, i) for i in range(whole))} and {mean(False, whole)}. The shallowest column "
        f"needs "
        f"{costs[0].macs / costs[whole].macs:.0%} of the whole network's multiply-adds: an answer can be had "
        "early."
    )


def draw(results: Results, costs: Sequence[Cost], figure: Figure) -> None:
    """Error of each answer, and error against the multiply-adds that it takes."""
    bars, anytime = figure.subplots(1, 2)
    names = [*(f"column {index}\n({cost.depth} layers)" for index, cost in enumerate(costs[:-1])), "whole"]
    for drop, answers in results.items():
        label = f"trained {'with' if drop else 'without'} drop-path"
        colour = "C0" if drop else "C1"
        for index in range(len(costs)):
            values = _errors(answers, index)
            place = index + (0.12 if drop else -0.12)
            bars.scatter([place] * len(values), values, color=colour, label=label if index == 0 else None)
            bars.hlines(statistics.fmean(values), place - 0.1, place + 0.1, color=colour)
    bars.set_xticks(range(len(names)), names)
    bars.set(ylabel="test error (%)", ylim=(0.0, None), title="each column alone and all joined")
    bars.legend()
    macs = [cost.macs / 1e6 for cost in costs]
    means = [statistics.fmean(_errors(results[True], index)) for index in range(len(costs))]
    anytime.plot(macs, means, "C0o-")
    for name, x, y in zip(names, macs, means, strict=True):
        anytime.annotate(name.partition("\n")[0], (x, y), xytext=(4, 6), textcoords="offset points")
    anytime.set(xlabel="multiply-adds for one image, millions", ylabel="test error (%), mean over seeds")
    anytime.set_title("anytime answers of the network with drop-path")
    anytime.margins(x=0.18, y=0.15)


STUDY = Study(
    name="fractal",
    source="Larsson, Maire and Shakhnarovich 2016, FractalNet, arXiv 1605.07648, Sections 3.1 and 4",
    published=(
        "drop-path keeps columns from adapting to each other, so that one column alone is a strong network",
        "shallow subnetworks give a quick answer, deeper ones a more accurate one",
        "test errors of 20 layers as printed by Huang et al. (DenseNet, Table 2), without and with drop-path "
        "and dropout: CIFAR-10 10.18 and 7.33 %; CIFAR-100 with augmentation 23.30 and 23.73 %",
    ),
    protocol="A narrow FractalNet of three columns is trained without and with drop-path (half of the "
    "samples global, half local), everything else alike. Each column is then tested alone, as a plain "
    "network "
    "with the weights that it has in the whole one. Before each test the statistics of normalisation are "
    "taken "
    "anew, from training images without drop-path.",
    refuted_by="Columns that work as well alone when trained without drop-path; a deepest column that is "
    "much "
    "worse than the whole network; or a shallowest column as good as the whole network.",
    presets={
        "quick": FractalKnobs(images=3000, test_images=2000, px=32, epochs=5),
        "standard": FractalKnobs(images=12000, px=32, epochs=10, widths=(32, 32, 64, 64, 64)),
        "full": FractalKnobs(
            data="cifar10",
            epochs=400,
            widths=(64, 128, 256, 512, 512),
            drops=(0.0, 0.1, 0.2, 0.3, 0.4),
            lr=0.02,
            seeds=5,
        ),
    },
    run=run,
)
