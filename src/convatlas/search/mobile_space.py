"""The space of inverted residuals, in which MobileNetV2, MnasNet and EfficientNet-B0 lie."""

from __future__ import annotations

from typing import Any

from convatlas.blocks.mobile_genotype import ACTS, STRIDES, MobileGenotype, MobileStage, parse_mobile
from convatlas.search.architecture import Choices, Space, SpaceError, Task, index_of
from convatlas.search.costs import Costs, mobile_costs

WIDTHS = (
    (8, 16, 24),
    (16, 24, 32),
    (24, 32, 40, 48),
    (48, 64, 80, 96),
    (80, 96, 112, 128),
    (128, 160, 192, 224),
    (256, 320, 384),
)
"""Channels that each stage may have."""

DEPTHS = ((1, 2),) + ((1, 2, 3, 4),) * 5 + ((1, 2),)
EXPANSIONS = ((1,),) + ((3, 6),) * 6
KERNELS = (3, 5, 7)
PARTS = ("expansion", "kernel", "depth", "width", "squeeze")


class MobileSpace(Space):
    """Seven stages of inverted residuals: expansion, kernel, depth, width and gate of each; the activation.

    Args:
        divisor: every width of the space divided by this, for small images; 1 for ImageNet.
        stem_stride: px of the first convolution.
        strides: px of the first block of each stage.
    """

    name = "mobile"

    def __init__(self, *, divisor: int = 1, stem_stride: int = 2, strides: tuple[int, ...] = STRIDES) -> None:
        self.divisor = divisor
        self.stem_stride = stem_stride
        self.strides = strides
        variables: list[str] = []
        values: list[tuple[str, ...]] = []
        for i, (widths, depths, expansions) in enumerate(zip(WIDTHS, DEPTHS, EXPANSIONS, strict=True)):
            variables += [f"{i}.{part}" for part in PARTS]
            narrowed = tuple(dict.fromkeys(str(max(1, width // divisor)) for width in widths))
            values += [
                tuple(map(str, expansions)),
                tuple(map(str, KERNELS)),
                tuple(map(str, depths)),
                narrowed,
                ("no", "yes"),
            ]
        self.variables = (*variables, "act")
        self.values = (*values, ACTS)

    def genotype(self, choices: Choices) -> MobileGenotype:
        """The stages."""
        words = [values[i] for values, i in zip(self.values, choices, strict=True)]
        stages = tuple(
            MobileStage(*map(int, words[i : i + 4]), squeeze=words[i + 4] == "yes")
            for i in range(0, len(words) - 1, len(PARTS))
        )
        return MobileGenotype(
            stages,
            words[-1],
            stem_chans=max(1, 32 // self.divisor),
            last_chans=max(1, 1280 // self.divisor),
            stem_stride=self.stem_stride,
            strides=self.strides,
        )

    def text(self, choices: Choices) -> str:
        """The text of the genotype."""
        return self.genotype(choices).text

    def choices_of(self, text: str) -> Choices:
        """Reads a genotype of this space; its stem and strides are those of the space.

        Raises:
            ValueError: it does not parse, or lies outside the space.
        """
        genotype = parse_mobile(text)
        if len(genotype.stages) != len(WIDTHS):
            raise SpaceError(
                f"space mobile: {text!r} has {len(genotype.stages)} stages; expected {len(WIDTHS)}"
            )
        words: list[str] = []
        for stage in genotype.stages:
            words += [str(stage.expansion), str(stage.kernel_size), str(stage.depth), str(stage.chans)]
            words.append("yes" if stage.squeeze else "no")
        words.append(genotype.act)
        return tuple(
            index_of(word, values, f"space mobile: `{name}`")
            for word, values, name in zip(words, self.values, self.variables, strict=True)
        )

    def costs(self, choices: Choices, task: Task) -> Costs:
        """Exact sizes in closed form."""
        chans, height, width = task.image_size
        return mobile_costs(
            self.genotype(choices), in_chans=chans, size=(height, width), num_classes=task.num_classes
        )

    def network(self, choices: Choices) -> tuple[str, dict[str, Any]]:
        """`mobile_net` with the genotype's text."""
        return "mobile_net", {"genotype": self.text(choices)}
