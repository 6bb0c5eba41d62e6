"""Genotypes of networks of inverted residuals, and their text.

    e1k3d1c16/e6k3d2c24/e6k5d2c40s;act=silu

is a row of stages, separated by `/`: expansion, kernel in px, blocks (depth), channels, and `s` where blocks
have a squeeze-excite gate. What follows `;` holds for the whole network.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from convatlas.blocks.genotype import GenotypeError
from convatlas.errors import UnknownNameError, nearest

ACTS = ("relu", "relu6", "silu")
STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the first block of each stage, in MobileNetV2, MnasNet and EfficientNet alike."""


@dataclasses.dataclass(frozen=True)
class MobileStage:
    """Blocks of one width.

    Attributes:
        expansion: t, how many times as many channels there are inside.
        kernel_size: px of the depthwise convolution: 3, 5 or 7.
        depth: blocks.
        chans: channels of the output.
        squeeze: whether a squeeze-excite gate follows each depthwise convolution.
    """

    expansion: int
    kernel_size: int
    depth: int
    chans: int
    squeeze: bool = False

    @property
    def text(self) -> str:
        """The text form."""
        gate = "s" if self.squeeze else ""
        return f"e{self.expansion}k{self.kernel_size}d{self.depth}c{self.chans}{gate}"


@dataclasses.dataclass(frozen=True)
class MobileGenotype:
    """A network of inverted residuals.

    Args:
        stages: from the stem to the last convolution.
        act: "relu", "relu6" or "silu".
        stem_chans: channels of the first convolution.
        last_chans: channels of the last 1x1 convolution.
        stem_stride: px of the first convolution; 1 for small images.
        strides: px of the first block of each stage.

    Raises:
        ValueError: a value is out of its range.
    """

    stages: tuple[MobileStage, ...]
    act: str = "relu6"
    stem_chans: int = 32
    last_chans: int = 1280
    stem_stride: int = 2
    strides: tuple[int, ...] = STRIDES

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.act not in ACTS:
            raise UnknownNameError(
                f"unknown activation {self.act!r}; nearest: {nearest(self.act, ACTS)}; "
                f"allowed are {', '.join(ACTS)}"
            )
        for name in ("stem_chans", "last_chans"):
            if getattr(self, name) < 1:
                raise GenotypeError(f"`{name}`={getattr(self, name)!r}; expected at least 1")
        if self.stem_stride not in (1, 2) or any(stride not in (1, 2) for stride in self.strides):
            raise GenotypeError(f"`strides`={self.strides!r}; allowed are 1 and 2")
        if not self.stages or len(self.strides) < len(self.stages):
            raise GenotypeError(
                f"{len(self.stages)} stages and {len(self.strides)} strides; expected a stride for each stage"
            )

    @property
    def text(self) -> str:
        """The text form, which `parse_mobile` reads."""
        stages = "/".join(stage.text for stage in self.stages)
        return stages + "".join(f";{name}={_plain(value)}" for name, value in self.options.items())

    @property
    def options(self) -> dict[str, Any]:
        """What differs from the defaults, beside the stages."""
        fields = [field for field in dataclasses.fields(self) if field.name != "stages"]
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}

    def __str__(self) -> str:
        return self.text


def _plain(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parse_mobile(text: str) -> MobileGenotype:
    """Reads the text of a network of inverted residuals.

    Raises:
        GenotypeError: it does not parse; says where and what is allowed there.
    """
    body, *options = text.strip().split(";")
    stages: list[MobileStage] = []
    for i, word in enumerate(body.split("/")):
        match = re.fullmatch(r"\s*e(\d{1,2})k(\d{1,2})d(\d{1,3})c(\d{1,5})(s?)\s*", word)
        if match is None:
            raise GenotypeError(
                f"stage {i}: {word!r} is no stage; expected for example e6k3d2c24 or e6k5d2c40s"
            )
        expansion, kernel_size, depth, chans = (int(match[j]) for j in range(1, 5))
        if kernel_size not in (3, 5, 7) or min(expansion, depth, chans) < 1:
            raise GenotypeError(
                f"stage {i}: {word!r}; allowed are kernels of 3, 5 and 7 px, and at least 1 of all else"
            )
        stages.append(MobileStage(expansion, kernel_size, depth, chans, bool(match[5])))
    return MobileGenotype(tuple(stages), **_parse_options(options))


def _parse_options(items: list[str]) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(MobileGenotype)[1:]]
    values: dict[str, Any] = {}
    for item in items:
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in known:
            raise UnknownNameError(
                f"genotype: unknown setting {name!r}; nearest: {nearest(name, known)}; "
                f"allowed are {', '.join(known)}"
            )
        if name == "act":
            values[name] = value
        elif not re.fullmatch(r"\d{1,9}", value):
            raise GenotypeError(f"genotype: `{name}`={value!r}; expected a whole number")
        else:
            values[name] = tuple(map(int, value)) if name == "strides" else int(value)
    return values
