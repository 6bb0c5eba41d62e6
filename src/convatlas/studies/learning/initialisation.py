"""Initialisation: which first weights carry a signal, and its gradient, through a deep network of ReLUs.

Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"; He et al.
2015, "Delving Deep into Rectifiers"; Ioffe and Szegedy 2015, "Batch Normalization".
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from convatlas.models.network import check_count
from convatlas.plots.style import render
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILTER = 3


SCALES: dict[str, float] = {"too small": 0.1, "Xavier": math.sqrt(0.5), "He": 1.0, "too large": 2.0}
"""Standard deviation of the weights as a multiple of He's, sqrt(2 / fan-in); Xavier's is sqrt(1 / fan-in)
where as many channels leave as enter."""


TOLERANCE = 0.1
"""How far, as a share, a measured drift may lie from the theory's, which neglects the borders of the maps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialisationKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: convolutions in the network.
        width: channels of each.
        probe: images that the signal is measured on before training.
    """

    depth: int = 24
    width: int = 16
    probe: int = 64

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: if a count is out of its range.
        """
        super().__post_init__()
        for name, least in (("depth", 2), ("width", 1), ("probe", 1)):
            check_count(name, getattr(self, name), least=least)


class DeepNet(nn.Module):
    """A stem that halves H and W, then 3x3 convolutions of one width with ReLUs, mean, linear layer.

    Args:
        depth: convolutions, the stem included.
        width: channels.
        norm: normalise by batch after each convolution.
        scale: deviation of the first weights as a multiple of He's.
        in_chans: channels of the images.
        num_classes: K.
    """

    def __init__(
        self, *, depth: int, width: int, norm: bool, scale: float, in_chans: int, num_classes: int
    ) -> None:
        super().__init__()
        chans = [in_chans, *[width] * depth]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(chans[i], width, FILTER, stride=2 if i == 0 else 1, padding=1, bias=not norm),
                nn.BatchNorm2d(width) if norm else nn.Identity(),
                nn.ReLU(),
            )
            for i in range(depth)
        )
        self.fc = nn.Linear(width, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.in_channels * FILTER**2
                nn.init.normal_(layer.weight, std=scale * math.sqrt(2.0 / fan_in))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images: (B, C, H, W) -> (B, K)."""
        for layer in self.layers:
            x = layer(x)  # (B, width, H/2, W/2)
        return self.fc(x.mean(dim=(2, 3)))  # (B, K)


@dataclasses.dataclass(frozen=True)
class Signal:
    """What passes through a network before it has learnt anything.

    Attributes:
        forward: root mean square of the maps after each layer, shallow to deep.
        backward: root mean square of the loss's gradient with respect to them.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Change of the signal by each layer between the first and the last, as a power of 2."""
        return math.log2(self.forward[-1] / self.forward[0]) / (len(self.forward) - 1)


def probe(net: DeepNet, images: Tensor, labels: Tensor) -> Signal:
    """Sends images (B, C, H, W) forward and the loss's gradient back, in double precision."""
    net = net.double().train()
    x, maps = images.double(), list[Tensor]()
    for layer in net.layers:
        x = layer(x)
        x.retain_grad()
        maps.append(x)
    nn.functional.cross_entropy(net.fc(x.mean(dim=(2, 3))), labels).backward()
    sizes = tuple(float(x.detach().square().mean().sqrt()) for x in maps)
    slopes = tuple(float(x.grad.square().mean().sqrt()) for x in maps if x.grad is not None)
    return Signal(sizes, slopes)


def run(ctx: StudyContext[InitialisationKnobs]) -> Outcome:
    """Probes the fresh networks, then trains them."""
    knobs = ctx.knobs
    arms: dict[str, Arm] = {}
    for norm in (False, True):
        for name in SCALES if not norm else ("Xavier", "He"):
            label = f"deep{knobs.depth}x{knobs.width}-{name.replace(' ', '-').lower()}{'-bn' if norm else ''}"
            arms[f"{name}, norm" if norm else name] = Arm(
                network=functools.partial(_make, ctx, name, norm), label=label, must_learn=name == "He"
            )
    compared = compare(ctx, arms)
    signals = {(name, norm): _probe(ctx, name, norm) for norm in (False, True) for name in SCALES}
    return Outcome(
        compared=compared,
        facts=facts(signals),
        figures={"initialisation-signals.png": render(functools.partial(draw, signals), height=4.4)},
    )


Key = tuple[str, bool]


def _make(ctx: StudyContext[InitialisationKnobs], name: str, norm: bool) -> DeepNet:
    knobs = ctx.knobs
    return DeepNet(
        depth=knobs.depth,
        width=knobs.width,
        norm=norm,
        scale=SCALES[name],
        in_chans=ctx.in_chans,
        num_classes=ctx.num_classes,
    )


def _probe(ctx: StudyContext[InitialisationKnobs], name: str, norm: bool) -> Signal:
    part = ctx.source.train
    images = torch.stack([part.image(i) for i in range(min(ctx.knobs.probe, len(part)))]).double() / 255.0
    images = (images - images.mean()) / images.std()
    net = ctx.build(functools.partial(_make, ctx, name, norm), ctx.knobs.first_seed)
    return probe(cast("DeepNet", net), images, part.labels[: len(images)])


def facts(signals: Mapping[Key, Signal]) -> tuple[Fact, ...]:
    """The drift of a signal by each layer beside He's: the logarithm of the scale, an identity."""
    return tuple(
        Fact(
            name=f"log2 of the signal's gain by each layer without norm, {name} minus He",
            value=signals[name, False].gain - signals["He", False].gain,
            claimed=math.log2(scale),
            tolerance=TOLERANCE,
            note="the weights of one seed differ by this factor alone",
        )
        for name, scale in SCALES.items()
        if name != "He"
    )


def draw(signals: Mapping[Key, Signal], figure: Figure) -> None:
    """Signal forward and gradient backward, layer by layer, without and with normalisation."""
    panels = figure.subplots(1, 2)
    for axes, kind in zip(panels, ("forward", "backward"), strict=True):
        for index, name in enumerate(SCALES):
            for norm in (False, True):
                values = getattr(signals[name, norm], kind)
                style = "--" if norm else "-"
                label = None if norm else name
                axes.plot(range(1, len(values) + 1), values, style, color=f"C{index}", label=label)
        axes.set(xlabel="layer", yscale="log")
    panels[0].set_title("signal before training (dashed: with batch norm)")
    panels[1].set_title("gradient of the loss before training")
    panels[0].set_ylabel("root mean square of the map")
    panels[1].set_ylabel("root mean square of the gradient")
    panels[0].legend()


STUDY = Study(
    name="initialisation",
    version=2,
    source="He et al. 2015, Delving Deep into Rectifiers, arXiv 1502.01852, Section 2.2 and Figures 2 and 3",
    published=(
        "a deviation of sqrt(2 / fan-in) keeps the variance through layers of ReLUs; Xavier's halves it",
        "22 layers converge with both, He's earlier; 30 layers converge with He's and stall with Xavier's",
    ),
    clauses=(
        *(
            Clause(
                name=name.replace(" ", "-").lower(),
                says=f"Without normalisation, a network with {which} weights errs more after the "
                f"same training.",
                measure=f"test error without norm, {name} minus He",
                above=0.0,
                arms=difference(name, "He"),
                published="30 layers do not converge with Xavier" if name == "Xavier" else "",
            )
            for name, which in (("too small", "smaller"), ("Xavier", "Xavier's"), ("too large", "larger"))
        ),
        Clause(
            name="norm",
            says="With batch normalisation, first weights hardly matter.",
            measure="test error with norm, Xavier minus He",
            within=1.0,
            arms=difference("Xavier, norm", "He, norm"),
            decides=False,
        ),
    ),
    protocol="Plain deep networks of 3x3 convolutions and ReLUs, without and with batch normalisation, from "
    "four scales of first weights, each trained at its own best learning rate of one grid from the "
    "same seeds. "
    "He's must learn; that the others cannot is the claim. Before training, the size of the maps "
    "and of the loss's "
    "gradient layer by layer: how it depends on the scale is an identity, and stands among the facts.",
    presets={
        "quick": InitialisationKnobs(
            images=3000,
            test_images=2000,
            px=14,
            epochs=4,
            seeds=3,
            depth=16,
            batch_size=8,
            grid=(0.003, 0.01, 0.03, 0.1),
            grow=1,
        ),
        "standard": InitialisationKnobs(
            images=10000, px=14, epochs=6, depth=30, batch_size=16, warmup=300, grid=(0.003, 0.01, 0.03, 0.1)
        ),
        "full": InitialisationKnobs(epochs=20, depth=30, width=64, grid=(0.003, 0.01, 0.03, 0.1), reach=20.0),
    },
    run=run,
    changes="Version 1 counted identities of arithmetic as samples, and had one learning rate for "
    "four scales.",
)
