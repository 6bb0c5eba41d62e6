"""Identity mappings: normalisation and ReLU before the convolutions, against after the addition, at depth.

He, Zhang, Ren and Sun 2016, "Identity Mappings in Deep Residual Networks", Sections 2 and 4, Tables 2 and 3.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import TYPE_CHECKING, Any

from convatlas.models.network import check_count
from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext

UNITS = {"post": "resnet20_cifar", "pre": "preact_resnet110_cifar"}
"""By place of the activation: a network whose depth is then changed. Both have option A's shortcuts."""

PUBLISHED = {110: (6.61, 6.37), 164: (5.93, 5.46), 1001: (7.61, 4.92)}
"""Test error on CIFAR-10 in %, original and pre-activation unit, by layers: Table 2. The deeper two have
bottlenecks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depths: layers of the networks, each 6n + 2, rising.
        recipe: how all are trained.
        batch_size: images of a step.
        lr: largest learning rate.
        pad: px by which augmentation shifts at most; the paper's 4 are for images of 32 px.
    """

    depths: tuple[int, ...] = (20, 56, 110)
    recipe: str = "preact_resnet_cifar"
    batch_size: int = 128
    lr: float = 0.1
    pad: int = 4

    def __post_init__(self) -> None:
        """Checks the depths.

        Raises:
            ValueError: they are fewer than two or do not rise, or a value is out of its range.
        """
        super().__post_init__()
        check_count("batch_size", self.batch_size, least=1)
        check_count("pad", self.pad, least=1)
        if len(self.depths) < 2 or list(self.depths) != sorted(set(self.depths)):
            raise ValueError(f"`depths`={list(self.depths)}; expected two or more that rise")
        for depth in self.depths:
            if depth < 8 or (depth - 2) % 6:
                near = max(8, depth - (depth - 2) % 6)
                raise ValueError(f"`depths`: {depth}; expected 6n + 2 layers, near {near}")


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one trained network.

    Attributes:
        error: wrong test images, in %.
        curve: mean training loss of each epoch.
    """

    error: float
    curve: tuple[float, ...]


Results = dict[tuple[str, int], list[Result]]
"""By place of the activation and depth: one for each seed."""


def run(ctx: StudyContext[IdentityKnobs]) -> Outcome:
    """Trains both units at each depth for each seed."""
    depths = ctx.knobs.depths
    results: Results = {
        (unit, depth): [_train(ctx, unit, depth, seed) for seed in ctx.seeds]
        for depth in depths
        for unit in UNITS
    }
    return Outcome(
        findings=(*(count_parameters(depth) for depth in depths), *find(results, depths)),
        tables=(_table(results),),
        figures={"identity.png": render(functools.partial(draw, results))},
        reading=_reading(results, depths),
    )


def count_parameters(depth: int) -> Fact:
    """Whether both units have as many parameters, on CIFAR's images."""
    counts = {
        unit: sum(parameter.numel() for parameter in create_model(name, **_changes(depth)).parameters())
        for unit, name in UNITS.items()
    }
    return Fact(
        name=f"{depth} layers on CIFAR: parameters with pre-activation, as with post-activation",
        value=counts["pre"],
        claimed=counts["post"],
    )


def find(results: Results, depths: tuple[int, ...]) -> tuple[Effect, ...]:
    """The effects; those at the deepest, and their growth, decide."""

    def gaps(depth: int, part: str) -> tuple[float, ...]:
        pairs = zip(results["post", depth], results["pre", depth], strict=True)
        if part == "loss":
            return tuple(post.curve[-1] - pre.curve[-1] for post, pre in pairs)
        return tuple(post.error - pre.error for post, pre in pairs)

    first, last = depths[0], depths[-1]
    effects = [
        Effect(
            name=f"test error of {depth} layers, post minus pre",
            values=gaps(depth, "error"),
            unit="points",
            published=_published(depth),
            decides=depth == last,
        )
        for depth in depths
    ]
    growth = zip(gaps(last, "error"), gaps(first, "error"), strict=True)
    return (
        *effects,
        Effect(
            name=f"growth of this difference from {first} to {last} layers",
            values=tuple(deep - shallow for deep, shallow in growth),
            unit="points",
            published="0.24 at 110 layers, 2.69 at 1001",
        ),
        Effect(
            name=f"training loss of {last} layers in the last epoch, post minus pre",
            values=gaps(last, "loss"),
            unit="nats",
            published="curves only (Figures 1 and 6)",
        ),
    )


