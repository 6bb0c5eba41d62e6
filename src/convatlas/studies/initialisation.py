"""Initialisation: which first weights carry a signal, and its gradient, through a deep network of ReLUs.

Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks"; He et al.
2015, "Delving Deep into Rectifiers"; Ioffe and Szegedy 2015, "Batch Normalization".
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from convatlas.plots.style import render
from convatlas.studies.study import Outcome, Study, Table, TrainingKnobs
from convatlas.studies.timing import NO_CROP
from convatlas.studies.verdict import Effect, Fact
from convatlas.training.nonfinite import TrainingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convatlas.studies.context import StudyContext

FILTER = 3

SCALES: dict[str, float] = {"too small": 0.1, "Xavier": math.sqrt(0.5), "He": 1.0, "too large": 2.0}
"""Standard deviation of the weights as a multiple of He's, sqrt(2 / fan-in); Xavier's is sqrt(1 / fan-in)
where as many channels leave as enter."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialisationKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        depth: convolutions in the network.
        width: channels of each.
        probe: images that the signal is measured on before training.
        lr: largest learning rate.
        batch_size: images of a step.
    """

    depth: int = 24
    width: int = 16
    probe: int = 64
    lr: float = 0.01
    batch_size: int = 8


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
        """Images to logits: (B, C, H, W) -> (B, K)."""
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
    signals = {
        (name, norm): [_probe(ctx, name, norm, seed) for seed in ctx.seeds]
        for norm in (False, True)
        for name in SCALES
    }
    errors = {
        (name, norm): [_test_error(ctx, name, norm, seed) for seed in ctx.seeds]
        for norm in (False, True)
        for name in SCALES
    }
    findings: list[Effect | Fact] = []
    for name in [name for name in SCALES if name != "He"]:
        pairs = zip(signals[name, False], signals["He", False], strict=True)
        findings.append(
            Effect(
                name=f"drift of the signal by each layer, without norm: {name} more than He",
                values=tuple(abs(other.gain) - abs(he.gain) for other, he in pairs),
                unit="powers of 2",
                published=f"theory: {abs(math.log2(SCALES[name])):.2f}",
            )
        )
        findings.append(_error_effect(errors, name, norm=False))
        findings.append(_error_effect(errors, name, norm=True))
    return Outcome(
        findings=tuple(findings),
        tables=(_table(signals, errors),),
        figures={"initialisation.png": render(functools.partial(draw, signals), height=4.4)},
        reading=_reading(ctx.knobs, signals, errors),
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


def _probe(ctx: StudyContext[InitialisationKnobs], name: str, norm: bool, seed: int) -> Signal:
    part = ctx.source.train
    images = torch.stack([part.image(index) for index in range(ctx.knobs.probe)]).double() / 255.0
    images = (images - images.mean()) / images.std()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return probe(_make(ctx, name, norm), images, part.labels[: ctx.knobs.probe])


def _test_error(ctx: StudyContext[InitialisationKnobs], name: str, norm: bool, seed: int) -> float:
    knobs = ctx.knobs
    label = f"deep{knobs.depth}x{knobs.width}-{name.replace(' ', '-').lower()}{'-bn' if norm else ''}"
    try:
        trained = ctx.train(
            functools.partial(_make, ctx, name, norm),
            label=label,
            seed=seed,
            recipe="resnet_cifar",
            epochs=knobs.epochs,
            lr=knobs.lr,
            batch_size=knobs.batch_size,
            schedule="cosine",
            **NO_CROP,
        )
    except TrainingError:
        ctx.log(f"{label}, seed {seed}: diverged")
        return 100.0 * (1.0 - 1.0 / ctx.num_classes)
    return trained.test_error


def _error_effect(errors: dict[Key, list[float]], name: str, *, norm: bool) -> Effect:
    pairs = zip(errors[name, norm], errors["He", norm], strict=True)
    where = "with batch norm (no claim)" if norm else "without norm"
    return Effect(
        name=f"test error after training, {where}: {name} minus He",
        values=tuple(other - he for other, he in pairs),
        unit="points",
        published="He et al.: 30 layers do not converge with Xavier" if name == "Xavier" and not norm else "",
        decides=not norm,
    )


def _table(signals: dict[Key, list[Signal]], errors: dict[Key, list[float]]) -> Table:
    rows = [
        (
            name,
            "yes" if norm else "no",
            f"{statistics.fmean(signal.gain for signal in signals[name, norm]):+.2f}",
            f"{0.0 if norm else math.log2(SCALES[name]):+.2f}",
            f"{statistics.fmean(errors[name, norm]):.1f} %",
        )
        for name, norm in signals
    ]
    heads = ("first weights", "batch norm", "log2 of the signal's gain by each layer", "theory", "test error")
    return Table("Each initialisation", heads, tuple(rows))


def _reading(
    knobs: InitialisationKnobs, signals: dict[Key, list[Signal]], errors: dict[Key, list[float]]
) -> str:
    def through(name: str) -> float:
        gain = statistics.fmean(signal.gain for signal in signals[name, False])
        return 2.0 ** (gain * (knobs.depth - 1))

    return (
        f"Without normalisation, a signal leaves the last of {knobs.depth} layers {through('He'):.2g} times "
        f"as large as it left the first with He's weights, {through('Xavier'):.2g} times with Xavier's. "
        f"Mean test errors after the same training: He {statistics.fmean(errors['He', False]):.1f} %, Xavier "
        f"{statistics.fmean(errors['Xavier', False]):.1f} %; with batch normalisation "
        f"{statistics.fmean(errors['He', True]):.1f} % and {statistics.fmean(errors['Xavier', True]):.1f} %."
    )


def draw(signals: dict[Key, list[Signal]], figure: Figure) -> None:
    """Signal forward and gradient backward, layer by layer, without and with normalisation."""
    panels = figure.subplots(1, 2)
    for axes, kind in zip(panels, ("forward", "backward"), strict=True):
        for index, name in enumerate(SCALES):
            for norm in (False, True):
                values = getattr(signals[name, norm][0], kind)
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
    source="He et al. 2015, Delving Deep into Rectifiers, arXiv 1502.01852, Section 2.2 and Figures 2 and 3",
    published=(
        "a deviation of sqrt(2 / fan-in) keeps the variance through layers of ReLUs; Xavier's halves it",
        "22 layers converge with both, He's earlier; 30 layers converge with He's and stall with Xavier's",
    ),
    protocol="Plain deep networks of 3x3 convolutions and ReLUs, without and with batch normalisation, from "
    "four scales of first weights. Before training, the size of the maps and of the loss's gradient layer by "
    "layer; then all are trained alike and tested.",
    refuted_by="A signal that drifts with He's weights as much as with another scale; or another scale that "
    "trains to the same error without normalisation.",
    presets={
        "quick": InitialisationKnobs(images=4000, test_images=2000, px=14, epochs=2, depth=12),
        "standard": InitialisationKnobs(images=20000, epochs=5, depth=30),
        "full": InitialisationKnobs(epochs=20, depth=30, width=64, seeds=5),
    },
    run=run,
)
