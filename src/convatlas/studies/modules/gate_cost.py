"""What gates cost in the networks of the paper on squeeze-and-excitation: counted, and as it was printed.

Hu, Shen, Albanie, Sun and Wu 2017, "Squeeze-and-Excitation Networks", Eq. 5, Tables 2 and 10.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from convatlas.models.registry import create_model
from convatlas.sizing.run import size
from convatlas.studies.study import Table
from convatlas.studies.verdict import Fact


@dataclasses.dataclass(frozen=True)
class Printed:
    """A line of the paper's Table 2.

    Attributes:
        base: name in the registry.
        gated: the same with gates.
        errors: top-1 on ImageNet of both, one crop of 224 px, in %.
        gflops: of both; the paper counts a multiply-add as one.
    """

    base: str
    gated: str
    errors: tuple[float, float]
    gflops: tuple[float, float]


TABLE_2 = (
    Printed("resnet50_v1", "se_resnet50", (24.80, 23.29), (3.86, 3.87)),
    Printed("resnet101_v1", "se_resnet101", (23.17, 22.38), (7.58, 7.60)),
    Printed("resnet152_v1", "se_resnet152", (22.42, 21.57), (11.30, 11.32)),
    Printed("resnext50_32x4d", "se_resnext50_32x4d", (22.11, 21.10), (4.24, 4.25)),
    Printed("resnext101_32x4d", "se_resnext101_32x4d", (21.18, 20.70), (7.99, 8.00)),
)
RATIOS = {2: 45.7, 4: 35.7, 8: 30.7, 16: 28.1, 32: 26.9}
"""Table 10: SE-ResNet-50's parameters in millions for each reduction ratio r."""

RESNET50 = ((3, 256), (4, 512), (6, 1024), (3, 2048))
"""Blocks of each stage of ResNet-50, and the channels that leave them."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What gates add to a network of the paper.

    Attributes:
        line: of its Table 2.
        params: without and with gates.
        macs: MACs of convolutions and linear layers.
        all_ops: arithmetic operations of all kinds.
    """

    line: Printed
    params: tuple[int, int]
    macs: tuple[int, int]
    all_ops: tuple[int, int]


def count(line: Printed) -> Cost:
    """Sizes a network without and with gates for images of 224 px."""
    with torch.device("meta"):
        sheets = [size(create_model(name).eval(), (3, 224, 224)) for name in (line.base, line.gated)]
    before, after = sheets
    return Cost(line, (before.params, after.params), (before.macs, after.macs), (before.flops, after.flops))


def gate_weights(stages: Sequence[tuple[int, int]], reduction: int) -> int:
    """Weights of the gates, which have two layers without biases: 2/r times the sum of N C^2 over the stages.

    Source: Eq. 5.
    """
    return sum(2 * blocks * chans * (chans // reduction) for blocks, chans in stages)


def cost_facts() -> tuple[Fact, ...]:
    """The paper's figures of what gates cost, beside ours."""
    with torch.device("meta"):
        nets = {r: create_model("se_resnet50", reduction=r, squeeze_bias=False).eval() for r in RATIOS}
        base = size(create_model("resnet50_v1").eval(), (3, 224, 224))
    sheets = {r: size(net, (3, 224, 224)) for r, net in nets.items()}
    formula, early = gate_weights(RESNET50, 16), gate_weights(RESNET50[:-1], 16)
    facts = [
        Fact(
            name=f"SE-ResNet-50, r = 16: {what} added, against 2/r times the sum of N C^2",
            value=float(added),
            claimed=float(formula),
        )
        for what, added in (
            ("weights", sheets[16].params - base.params),
            ("MACs", sheets[16].macs - base.macs),
        )
    ]
    for name, value, claimed, note in (
        ("weights added by all gates", formula, 10.0, 'printed: "about 10 %"'),
        ("weights added without the last stage's gates", early, 4.0, 'printed: "about 4 %"'),
    ):
        share = 100.0 * value / base.params
        facts.append(
            Fact(
                name=f"SE-ResNet-50: {name}", value=share, claimed=claimed, tolerance=0.1, unit="%", note=note
            )
        )
    for r, printed in RATIOS.items():
        facts.append(
            Fact(
                name=f"SE-ResNet-50, r = {r}: parameters",
                value=sheets[r].params / 1e6,
                claimed=printed,
                tolerance=0.004,
                unit="M",
                note="printed: 25.6 and a rounded increment",
            )
        )
    for line in TABLE_2:
        facts.append(
            Fact(
                name=f"{line.gated}: multiply-adds for one image",
                value=count(line).macs[1] / 1e9,
                claimed=line.gflops[1],
                tolerance=0.01,
                unit="G",
                note="printed with two decimals",
            )
        )
    return tuple(facts)


def cost_table(pairs: Sequence[Cost]) -> Table:
    """What gates add to each network, beside what the paper printed."""
    rows = tuple(
        (
            cost.line.gated,
            f"+{cost.params[1] - cost.params[0]:,} ({100 * (cost.params[1] / cost.params[0] - 1):.1f} %)",
            f"+{cost.macs[1] - cost.macs[0]:,} ({100 * (cost.macs[1] / cost.macs[0] - 1):.3f} %)",
            f"+{100 * (cost.all_ops[1] / cost.all_ops[0] - 1):.2f} %",
            f"{cost.line.gflops[0]:.2f} to {cost.line.gflops[1]:.2f} G",
            f"{cost.line.errors[0]:.2f} to {cost.line.errors[1]:.2f} %",
        )
        for cost in pairs
    )
    heads = (
        "network",
        "parameters",
        "MACs",
        "all arithmetic",
        "printed GFLOPs",
        "printed top-1 error",
    )
    return Table("What gates add, at r = 16", heads, rows)
