"""The chart of the atlas: published accuracy against multiply-adds, parameters, activations and time.

Canziani, Paszke and Culurciello 2016, "An Analysis of Deep Neural Network Models for Practical Applications".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.clauses import Clause
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import Knobs
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

import random
import re

if TYPE_CHECKING:
    from convatlas.benchmark.measurement import Measurement

WASTEFUL = ("alexnet", "vgg16", "vgg19")
"""Those of which the paper says that they use their parameters worst."""


VGG_YEAR = 2014


MEASURED_THEN = (
    *WASTEFUL,
    "googlenet_tv",
    "inception_v3",
    "inception_v4",
    "resnet18",
    "resnet34",
    "resnet50_v1",
    "resnet101_v1",
    "resnet152_v1",
)
"""Networks that the paper measured and that have a published top-1 accuracy here. Of its others, batch-norm
AlexNet and batch-norm NIN and ENet are not in the atlas; GoogLeNet's accuracy is that of torchvision's."""


ONE_CROP = re.compile(r"\b(centre|center|single|one|1) crop\b", re.IGNORECASE)
"""How papers say that an image was shown once; ten crops are another protocol."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtlasChartKnobs(Knobs):
    """What can be turned.

    Attributes:
        networks: names or patterns; those without a published ImageNet accuracy are left out.
        most_gmacs: networks of more multiply-adds, in thousand millions, are sized and not timed.
        batch_size: images in a batch.
        seconds: to spend on timing each network, beyond the first three rounds.
        seeds: groups that the timed networks are dealt into at random and left out in turn; each gives one
            value of an effect.
        first_seed: of the dealing.
    """

    networks: tuple[str, ...] = ("*",)
    most_gmacs: float = 20.0
    batch_size: int = 1
    seconds: float = 0.0
    seeds: int = 10


@dataclasses.dataclass(frozen=True)
class Point:
    """A network on the chart.

    Attributes:
        name: in the registry.
        year: of its paper.
        top1: published, %.
        protocol: how that was measured.
        params: that a forward pass uses: side classifiers, which only training needs, are not in it.
        macs: multiply-adds for one image.
        activations: numbers that its layers write for one image.
        seconds: median of a forward pass, measured here; None where it was not timed.
    """

    name: str
    year: int
    top1: float
    protocol: str
    params: int
    macs: int
    activations: int
    seconds: float | None = None

    @property
    def density(self) -> float:
        """Points of accuracy for a million parameters."""
        return self.top1 / (self.params / 1e6)


def run(ctx: StudyContext[AtlasChartKnobs]) -> Outcome:
    """Sizes every network, times them one after the other, and relates accuracy, sizes and time."""
    from convatlas.benchmark.chart import draw_bench
    from convatlas.drawing.raster import to_png

    knobs = ctx.knobs
    points: list[Point] = []
    measured: list[Measurement] = []
    for point in chart(knobs.networks):
        if point.macs <= 1e9 * knobs.most_gmacs:
            row = measure(point.name, knobs)
            measured.append(row)
            ctx.log(f"{point.name}: {1e3 * (row.latency or math.nan):.1f} ms")
            point = dataclasses.replace(point, seconds=row.latency)
        points.append(point)
    return Outcome(
        samples=samples(points, groups=knobs.seeds, seed=knobs.first_seed),
        facts=density(points),
        tables=(_table(points),),
        figures={
            "atlas-chart-bench.png": to_png(draw_bench(measured).svg, 2.0),
            "atlas-chart-sizes.png": render(functools.partial(draw, points), width=13.0, height=4.6),
        },
        reading=_reading(points),
    )


