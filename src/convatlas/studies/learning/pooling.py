"""Pooling in LeNet-5: mean or maximum, and the activation before it or behind it.

LeCun, Bottou, Bengio and Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", Section
II.B; Scherer, Müller and Behnke 2010, "Evaluation of Pooling Operations in Convolutional Architectures".
"""

from __future__ import annotations

import dataclasses
import functools
import math

import torch
from torch import nn

from convatlas.models.registry import create_model
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

KINDS: dict[str, type[nn.Module]] = {"mean": nn.AvgPool2d, "max": nn.MaxPool2d}


ORDERS = ("before", "behind")


INPUT = (1, 32, 32)
"""C, H and W that LeNet-5 was made for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolingKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        px: height and width that images are brought to, at least 32.
    """

    px: int = 32


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


def run(ctx: StudyContext[PoolingKnobs]) -> Outcome:
    """Trains the networks that differ, and compares those that do not."""
    arms = {
        f"{kind}, activation {order} it": Arm(
            network=functools.partial(
                make_lenet, kind, order, in_chans=ctx.in_chans, num_classes=ctx.num_classes
            ),
            label=f"lenet5-{kind}-activation-{order}",
        )
        for kind, order in (("mean", "before"), ("mean", "behind"), ("max", "before"))
    }
    differences = {kind: order_difference(kind, ctx.knobs.first_seed) for kind in KINDS}
    counts = {order: activations(order) for order in ORDERS}
    return Outcome(
        compared=compare(ctx, arms),
        facts=facts(differences, counts),
        reading=f"With a maximum, the order changes the logits by {differences['max']:g}: an "
        f"activation that only "
        f"rises leaves the largest value the largest. With a mean it changes them by up to "
        f"{differences['mean']:.2g}.",
    )


def order_difference(kind: str, seed: int, images: int = 8) -> float:
    """Largest difference of the scores that the order makes, both networks having the same weights."""
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
            name="maximum: largest difference of the scores that the order makes, same weights",
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


STUDY = Study(
    name="pooling",
    version=2,
    source="LeCun et al. 1998, Section II.B; Scherer et al. 2010, Section 4",
    published=(
        "LeNet-5: sums of 2x2, a coefficient and a bias, then the squashing function",
        "Scherer et al.: maxima give lower errors than subsampling, on NORB and Caltech-101",
    ),
    clauses=(
        Clause(
            name="maximum",
            says="A maximum errs less than a mean.",
            measure="test error, mean minus maximum, both behind the activation",
            above=0.0,
            arms=difference("mean, activation before it", "max, activation before it"),
            published="Scherer et al.: lower errors with maxima, for networks of their own",
        ),
        Clause(
            name="order",
            says="The order matters to a mean.",
            measure="test error of the mean, activation behind it minus before it",
            above=0.0,
            arms=difference("mean, activation behind it", "mean, activation before it"),
            decides=False,
        ),
    ),
    protocol="LeNet-5 as it is taught, its poolings means or maxima, its first two activations before or "
    "behind them. The order's effect on the logits is computed with equal weights; networks that differ "
    "are trained from the same seeds, each at its own best learning rate of one grid.",
    presets={
        "quick": PoolingKnobs(
            images=2000, test_images=2000, epochs=5, seeds=3, recipe="lenet5", batch_size=16
        ),
        "standard": PoolingKnobs(images=20000, epochs=6, recipe="lenet5", reach=25.0),
        "full": PoolingKnobs(epochs=30, seeds=10, recipe="lenet5", reach=15.0),
    },
    run=run,
    changes="Version 1 had one learning rate for all, and its interval covered seeds alone.",
)