def _published(depth: int) -> str:
    if depth not in PUBLISHED:
        return ""
    post, pre = PUBLISHED[depth]
    return f"{post - pre:.2f} ({post} to {pre} %, CIFAR-10)"


def _changes(depth: int) -> dict[str, Any]:
    return {"blocks_per_stage": (depth - 2) // 6, "shortcut": "A"}


def _train(ctx: StudyContext[IdentityKnobs], unit: str, depth: int, seed: int) -> Result:
    knobs = ctx.knobs
    trained = ctx.train(
        UNITS[unit],
        seed=seed,
        model=_changes(depth),
        recipe=knobs.recipe,
        epochs=knobs.epochs,
        batch_size=knobs.batch_size,
        lr=knobs.lr,
        augment={"flip": 0.5, "pad_crop": {"pad": knobs.pad}},
    )
    curve = tuple(line["loss"] for line in trained.run.metrics() if "test_accuracy" in line)
    return Result(trained.test_error, curve)


def _table(results: Results) -> Table:
    rows = [
        (
            str(depth),
            unit,
            f"{statistics.fmean(result.error for result in found):.2f} %",
            ", ".join(f"{result.error:.2f}" for result in found),
            f"{statistics.fmean(result.curve[-1] for result in found):.3f}",
        )
        for (unit, depth), found in results.items()
    ]
    heads = ("layers", "activation", "test error", "each seed", "training loss, last epoch")
    return Table("Each network", heads, tuple(rows))


def _reading(results: Results, depths: tuple[int, ...]) -> str:
    def path(unit: str) -> str:
        means = [statistics.fmean(result.error for result in results[unit, depth]) for depth in depths]
        return ", ".join(f"{mean:.1f}" for mean in means)

    layers = ", ".join(map(str, depths))
    return (
        f"With {layers} layers, the test error was {path('post')} % with the ReLU after the addition and "
        f"{path('pre')} % with activations before the convolutions. Without a ReLU on it, the path of the "
        "additions is an identity within each stage, in both directions. Training is short here: what shows "
        "is how fast a deep network begins to learn, where the paper compares networks that have learnt."
    )


def draw(results: Results, figure: Figure) -> None:
    """Test error by depth with every seed as a dot, and the training loss of the deepest."""
    errors, curves = figure.subplots(1, 2)
    depths = sorted({depth for _, depth in results})
    names = {"post": "after the addition (2015)", "pre": "before the convolutions (2016)"}
    for index, (unit, name) in enumerate(names.items()):
        colour = f"C{1 - index}"
        shown = [[result.error for result in results[unit, depth]] for depth in depths]
        errors.plot(depths, list(map(statistics.fmean, shown)), color=colour, label=name)
        for depth, values in zip(depths, shown, strict=True):
            errors.scatter([depth] * len(values), values, color=colour, s=16)
        for result in results[unit, depths[-1]]:
            curves.plot(range(1, len(result.curve) + 1), result.curve, "o-", color=colour, ms=4)
    errors.set(xlabel="layers", ylabel="test error (%)", title="activation after or before (dots: seeds)")
    errors.set_xticks(depths)
    errors.legend()
    epochs = len(results["pre", depths[-1]][0].curve)
    curves.set_xticks(range(1, epochs + 1, max(1, epochs // 8)))
    curves.set(xlabel="epoch", ylabel="training loss", title=f"{depths[-1]} layers, each seed")


STUDY = Study(
    name="identity",
    source="He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027, Tables 2 and 3",
    published=tuple(
        f"CIFAR-10, {depth} layers, test error: original unit {post} %, pre-activation {pre} %"
        for depth, (post, pre) in PUBLISHED.items()
    ),
    protocol="Residual networks with post-activation (2015) and pre-activation units, of equal depth and as "
    "many parameters, are trained alike from the same seeds, at growing depth.",
    refuted_by="A deepest network that tests, or learns, no better with pre-activation; or a difference that "
    "does not grow with depth.",
    presets={
        "quick": IdentityKnobs(images=2000, test_images=2000, px=8, epochs=2, batch_size=32, lr=0.05, pad=1),
        "standard": IdentityKnobs(images=20000, px=14, epochs=2, batch_size=64, pad=2),
        "full": IdentityKnobs(data="cifar10", epochs=164, depths=(20, 56, 110, 164, 326), seeds=5),
    },
    run=run,
)