def chart(patterns: Sequence[str]) -> list[Point]:
    """The networks that have a published ImageNet accuracy, with their exact sizes.

    Raises:
        ValueError: none of them has; or a pattern means no network.
    """
    from convatlas.benchmark.bench import find_names
    from convatlas.catalog.accuracy import find_accuracy
    from convatlas.catalog.cards import find_card

    points: list[Point] = []
    for name in find_names(patterns):
        accuracy, card = find_accuracy(name), find_card(name)
        if accuracy is None:
            continue
        with torch.device("meta"):
            sheet = size(create_model(name).eval(), card.input_size)
        points.append(
            Point(
                name=name,
                year=card.paper.year,
                top1=accuracy.top1,
                protocol=accuracy.protocol,
                params=sum(row.params for row in sheet.rows),
                macs=sheet.macs,
                activations=sheet.activations,
            )
        )
    if not points:
        raise ValueError(f"`networks`={list(patterns)}; none has a published ImageNet accuracy")
    return points


def measure(name: str, knobs: AtlasChartKnobs) -> Measurement:
    """Times one network as `convatlas bench` does, without keeping it."""
    from convatlas.benchmark.bench import bench

    return bench(name, batch_sizes=(knobs.batch_size,), seconds=knobs.seconds, remember=False)[0]


Statistic = Callable[[Sequence[Point]], float]


Value = Callable[[Point], float]


SIZES: dict[str, Value] = {
    "multiply-adds": lambda point: math.log(point.macs),
    "parameters": lambda point: math.log(point.params),
    "activations": lambda point: math.log(point.activations),
}


def _seconds(point: Point) -> float:
    return point.seconds or math.nan


def _one_over_seconds(point: Point) -> float:
    return 1.0 / _seconds(point)


def _log_seconds(point: Point) -> float:
    return math.log(_seconds(point))


def _top1(point: Point) -> float:
    return point.top1


def explains(points: Sequence[Point], by: Value, what: Value) -> float:
    """R^2 of the straight line that gives `what` from `by`."""
    return statistics.correlation([by(point) for point in points], [what(point) for point in points]) ** 2


def samples(points: Sequence[Point], *, groups: int, seed: int) -> dict[str, tuple[float, ...]]:
    """Pseudo-values of each clause: time explained by each size, and accuracy by time.

    Accuracies are compared only among networks whose papers showed an image once.

    Raises:
        ValueError: if there are too few timed networks for so many groups.
    """
    timed = [point for point in points if point.seconds is not None]
    alike = [point for point in timed if ONE_CROP.search(point.protocol)]
    values = jackknife(timed, groups, seed)

    def time_by(name: str) -> Statistic:
        return lambda some: explains(some, SIZES[name], _log_seconds)

    def more_than(other: str) -> Statistic:
        return lambda some: time_by("multiply-adds")(some) - time_by(other)(some)

    def curved(some: Sequence[Point]) -> float:
        return explains(some, _one_over_seconds, _top1) - explains(some, _seconds, _top1)

    return {
        "time": values(time_by("multiply-adds")),
        "parameters": values(more_than("parameters")),
        "activations": values(more_than("activations")),
        "hyperbola": jackknife(alike, groups, seed)(curved),
    }


def density(points: Sequence[Point]) -> tuple[Fact, ...]:
    """Whether those that are said to waste parameters are last; nothing where one of the set is not here."""
    then = sorted((p for p in points if p.name in MEASURED_THEN), key=lambda point: point.density)
    if len(then) < len(MEASURED_THEN):
        return ()
    lowest = {point.name for point in then[: len(WASTEFUL)]}
    next_, last = then[len(WASTEFUL)], then[len(WASTEFUL) - 1]
    name = (
        f"how many of {', '.join(WASTEFUL)} are the {len(WASTEFUL)} of least accuracy for each parameter, of "
        f"{len(then)} networks that the paper measured"
    )
    times = next_.density / last.density
    note = f"the next has {times:.1f} times as much; protocols of accuracy differ by a few percent"
    value = float(len(lowest & set(WASTEFUL)))
    return (Fact(name=name, value=value, claimed=float(len(WASTEFUL)), note=note),)


