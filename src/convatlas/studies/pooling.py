"""Pooling in LeNet-5: mean or maximum, and the activation before it or behind it.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", Section
II.B; Scherer, Müller and Behnke 2010, "Evaluation of Pooling Operations in Convolutional Architectures".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convatlas.models.registry import create_model
from convatlas.plots.style import render
from convatlas.sizing.run import size
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect, Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext

KINDS: dict[str, type[nn.Module]] = {"mean": nn.AvgPool2d, "max": nn.MaxPool2d}
ORDERS = ("before", "behind")

NO_AFFINE: Mapping[str, Any] = {"augment.affine": "none"}
"""The recipe's random moves would blur the comparison."""

INPUT = (1, 32, 32)
"""C, H and W that LeNet-5 was made for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolingKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        px: height and width that images are brought to, at least 32.
        lr: largest learning rate.
        batch_size: images of a step.
    """

    px: int = 32
    lr: float = 0.05
    batch_size: int = 32


def make_lenet(kind: str, order: str, *, in_chans: int = 1, num_classes: int = 10) -> nn.Module:
    """LeNet-5 as it is taught, with other poolings.

    Args:
        kind: "mean" or "max".
        order: whether the activation comes "before" the pooling or "behind" it.
        in_chans: channels of the images.
        num_classes: K.
    """
    net = create_model("lenet5", in_chans=in_chans, num_classes=num_classes)
    for stage in net.get_submodule("stages").children():
        layer = stage.get_submodule("0")
        conv, act, pool = layer.get_submodule("conv"), layer.get_submodule("act"), KINDS[kind](2)
        parts = (conv, act, pool) if order == "before" else (conv, pool, act)
        for name in ("0", "1"):
            delattr(stage, name)
        for i, part in enumerate(parts):
            stage.add_module(str(i), part)
    net.name = ""  # It is no longer the network of the registry.
    return net


Errors = dict[tuple[str, str], list[float]]
"""By kind and order: the test error for each seed, in %."""


def run(ctx: StudyContext[PoolingKnobs]) -> Outcome:
    """Trains the networks that differ, and compares those that do not."""
    errors: Errors = {key: [] for key in (("mean", "before"), ("mean", "behind"), ("max", "before"))}
    for kind, order in errors:
        for seed in ctx.seeds:
            make = functools.partial(
                make_lenet, kind, order, in_chans=ctx.in_chans, num_classes=ctx.num_classes
            )
            label = f"lenet5-{kind}-activation-{order}"
            trained = ctx.train(
                make,
                label=label,
                seed=seed,
                recipe="lenet5",
                epochs=ctx.knobs.epochs,
                lr=ctx.knobs.lr,
                batch_size=ctx.knobs.batch_size,
                **NO_AFFINE,
            )
            errors[kind, order].append(trained.test_error)
    differences = {kind: order_difference(kind, ctx.knobs.first_seed) for kind in KINDS}
    counts = {order: activations(order) for order in ORDERS}
    return Outcome(
        findings=(*facts(differences, counts), *find(errors)),
        tables=(_table(errors, differences),),
        figures={"pooling.png": render(functools.partial(draw, errors, differences))},
        reading=_reading(errors, differences, counts),
    )


