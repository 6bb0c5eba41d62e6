"""Small filters: a stack of 3x3 convolutions against one large convolution that sees as much.

Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
Sections 2.3 and 4.1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Literal

from torch import Tensor, nn

from convatlas.blocks.conv import ConvNormAct, Norm
from convatlas.blocks.head import ClassifierHead
from convatlas.models.network import check_count
from convatlas.sizing.run import size
from convatlas.studies.arms import Arm, compare
from convatlas.studies.clauses import Clause, difference
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.study import Outcome, Study
from convatlas.studies.verdict import Fact

WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}


Kind = Literal["large", "stack", "wide stack"]
"""One large filter; 3x3 convolutions of as many channels; 3x3 convolutions of at most as many weights."""


KINDS: tuple[Kind, ...] = ("large", "stack", "wide stack")


MARGIN = 1.0
"""Points of test error that a stack of as many channels may cost and still count as no worse."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallFiltersKnobs(TrainingKnobs):
    """What can be turned.

    Attributes:
        kernel: size of the large filters, odd, px.
        width: C, channels of the layers with large filters.
        stages: large filters, or stacks, in a network; H and W halve between them.
    """

    kernel: int = 7
    width: int = 16
    stages: int = 2

    def __post_init__(self) -> None:
        """Checks the filters.

        Raises:
            ValueError: if the filter is not odd and larger than 3 px, or a count is out of its range.
        """
        super().__post_init__()
        if self.kernel < 5 or self.kernel % 2 == 0:
            raise ValueError(f"`kernel`={self.kernel}; expected an odd size of at least 5 px")
        check_count("width", self.width, least=1)
        check_count("stages", self.stages, least=1)