def jackknife(points: Sequence[Point], groups: int, seed: int) -> Callable[[Statistic], tuple[float, ...]]:
    """Tukey's pseudo-values of a statistic: an interval of them speaks of networks, not of a clock's noise.

    The networks are dealt at random into n groups. With all of them the statistic is S, without group i it
    is S_i; its pseudo-value is n S - (n - 1) S_i. For a mean these are the means of the groups.

    Args:
        points: the networks.
        groups: n.
        seed: of the dealing.

    Returns:
        What gives the n pseudo-values of a statistic; of one group, the statistic itself.

    Raises:
        ValueError: there are fewer than two networks for each group.

    Source: Tukey 1958, "Bias and confidence in not-quite large samples".
    """
    dealt = deal_out(points, groups, seed)
    rest = [[point for other in dealt if other is not group for point in other] for group in dealt]

    def values(statistic: Statistic) -> tuple[float, ...]:
        whole = statistic(points)
        if groups == 1:
            return (whole,)
        return tuple(groups * whole - (groups - 1) * statistic(some) for some in rest)

    return values


def deal_out(points: Sequence[Point], groups: int, seed: int) -> list[list[Point]]:
    """Deals networks into groups at random, each once.

    Raises:
        ValueError: there are fewer than two networks for each group.
    """
    if len(points) < 2 * groups:
        raise ValueError(f"`seeds`={groups}; {len(points)} timed networks make at most {len(points) // 2}")
    shuffled = random.Random(seed).sample(list(points), len(points))
    return [shuffled[i::groups] for i in range(groups)]


def _table(points: Sequence[Point]) -> Table:
    rows = tuple(
        (
            point.name,
            str(point.year),
            f"{point.top1:.1f}",
            f"{point.macs / 1e6:,.0f}",
            f"{point.params / 1e6:,.1f}",
            f"{point.activations / 1e6:,.1f}",
            "-" if point.seconds is None else f"{1e3 * point.seconds:,.0f}",
            f"{point.density:.2f}",
            point.protocol,
        )
        for point in sorted(points, key=lambda point: -point.density)
    )
    heads = (
        "network",
        "year",
        "top-1, %",
        "M MACs",
        "M params",
        "M activations",
        "ms here",
        "% for a M params",
        "how the accuracy was measured",
    )
    return Table("Each network, most accuracy for a parameter first", heads, rows)


def _reading(points: Sequence[Point]) -> str:
    timed = [point for point in points if point.seconds is not None]
    shares = ", ".join(f"{name} {explains(timed, value, _log_seconds):.2f}" for name, value in SIZES.items())
    shapes = {"a - b / t": _one_over_seconds, "a + b t": _seconds, "a + b log t": _log_seconds}
    fits = ", ".join(f"{shape} {explains(timed, value, _top1):.2f}" for shape, value in shapes.items())
    low, *_, high = sorted(timed, key=lambda point: point.macs / _seconds(point))
    text = (
        f"R^2 of log time over all {len(timed)} timed networks: {shares}. A multiply-add is not always as "
        f"dear: {high.name} did {high.macs / _seconds(high) / 1e9:.0f} thousand million a second, {low.name} "
        f"{low.macs / _seconds(low) / 1e9:.1f}. R^2 of accuracy by time t: {fits}; few networks "
        "at the ends of the range weigh much in these, so their intervals are wide."
    )
    alexnet = next((point for point in points if point.name == "alexnet"), None)
    if alexnet is not None:
        later = [p.name for p in points if p.density < alexnet.density and p.year > VGG_YEAR]
        names = ", ".join(later) or "none"
        text += f" Networks after VGG with less accuracy for a parameter than AlexNet: {names}."
    return text + " Papers measured accuracy by protocols of their own; the table says which."


