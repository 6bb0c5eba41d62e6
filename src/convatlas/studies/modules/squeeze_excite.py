"""Squeeze-and-excitation: what the gates cost, what they gain, and what they answer to at which depth.

Hu, Shen, Albanie, Sun and Wu 2017, "Squeeze-and-Excitation Networks".
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convatlas.blocks.residual import BasicBlock, make_shortcut
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.network import check_count
from convatlas.models.resnet_cifar import ResNetCifar, ResNetCifarConfig
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.modules.gate_cost import TABLE_2, cost_facts, cost_table, count
from convatlas.studies.study import Outcome, Study, Table
from convatlas.studies.trainings import Trained

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeExciteKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        blocks: n; the trained networks have 6n + 2 layers.
        reduction: r of the trained network's gates.
    """

    blocks: int = 2
    reduction: int = 4

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count is out of its range.
        """
        super().__post_init__()
        check_count("blocks", self.blocks, least=1)
        check_count("reduction", self.reduction, least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GatedConfig(ResNetCifarConfig):
    """ResNet for CIFAR with a gate at the end of each branch.

    Attributes:
        reduction: r; the gate's hidden layer has C / r channels.
    """

    reduction: int

    def __post_init__(self) -> None:
        """Checks the reduction.

        Raises:
            ValueError: it leaves a gate without channels.
        """
        super().__post_init__()
        check_count("reduction", self.reduction, least=1)
        if self.reduction > self.stage_chans[0]:
            raise ValueError(f"`reduction`={self.reduction}; expected at most {self.stage_chans[0]}")

    def make_block(self, in_chans: int, out_chans: int, stride: int, index: int) -> nn.Module:
        """A block of two 3x3 convolutions, gated."""
        return BasicBlock(
            in_chans,
            out_chans,
            make_shortcut(self.shortcut, in_chans, out_chans, stride),
            stride=stride,
            squeeze=lambda chans: SqueezeExcite(chans, chans // self.reduction),
        )


def make_net(config: ResNetCifarConfig) -> ResNetCifar:
    """The network of a config, with first weights."""
    net = config.build()
    with torch.no_grad():
        net.init_weights(net)
    return net


def run(ctx: StudyContext[SqueezeExciteKnobs]) -> Outcome:
    """Counts what gates cost in the paper's networks; trains a small pair and looks at its gates."""
    knobs = ctx.knobs
    shape: dict[str, Any] = {
        "blocks_per_stage": knobs.blocks,
        "in_chans": ctx.in_chans,
        "num_classes": ctx.num_classes,
    }
    base, gated = ResNetCifarConfig(**shape), GatedConfig(**shape, reduction=knobs.reduction)
    depth = 6 * knobs.blocks + 2
    arms = {
        "without": Arm(network=functools.partial(make_net, base), label=f"resnet{depth}"),
        "gates": Arm(network=functools.partial(make_net, gated), label=f"resnet{depth}-se{knobs.reduction}"),
    }
    compared = compare(ctx, arms)
    known = [shares(ctx, trained) for trained in compared.nets("gates")]
    rows = tuple(
        (str(i + 1), f"stage {i // knobs.blocks + 1}", f"{100 * statistics.fmean(values):.0f} %")
        for i, values in enumerate(zip(*known, strict=True))
    )
    heads = ("gate", "where", "variance over images that the class explains")
    return Outcome(
        compared=compared,
        samples={"depth": [one[-1] - one[0] for one in known]},
        facts=cost_facts(),
        tables=(
            cost_table([count(line) for line in TABLE_2]),
            Table("The trained network's gates", heads, rows),
        ),
    )


def shares(ctx: StudyContext[SqueezeExciteKnobs], trained: Trained) -> list[float]:
    """For each gate, first to last, what share of its variance over the test images the class explains."""
    gates = watch_gates(trained.net, lambda net: ctx.evaluate(trained, net=net))
    labels = ctx.source.test.labels.numpy()
    return [explained(gate, labels, ctx.num_classes) for gate in gates]


