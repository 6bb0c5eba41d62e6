"""Identity mappings: normalisation and ReLU before the convolutions, against after the addition, at depth.

He, Zhang, Ren and Sun 2016, "Identity Mappings in Deep Residual Networks", Sections 2 and 4, Tables 2 and 3.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from torch import nn

from convatlas.blocks.init import he_normal_, init_layers, linear_uniform_
from convatlas.models.registry import create_model
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.residual.degradation import DegradationKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

UNITS = {"post": "resnet20_cifar", "pre": "preact_resnet110_cifar"}
"""By place of the activation: a network whose depth is then changed. Both have option A's shortcuts."""

PUBLISHED = {110: (6.61, 6.37), 164: (5.93, 5.46), 1001: (7.61, 4.92)}
"""Test error on CIFAR-10 in %, original and pre-activation unit, by layers: Table 2. The deeper two have
bottlenecks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityKnobs(DegradationKnobs):
    """What can be turned: the depths, as in the study of degradation; the deep networks are deeper."""

    deep: int = 110


def make_net(unit: str, depth: int, in_chans: int, num_classes: int) -> nn.Module:
    """A residual network whose convolutions all begin as N(0, 2 / fan-in), whichever its units are."""
    net = create_model(UNITS[unit], in_chans=in_chans, num_classes=num_classes, **_changes(depth))
    init_layers(net, conv=he_normal_, linear=linear_uniform_)
    net.name = ""  # Its first weights are not those of the registry's network.
    return net


def _changes(depth: int) -> dict[str, Any]:
    return {"blocks_per_stage": (depth - 2) // 6, "shortcut": "A"}


def run(ctx: StudyContext[IdentityKnobs]) -> Outcome:
    """Trains both units at both depths for each seed."""
    depths = {"shallow": ctx.knobs.shallow, "deep": ctx.knobs.deep}
    arms = {
        f"{unit} {which}": Arm(
            network=functools.partial(make_net, unit, depth, ctx.in_chans, ctx.num_classes),
            label=f"identity-{unit}-{depth}-fan-in",
        )
        for which, depth in depths.items()
        for unit in UNITS
    }
    return Outcome(
        compared=compare(ctx, arms, splits=("test", "train")),
        facts=tuple(count_parameters(depth) for depth in depths.values()),
        reading="Without a ReLU on it, the path of the additions is an identity within each stage, in both "
        "directions.",
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


STUDY = Study(
    name="identity",
    version=2,
    source="He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027, Tables 2 and 3",
    published=tuple(
        f"CIFAR-10, {depth} layers, test error: original unit {post} %, pre-activation {pre} %"
        for depth, (post, pre) in PUBLISHED.items()
    ),
    clauses=(
        Clause(
            name="deep",
            says="At depth, pre-activation errs less on test images.",
            measure="test error of the deep networks, post minus pre",
            above=0.0,
            arms=difference("post deep", "pre deep"),
            published="110 layers: 6.61 - 6.37 = 0.24",
        ),
        Clause(
            name="deep-train",
            says="At depth, pre-activation errs less on training images: it learns better.",
            measure="training error of the deep networks, post minus pre",
            above=0.0,
            arms=difference("post deep", "pre deep"),
            split="train",
            published="curves only (Figures 1 and 6)",
        ),
        Clause(
            name="growth",
            says="The difference grows with depth.",
            measure="test error, post minus pre, of the deep networks minus the same of the shallow ones",
            above=0.0,
            arms={"post deep": 1.0, "pre deep": -1.0, "post shallow": -1.0, "pre shallow": 1.0},
            published="0.24 at 110 layers, 2.69 at 1001",
        ),
    ),
    protocol="Residual networks with post-activation (2015) and pre-activation units, of equal "
    "depth and as many "
    "parameters, all of whose convolutions begin as N(0, 2 / fan-in), are trained from the same "
    "seeds with the same "
    "steps, order of images and warm-up in steps, each at its own best learning rate of one grid.",
    presets={
        "quick": IdentityKnobs(
            images=2000,
            test_images=2000,
            px=8,
            epochs=4,
            seeds=3,
            deep=44,
            batch_size=16,
            pad=1,
            warmup=60,
            grid=(0.02, 0.06, 0.2),
            grow=1,
        ),
        "standard": IdentityKnobs(
            images=6000, px=14, epochs=5, deep=110, batch_size=32, pad=1, warmup=200, grid=(0.02, 0.06, 0.2)
        ),
        "full": IdentityKnobs(
            data="cifar10",
            epochs=164,
            batch_size=128,
            flip=0.5,
            pad=4,
            warmup=400,
            deep=326,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 had one learning rate, a warm-up of one step and two kinds of first weights.",
)