def draw(points: Sequence[Point], figure: Figure) -> None:
    """Time against multiply-adds and against parameters, and accuracy for each parameter."""
    macs, params, density = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    timed = [point for point in points if point.seconds is not None]
    for axes, name, value in ((macs, "multiply-adds", "macs"), (params, "parameters", "params")):
        axes.scatter(
            [getattr(p, value) / 1e6 for p in timed], [1e3 * _seconds(p) for p in timed], s=14, alpha=0.7
        )
        axes.set(xscale="log", yscale="log", xlabel=f"{name}, millions", ylabel="measured here, ms")
        axes.set_title(f"time and {name}: R$^2$ = {explains(timed, SIZES[name], _log_seconds):.2f}")
    _line(macs, timed)
    shown = sorted((p for p in points if p.name in MEASURED_THEN), key=lambda point: point.density)
    colours = ["C3" if point.name in WASTEFUL else "C0" for point in shown]
    density.barh([point.name for point in shown], [point.density for point in shown], color=colours)
    density.set(xlabel="points of top-1 accuracy for a million parameters")
    density.set_title("accuracy for each parameter, 2012 to 2016")


def _line(axes: Axes, points: Sequence[Point]) -> None:
    """The least-squares line of log time on log multiply-adds."""
    slope, height = statistics.linear_regression(
        [math.log(p.macs / 1e6) for p in points], [math.log(1e3 * _seconds(p)) for p in points]
    )
    ends = [min(p.macs for p in points) / 1e6, max(p.macs for p in points) / 1e6]
    label = f"time as MACs to the power {slope:.2f}"
    axes.plot(ends, [math.exp(height) * end**slope for end in ends], "k--", lw=1.0, label=label)
    axes.legend()


STUDY = Study(
    name="atlas-chart",
    version=2,
    source="Canziani, Paszke and Culurciello 2016, An Analysis of Deep Neural Network Models for Practical "
    "Applications, arXiv 1605.07678",
    published=(
        "the number of operations is an effective estimate of the inference time (plots only)",
        "accuracy and inference time are in a hyperbolic relationship (plots only)",
        "VGG and AlexNet use their parameters worst, ENet and GoogLeNet best (plots only)",
    ),
    clauses=(
        Clause(
            name="time",
            says="Multiply-adds explain more than half of the differences in log time.",
            measure="share of the differences in log time that log multiply-adds explain (R^2)",
            unit="of 1",
            above=0.5,
            published="plots only: linear",
        ),
        Clause(
            name="parameters",
            says="They explain more than parameters do.",
            measure="R^2 of log time, multiply-adds minus parameters",
            unit="of 1",
            above=0.0,
        ),
        Clause(
            name="activations",
            says="They explain more than activations do.",
            measure="R^2 of log time, multiply-adds minus activations",
            unit="of 1",
            above=0.0,
            decides=False,
        ),
        Clause(
            name="hyperbola",
            says="Accuracy follows a hyperbola in time better than a straight line.",
            measure="R^2 of accuracy by one crop: hyperbola in time (a - b / t) minus straight line "
            "(a + b t)",
            unit="of 1",
            above=0.0,
            published="plots only: hyperbolic",
        ),
    ),
    protocol="Every network of the atlas with a published ImageNet accuracy is sized exactly at the size of "
    "its paper and timed here, one at a time, in eager mode with fresh weights, on which time does not "
    "depend. Accuracies are compared among networks whose papers showed each image once. The intervals are "
    "jackknifed over the networks: they are dealt at random into groups, which are left out in "
    "turn, so that they "
    "speak of networks and not of a clock's noise. Nothing is trained.",
    presets={
        "quick": AtlasChartKnobs(),
        "standard": AtlasChartKnobs(most_gmacs=40.0, seconds=5.0),
        "full": AtlasChartKnobs(most_gmacs=1e6, batch_size=16, seconds=20.0),
    },
    run=run,
    changes="Version 1 compared accuracies by ten crops with those by one.",
)
