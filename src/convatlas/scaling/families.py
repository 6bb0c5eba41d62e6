"""The families that can be scaled: their base networks, their printed networks and their knobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from convatlas.catalog.cards import all_cards, find_card, is_model
from convatlas.errors import UnknownNameError, nearest
from convatlas.models.registry import find_config

if TYPE_CHECKING:
    from convatlas.models.network import Config

DEPTH, WIDTH = "depth_mult", "width_mult"
LIMITS = {DEPTH: (0.1, 32.0), WIDTH: (0.1, 8.0)}
"""Smallest and largest multiplier of the base network's depth and width."""
MOST_SIZE = 4.0
"""Largest input, as a multiple of the base network's."""

MOBILENET_V1 = ("mobilenet_v1_025", "mobilenet_v1_050", "mobilenet_v1_075", "mobilenet_v1_100")
RHO = (128, 160, 192, 224)
"""Input sizes of MobileNet's paper, in px."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks of one paper that differ in depth, width and input size.

    Attributes:
        base: the network that is scaled where only the family is named.
        printed: the networks that were published, small to large.
        sizes: input sizes that each was published for, in px; empty for the card's one.
    """

    base: str
    printed: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "efficientnet": Family("efficientnet_b0", tuple(f"efficientnet_b{i}" for i in range(8))),
    "efficientnet_lite": Family("efficientnet_lite0", tuple(f"efficientnet_lite{i}" for i in range(5))),
    "mobilenet_v1": Family("mobilenet_v1_100", MOBILENET_V1, RHO),
    "mobilenet_v2": Family(
        "mobilenet_v2_100",
        tuple(f"mobilenet_v2_{alpha}" for alpha in ("035", "050", "075", "100", "130", "140")),
    ),
    "resnet": Family("resnet50_v1_5", ("resnet50_v1_5", "resnet101_v1_5", "resnet152_v1_5")),
    "resnet_v1": Family("resnet50_v1", ("resnet50_v1", "resnet101_v1", "resnet152_v1")),
    "resnet_basic": Family("resnet18", ("resnet18", "resnet34")),
    "resnet_cifar": Family(
        "resnet20_cifar", tuple(f"resnet{depth}_cifar" for depth in (20, 32, 44, 56, 110, 1202))
    ),
    "preact_resnet": Family(
        "preact_resnet50", tuple(f"preact_resnet{depth}" for depth in (50, 101, 152, 200))
    ),
    "preact_resnet_basic": Family("preact_resnet18", ("preact_resnet18", "preact_resnet34")),
    "preact_resnet_cifar": Family(
        "preact_resnet164_cifar", ("preact_resnet164_cifar", "preact_resnet1001_cifar")
    ),
    "wide_resnet": Family("wide_resnet50_2", ("wide_resnet50_2", "wide_resnet101_2")),
    "wide_resnet_cifar": Family(
        "wide_resnet16_4_cifar",
        ("wide_resnet16_4_cifar", "wide_resnet40_4_cifar", "wide_resnet16_8_cifar", "wide_resnet28_10_cifar"),
    ),
    "resnext": Family("resnext50_32x4d", ("resnext50_32x4d", "resnext101_32x4d")),
    "resnext_cifar": Family("resnext29_8x64d_cifar", ("resnext29_8x64d_cifar", "resnext29_16x64d_cifar")),
    "se_resnet": Family("se_resnet50", ("se_resnet50", "se_resnet101", "se_resnet152")),
    "se_resnet_basic": Family("se_resnet18", ("se_resnet18", "se_resnet34")),
    "se_resnext": Family("se_resnext50_32x4d", ("se_resnext50_32x4d", "se_resnext101_32x4d")),
    "densenet": Family(
        "densenet121", ("densenet121", "densenet169", "densenet201", "densenet161", "densenet264")
    ),
    "densenet_cifar": Family(
        "densenet_bc100_12_cifar",
        ("densenet_bc100_12_cifar", "densenet_bc250_24_cifar", "densenet_bc190_40_cifar"),
    ),
    "vgg": Family("vgg16", ("vgg11", "vgg13", "vgg16", "vgg19")),
    "vgg_bn": Family("vgg16_bn", ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")),
    "googlenet": Family("googlenet"),
    "inception_v2": Family("inception_v2"),
    "inception_v3": Family("inception_v3"),
    "inception_v4": Family("inception_v4"),
    "inception_resnet": Family("inception_resnet_v2"),
    "xception": Family("xception"),
    "nasnet": Family("nasnet_a_mobile", ("nasnet_a_mobile", "nasnet_a_large")),
}
"""By name. A network that is none of these is scaled from itself."""


def find_base(text: str) -> tuple[str, Family]:
    """The network that a family's or network's name stands for, and its family.

    Raises:
        UnknownNameError: there is neither a family nor a network of that name.
    """
    family = FAMILIES.get(text.replace("-", "_").lower())
    if family is not None:
        return family.base, family
    if not is_model(text):
        raise UnknownNameError(
            f"unknown family or network {text!r}; nearest: {nearest(text, [*FAMILIES, *all_cards()])}; "
            f"families are {', '.join(FAMILIES)}"
        )
    name = find_card(text).name
    return name, next((each for each in FAMILIES.values() if name in each.printed), Family(name))


@dataclasses.dataclass(frozen=True)
class Base:
    """The network that is scaled.

    Attributes:
        network: name in the registry.
        family: its family.
        config: its published config, with what the caller changed.
        overrides: what the caller changed.
        input_size: px that it was published for.
        min_input_size: px that it needs at least.
    """

    network: str
    family: Family
    config: Config
    overrides: Mapping[str, Any]
    input_size: int
    min_input_size: int

    @property
    def knobs(self) -> tuple[str, ...]:
        """Which of "depth", "width" and "resolution" can be turned."""
        fields = {field.name for field in dataclasses.fields(self.config)}
        found = [name for name, field in (("depth", DEPTH), ("width", WIDTH)) if field in fields]
        return (*found, "resolution")

    def knob(self, field: str) -> float:
        """The base network's own multiplier; 1 where it has none."""
        return float(getattr(self.config, field, 1.0))

    def range_of(self, field: str) -> tuple[float, float]:
        """Smallest and largest value of a multiplier of the config."""
        least, most = LIMITS[field]
        return least * self.knob(field), most * self.knob(field)


def open_base(text: str, overrides: Mapping[str, Any] | None = None) -> Base:
    """The network to scale, by its own or its family's name.

    Args:
        text: a family, such as "efficientnet", or a network, such as "resnet34".
        overrides: other fields of its config to change, such as `{"num_classes": 10}`.

    Raises:
        UnknownNameError: there is no such family, network or field.
        ValueError: a value is out of range, or the network has neither depth nor width to turn.
    """
    name, family = find_base(text)
    config = find_config(name, dict(overrides or {}))
    size = find_card(name).input_size[-1]
    from convatlas.catalog.index import find_entry

    base = Base(name, family, config, dict(overrides or {}), size, find_entry(name).min_input_size)
    if base.knobs == ("resolution",):
        raise ValueError(
            f"{name} has neither `{DEPTH}` nor `{WIDTH}` to scale by; families that have are "
            f"{', '.join(FAMILIES)}"
        )
    return base
