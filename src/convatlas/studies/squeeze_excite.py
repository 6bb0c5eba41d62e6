"""Squeeze-and-excitation: what the gates cost, what they gain, and what they answer to at which depth.

Hu, Shen, Albanie, Sun and Wu 2017, "Squeeze-and-Excitation Networks".
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from convatlas.blocks.residual import BasicBlock, make_shortcut
from convatlas.blocks.squeeze import SqueezeExcite
from convatlas.models.network import check_count
from convatlas.models.resnet_cifar import ResNetCifar, ResNetCifarConfig
from convatlas.plots.style import render
from convatlas.studies.gate_cost import TABLE_2, Cost, cost_facts, cost_table, count
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.verdict import Effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext, Trained

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SqueezeExciteKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        blocks: n; the trained networks have 6n + 2 layers.
        reduction: r of the trained network's gates.
        recipe: how both are trained.
        batch_size: images of a training step.
    """

    blocks: int = 2
    reduction: int = 4
    recipe: str = "resnet_cifar"
    batch_size: int = 64


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


@dataclasses.dataclass(frozen=True)
class Results:
    """What was measured for one seed.

    Attributes:
        errors: test error without and with gates, in %.
        known: for each gate, first to last, what share of its variance over images the class explains.
        deep: the last gate's mean answer for each class, (K, C).
    """

    errors: tuple[float, float]
    known: tuple[float, ...]
    deep: Array


def run(ctx: StudyContext[SqueezeExciteKnobs]) -> Outcome:
    """Counts what gates cost in the paper's networks; trains a small pair and looks at its gates."""
    results = [examine(ctx, seed) for seed in ctx.seeds]
    pairs = [count(line) for line in TABLE_2]
    return Outcome(
        findings=(*cost_facts(), *find(results)),
        tables=(cost_table(pairs), _gate_table(ctx.knobs, results)),
        figures={"squeeze-excite.png": render(functools.partial(draw, results), width=13.0)},
        reading=_reading(pairs, results),
    )


def examine(ctx: StudyContext[SqueezeExciteKnobs], seed: int) -> Results:
    """Trains both networks and watches the gates of one on the test images."""
    knobs = ctx.knobs
    base = ResNetCifarConfig(
        blocks_per_stage=knobs.blocks, in_chans=ctx.in_chans, num_classes=ctx.num_classes
    )
    gated = GatedConfig(
        blocks_per_stage=knobs.blocks,
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
        reduction=knobs.reduction,
    )
    trained: list[Trained] = []
    for config in (base, gated):
        label = f"resnet{6 * knobs.blocks + 2}" + (f"-se{knobs.reduction}" if config is gated else "")
        make = functools.partial(make_net, config)
        settings: dict[str, Any] = {
            "epochs": knobs.epochs,
            "batch_size": knobs.batch_size,
            "augment.pad_crop": "none",
        }
        trained.append(ctx.train(make, label=label, seed=seed, recipe=knobs.recipe, **settings))
    answers = watch_gates(trained[1].net, lambda net: ctx.evaluate(trained[1], "test", net=net))
    labels = ctx.source.test.labels.numpy()
    return Results(
        errors=(trained[0].test_error, trained[1].test_error),
        known=tuple(explained(gate, labels, ctx.num_classes) for gate in answers),
        deep=class_means(answers[-1], labels, ctx.num_classes),
    )


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


def find(results: Sequence[Results]) -> tuple[Effect, ...]:
    """What the gates gain, and whether they know more of the class deeper down: reported, not decided on."""
    return (
        Effect(
            name="test error without gates minus with gates",
            values=tuple(one.errors[0] - one.errors[1] for one in results),
            unit="points",
            published="CIFAR-10: ResNet-110 6.37 to 5.21 %",
            decides=False,
        ),
        Effect(
            name="share of a gate's variance that the class explains, last gate minus first",
            values=tuple(one.known[-1] - one.known[0] for one in results),
            unit="share",
            published="curves only (Figure 6): alike for all classes at first, differ later",
            decides=False,
        ),
    )