def width_of(kind: Kind, kernel: int, width: int) -> int:
    """Channels of a kind of layer where those with large filters have `width`."""
    return math.isqrt(kernel**2 * width**2 // (9 * (kernel // 2))) if kind == "wide stack" else width


def make_filters(kind: Kind, kernel: int, width: int, *, norm: Norm | None = nn.BatchNorm2d) -> nn.Module:
    """One convolution, or as many of 3x3 as have its receptive field; a ReLU after each.

    Args:
        kind: which.
        kernel: px of the large filter.
        width: channels of input and output.
        norm: makes the normalisation after each convolution; None for none.
    """
    make = functools.partial(ConvNormAct, width, width, norm=norm, bias=False)
    if kind == "large":
        return make(kernel, padding=kernel // 2)
    return nn.Sequential(*(make(3, padding=1) for _ in range(kernel // 2)))


class FilterNet(nn.Module):
    """A 3x3 convolution, then large filters or stacks with 2x2 max pools between them, mean, linear layer.

    Args:
        kind: of layers.
        kernel: px of the large filter.
        width: channels.
        stages: large filters, or stacks.
        in_chans: channels of the images.
        num_classes: K.

    Shape: x (B, C, H, W) -> (B, K).
    """

    def __init__(
        self, kind: Kind, kernel: int, width: int, *, stages: int, in_chans: int, num_classes: int
    ) -> None:
        super().__init__()
        self.stem = ConvNormAct(in_chans, width, 3, padding=1)
        layers: list[nn.Module] = []
        for stage in range(stages):
            layers += [nn.MaxPool2d(2)] if stage > 0 else []
            layers.append(make_filters(kind, kernel, width))
        self.stages = nn.Sequential(*layers)
        self.head = ClassifierHead(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Scores images."""
        return self.head(self.stages(self.stem(x)))


def run(ctx: StudyContext[SmallFiltersKnobs]) -> Outcome:
    """Counts, then trains three networks for each seed."""
    knobs = ctx.knobs
    arms: dict[str, Arm] = {}
    for kind in KINDS:
        width = width_of(kind, knobs.kernel, knobs.width)
        make = functools.partial(
            FilterNet,
            kind,
            knobs.kernel,
            width,
            stages=knobs.stages,
            in_chans=ctx.in_chans,
            num_classes=ctx.num_classes,
        )
        label = f"{kind.replace(' ', '-')}{knobs.kernel}-{knobs.stages}x{width}"
        arms[kind] = Arm(network=make, label=label)
    return Outcome(compared=compare(ctx, arms), facts=count(knobs.kernel, knobs.width))


def name_of(kind: Kind, kernel: int, width: int) -> str:
    """A reader's name for a stage."""
    layers = kernel // 2
    said = f"one {kernel}x{kernel}" if kind == "large" else f"{WORDS.get(layers, str(layers))} 3x3"
    return f"{said} of {width_of(kind, kernel, width)} channels"


def count(kernel: int, width: int) -> tuple[Fact, ...]:
    """Receptive field and weights of a stack and of the large filter, by tracing."""
    layers = kernel // 2
    large, stack, wide = (
        size(
            make_filters(kind, kernel, width_of(kind, kernel, width), norm=None),
            (width_of(kind, kernel, width), 4 * kernel, 4 * kernel),
        )
        for kind in KINDS
    )
    field = stack.receptive_field
    more = 100.0 * (large.params / stack.params - 1.0)
    return (
        Fact(
            name=f"receptive field of {WORDS.get(layers, str(layers))} 3x3",
            value=float((field.size[0] if field is not None else None) or 0),
            claimed=kernel,
            unit="px",
        ),
        Fact(
            name=f"weights of {name_of('stack', kernel, width)}",
            value=stack.params,
            claimed=9 * layers * width**2,
            note=f"{9 * layers} C^2",
        ),
        Fact(
            name=f"weights of {name_of('large', kernel, width)}",
            value=large.params,
            claimed=kernel**2 * width**2,
            note=f"{kernel**2} C^2, {more:.0f} % more",
        ),
        Fact(
            name=f"weights of {name_of('wide stack', kernel, width)}",
            value=wide.params,
            claimed=9 * layers * width_of("wide stack", kernel, width) ** 2,
            note=f"{100.0 * wide.params / large.params:.0f} % of the large filter's",
        ),
    )


STUDY = Study(
    name="small-filters",
    version=2,
    source="Simonyan and Zisserman 2014, arXiv 1409.1556, Sections 2.3 and 4.1",
    published=(
        "three 3x3 layers of C channels have a receptive field of 7x7 and 27 C^2 weights; one 7x7 layer has "
        "49 C^2, 81 % more",
        "net B with each pair of 3x3 replaced by one 5x5: top-1 error on ImageNet 7 % higher",
    ),
    clauses=(
        Clause(
            name="no-worse",
            says=f"A stack of as many channels errs less than {MARGIN:g} point more than the large filter.",
            measure="test error, stack minus large filter, as many channels",
            below=MARGIN,
            arms=difference("stack", "large"),
            published="-7 points of top-1 error on ImageNet (5x5)",
        ),
        Clause(
            name="same-weights",
            says="A stack of at most as many weights errs less.",
            measure="test error, large filter minus stack, as many weights",
            above=0.0,
            arms=difference("large", "wide stack"),
            decides=False,
        ),
    ),
    protocol="Networks that are alike but for their stages, each a large filter or the 3x3 convolutions with "
    "its receptive field, once of as many channels and once of at most as many weights, all with batch norm "
    "and ReLU, are trained from the same seeds, each at its own best learning rate of one grid. "
    "Receptive field "
    "and weights by tracing.",
    presets={
        "quick": SmallFiltersKnobs(
            images=2000, test_images=4000, px=14, epochs=4, seeds=3, stages=1, batch_size=16, warmup=60
        ),
        "standard": SmallFiltersKnobs(images=10000, px=14, epochs=6, warmup=300),
        "full": SmallFiltersKnobs(
            data="cifar10", epochs=100, width=64, stages=3, batch_size=128, flip=0.5, pad=4, reach=30.0
        ),
    },
    run=run,
    changes="Version 1 was published at settings that had been changed, with one learning rate for all.",
)