def order_difference(kind: str, seed: int, images: int = 8) -> float:
    """Largest difference of the logits that the order makes, both networks having the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = [make_lenet(kind, order).eval() for order in ORDERS]
        x = torch.randn(images, *INPUT)
    nets[1].load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        first, second = (net(x) for net in nets)
    return float((first - second).abs().max())


def activations(order: str) -> int:
    """How many values the two activations that stand at a pooling compute for one image of 32 px."""
    sheet = size(make_lenet("max", order).eval(), INPUT)
    rows = [row for row in sheet.rows if row.op == "tanh" and row.path.startswith("stages")]
    return sum(math.prod(row.output_shape) for row in rows)


def facts(differences: dict[str, float], counts: dict[str, int]) -> tuple[Fact, ...]:
    """What needs no training."""
    return (
        Fact(
            name="maximum: largest difference of the logits that the order makes, same weights",
            value=differences["max"],
            claimed=0.0,
            note="an activation that only rises commutes with a maximum",
        ),
        Fact(
            name="values that both activations compute, before the poolings over behind them",
            value=counts["before"] / counts["behind"],
            claimed=4.0,
            note=f"{counts['before']:,} over {counts['behind']:,}",
        ),
    )


def find(errors: Errors) -> tuple[Effect, ...]:
    """The maximum against the mean decides; the order, for the mean, is reported."""

    def minus(first: tuple[str, str], second: tuple[str, str]) -> tuple[float, ...]:
        return tuple(a - b for a, b in zip(errors[first], errors[second], strict=True))

    return (
        Effect(
            name="test error, mean minus maximum, both behind the activation",
            values=minus(("mean", "before"), ("max", "before")),
            unit="points",
            published="Scherer et al.: lower errors with maxima, for networks of their own",
        ),
        Effect(
            name="test error of the mean, activation behind it minus before it (no claim)",
            values=minus(("mean", "behind"), ("mean", "before")),
            unit="points",
            decides=False,
        ),
    )


def _table(errors: Errors, differences: dict[str, float]) -> Table:
    rows = [
        (kind, order, f"{statistics.fmean(values):.2f} %", ", ".join(f"{value:.2f}" for value in values))
        for (kind, order), values in errors.items()
    ]
    same = "as before it" if differences["max"] == 0.0 else "not trained"
    rows.append(("max", "behind", same, "-"))
    heads = ("pooling", "the activation comes", "test error", "each seed")
    return Table("Each network", heads, tuple(rows))


def _reading(errors: Errors, differences: dict[str, float], counts: dict[str, int]) -> str:
    mean, behind, largest = (statistics.fmean(values) for values in errors.values())
    return (
        f"With a maximum, the order changes the logits by {differences['max']:g}: an activation that only "
        f"rises leaves the largest value the largest. Behind the pooling it has {counts['behind']:,} "
        f"values to compute in place of {counts['before']:,}. With a mean, the order changes the logits by "
        f"up to {differences['mean']:.2g}. Trained alike, the test error is {largest:.2f} % with the "
        f"maximum, {mean:.2f} % with the mean behind the activation and {behind:.2f} % with the mean "
        "before it."
    )


def draw(errors: Errors, differences: dict[str, float], figure: Figure) -> None:
    """The test error of each network with every seed as a dot, and what the order does to the logits."""
    ends, order = figure.subplots(1, 2, width_ratios=(2, 1))
    for place, values in enumerate(errors.values()):
        ends.scatter([place] * len(values), values, color=f"C{place}", alpha=0.7)
        ends.hlines(statistics.fmean(values), place - 0.2, place + 0.2, color=f"C{place}")
    names = [f"{kind}, activation\n{order_} it" for kind, order_ in errors]
    ends.set_xticks(range(len(names)), names)
    ends.set(ylabel="test error (%)", title="LeNet-5 with other poolings (dots: seeds, bars: means)")
    order.bar(list(differences), list(differences.values()), color=("C0", "C2"), width=0.5)
    for place, value in enumerate(differences.values()):
        order.annotate(f"{value:.2g}", (place, value), ha="center", va="bottom")
    order.set(ylabel="largest difference of the logits", title="activation before or behind")
    order.margins(x=0.3, y=0.15)


STUDY = Study(
    name="pooling",
    source="LeCun et al. 1998, Section II.B; Scherer et al. 2010, Section 4",
    published=(
        "LeNet-5: sums of 2x2, a coefficient and a bias, then the squashing function",
        "Scherer et al.: maxima give lower errors than subsampling, on NORB and Caltech-101",
    ),
    protocol="LeNet-5 as it is taught, its poolings means or maxima, its first two activations before or "
    "behind them. The order's effect on the logits is computed with equal weights; networks that differ "
    "are trained alike from the same seeds.",
    refuted_by="Logits that the order changes with a maximum; or a mean that errs as little as a maximum.",
    presets={
        "quick": PoolingKnobs(images=3000, test_images=1000, epochs=4, seeds=5),
        "standard": PoolingKnobs(epochs=5, seeds=5),
        "full": PoolingKnobs(epochs=30, seeds=10),
    },
    run=run,
)