def _gate_table(knobs: SqueezeExciteKnobs, results: Sequence[Results]) -> Table:
    columns = list(zip(*(one.known for one in results), strict=True))
    rows = tuple(
        (str(i + 1), f"stage {i // knobs.blocks + 1}", f"{100 * statistics.fmean(values):.0f} %")
        for i, values in enumerate(columns)
    )
    heads = ("gate", "where", "variance over images that the class explains")
    return Table("The trained network's gates", heads, rows)


def _reading(pairs: Sequence[Cost], results: Sequence[Results]) -> str:
    cost = pairs[0]
    gains = [one.errors[0] - one.errors[1] for one in results]
    first, last = (statistics.fmean(one.known[i] for one in results) for i in (0, -1))
    return (
        f"In SE-ResNet-50 the gates add {100 * (cost.params[1] / cost.params[0] - 1):.1f} % to the "
        f"parameters and {100 * (cost.macs[1] / cost.macs[0] - 1):.2f} % to the multiply-adds of "
        "convolutions and linear layers (the means and the scaling counted too, "
        f"{100 * (cost.all_ops[1] / cost.all_ops[0] - 1):.2f} % to all arithmetic): they work on one "
        "number for each channel. The verdict is about this cost. In the small networks trained here they "
        f"lowered the test error by {statistics.fmean(gains):.1f} points on average. The class explains "
        f"{100 * first:.0f} % of the first gate's variance over images and {100 * last:.0f} % of the last "
        "one's."
    )


def draw(results: Sequence[Results], figure: Figure) -> None:
    """The paper's errors against cost; what gates know of the class by depth; one gate's answers by class."""
    gain, depth, map_ = figure.subplots(1, 3)
    for index, line in enumerate(TABLE_2):
        label = line.base.removesuffix("_v1").replace("_32x4d", "")
        gain.plot(line.gflops, line.errors, color=f"C{index}", lw=1.0)
        gain.plot(line.gflops[0], line.errors[0], f"C{index}o", mfc="none")
        gain.plot(line.gflops[1], line.errors[1], f"C{index}o", label=label)
    gain.set(
        xlabel="GFLOPs", ylabel="top-1 error, ImageNet (%)", title="printed: without (hollow), with gates"
    )
    gain.legend()
    for one in results:
        depth.plot(range(1, len(one.known) + 1), [100.0 * share for share in one.known], "C0o-", alpha=0.6)
    depth.set(xlabel="gate, first to last", ylabel="share of variance (%)", ylim=(0, 100))
    depth.set_title("what the class explains of a gate")
    deep = results[0].deep
    image = map_.imshow(deep, aspect="auto", cmap="viridis", interpolation="nearest")
    figure.colorbar(image, ax=map_, label="gate")
    map_.set(xlabel="channel", ylabel="class", title="last gate, mean for each class")


STUDY = Study(
    name="squeeze-excite",
    source="Hu et al. 2017, arXiv 1709.01507, Eq. 5, Sections 4 and 6.4, Tables 2 and 10, Figure 6",
    published=(
        "weights added: 2/r times the sum over the stages of N C^2; SE-ResNet-50, r = 16: about 10 %, or 4 % "
        "without the last stage's gates",
        "ResNet-50: 3.86 GFLOPs, top-1 error 24.80 %; SE-ResNet-50: 3.87 and 23.29 %",
        "SE-ResNet-50, r = 2, 4, 8, 16, 32: 45.7, 35.7, 30.7, 28.1, 26.9 M parameters",
        "CIFAR-10: ResNet-110 6.37 %, with gates 5.21 %",
    ),
    protocol="The paper's networks are sized with and without gates, and the added weights compared with its "
    "formula and its tables. A small residual network is trained without and with gates from the same seeds; "
    "the answers of its gates on the test images are split into what the class explains and the rest.",
    refuted_by="Added weights or multiply-adds that differ from the formula or the printed tables. The "
    "gain in accuracy is reported with its interval and does not decide.",
    presets={
        "quick": SqueezeExciteKnobs(images=3000, test_images=1000, px=14, epochs=4),
        "standard": SqueezeExciteKnobs(images=20000, test_images=5000, px=20, epochs=8, blocks=3, seeds=5),
        "full": SqueezeExciteKnobs(
            data="cifar10", epochs=164, blocks=18, reduction=16, batch_size=128, seeds=5
        ),
    },
    run=run,
)