def watch_gates(net: nn.Module, use: Callable[[nn.Module], object]) -> list[Array]:
    """What each gate of a network answers while it is used: (N, C) for each gate, first to last.

    Args:
        net: with `SqueezeExcite` gates.
        use: a function that runs the network on N images, in order.
    """
    kept: list[list[Tensor]] = []
    handles: list[RemovableHandle] = []
    for module in net.modules():
        if isinstance(module, SqueezeExcite):
            mine: list[Tensor] = []
            kept.append(mine)
            handles.append(module.gate.register_forward_hook(functools.partial(_keep, mine)))
    try:
        use(net)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(mine).double().numpy() for mine in kept]


def _keep(kept: list[Tensor], _gate: nn.Module, _inputs: object, answer: Tensor) -> None:
    kept.append(answer.detach().flatten(1))


def class_means(gate: Array, labels: NDArray[np.int64], num_classes: int) -> Array:
    """Mean answer of a gate (N, C) for each class: (K, C). Every class needs an image."""
    return np.stack([gate[labels == k].mean(axis=0) for k in range(num_classes)])


def explained(gate: Array, labels: NDArray[np.int64], num_classes: int) -> float:
    """Share of a gate's variance over images that lies between classes, all channels added up: eta squared.

    Args:
        gate: answers, (N, C).
        labels: class of each image, (N,).
        num_classes: K.
    """
    means = class_means(gate, labels, num_classes)
    between = float(((means[labels] - gate.mean(axis=0)) ** 2).sum())
    total = float(((gate - gate.mean(axis=0)) ** 2).sum())
    return between / total if total > 0.0 else 0.0


STUDY = Study(
    name="squeeze-excite",
    version=2,
    source="Hu et al. 2017, arXiv 1709.01507, Eq. 5, Sections 4 and 6.4, Tables 2 and 10, Figure 6",
    published=(
        "weights added: 2/r times the sum over the stages of N C^2; SE-ResNet-50, r = 16: about 10 %, or 4 % "
        "without the last stage's gates",
        "ResNet-50: 3.86 GFLOPs, top-1 error 24.80 %; SE-ResNet-50: 3.87 and 23.29 %",
        "SE-ResNet-50, r = 2, 4, 8, 16, 32: 45.7, 35.7, 30.7, 28.1, 26.9 M parameters",
        "CIFAR-10: ResNet-110 6.37 %, with gates 5.21 %",
    ),
    clauses=(
        Clause(
            name="error",
            says="The same network with gates errs less.",
            measure="test error, without gates minus with",
            above=0.0,
            arms=difference("without", "gates"),
            published="6.37 - 5.21 = 1.16 (ResNet-110, CIFAR-10)",
        ),
        Clause(
            name="depth",
            says="Gates know more of the class deeper down.",
            measure="share of a gate's variance that the class explains, last gate minus first",
            unit="share",
            above=0.0,
            published="curves only (Figure 6): alike for all classes at first, differ later",
            decides=False,
        ),
    ),
    protocol="The paper's networks are sized with and without gates, and the added weights compared with its "
    "formula and its tables: these are facts of arithmetic. A small residual network is trained "
    "without and with "
    "gates from the same seeds, each at its own best learning rate of one grid: its error decides.",
    presets={
        "quick": SqueezeExciteKnobs(
            images=2000, test_images=3000, px=14, epochs=4, seeds=3, batch_size=16, warmup=60
        ),
        "standard": SqueezeExciteKnobs(images=10000, px=14, epochs=6, warmup=300),
        "full": SqueezeExciteKnobs(
            data="cifar10",
            epochs=164,
            schedule="recipe",
            blocks=18,
            reduction=16,
            batch_size=128,
            flip=0.5,
            pad=4,
            grid=(0.03, 0.1, 0.3),
            reach=20.0,
        ),
    },
    run=run,
    changes="Version 1 decided on the cost, which is arithmetic, where the paper claims accuracy.",
)
