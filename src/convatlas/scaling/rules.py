"""Rules: in which proportion depth, width and input size grow when a network may cost more.

A rule is a curve. At `phi` the network may cost about `2**phi` times what its base costs, and the rule says
by how much depth d, width w and resolution r are multiplied; cost goes about as d w^2 r^2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from convatlas.errors import unknown


class Scale(NamedTuple):
    """Multipliers of the base network's depth, width and input size."""

    depth: float
    width: float
    resolution: float


Ray = Callable[[float], Scale]
"""The multipliers at a phi."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: as the command line has it.
        says: what it does, in a line.
        source: where it comes from.
        knobs: which of "depth", "width" and "resolution" it turns.
        ray: the multipliers at a phi.
        most_size: input size that it does not exceed, in px; None for no such limit.
    """

    name: str
    says: str
    source: str
    knobs: tuple[str, ...]
    ray: Ray
    most_size: int | None = None


ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
"""EfficientNet's factors of depth, width and resolution for one step of phi (Section 3.3)."""
FAST_ALPHA = 0.8
"""Share of the cost that `fast` gives to width (Dollar, Singh and Girshick 2021, Section 5)."""
V2_MOST_SIZE = 480
"""Largest input of EfficientNetV2, in px (Tan and Le 2021, Section 3.3)."""
RS_DEPTH, RS_RESOLUTION = 0.61, 0.39
"""Shares of the cost that depth and resolution have in ResNet-RS.

From ResNet-RS-50 at 160 px to ResNet-RS-420 at 320 px (Bello et al. 2021) the blocks go from 16 to 139 and
the px
double: ln(139 / 16) and 2 ln(2) are as 0.61 to 0.39. In EfficientNet's rule the resolution has 0.43.
"""

ALL = ("depth", "width", "resolution")


def compound(alpha: float = ALPHA, beta: float = BETA, gamma: float = GAMMA) -> Rule:
    """The rule of EfficientNet: all three grow, each by a constant factor for a step of phi.

    Args:
        alpha: factor of the depth.
        beta: factor of the width.
        gamma: factor of the resolution; the paper wants alpha beta^2 gamma^2 near 2.

    Raises:
        ValueError: a factor is below 1 or not finite, or none is above 1.
    """
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        if not 1 <= value < math.inf:
            raise ValueError(f"`{name}`={value!r}; expected a factor of at least 1, such as 1.2")
    if alpha * beta**2 * gamma**2 <= 1:
        raise ValueError(
            f"`alpha`={alpha}, `beta`={beta}, `gamma`={gamma}: nothing grows; expected one of them above 1"
        )
    return Rule(
        name="compound",
        says=f"depth by {alpha:g}, width by {beta:g}, input by {gamma:g} a step",
        source="Tan and Le 2019, EfficientNet, arXiv 1905.11946, Section 3.3",
        knobs=ALL,
        ray=lambda phi: Scale(alpha**phi, beta**phi, gamma**phi),
    )


def shares(depth: float, width: float, resolution: float) -> Ray:
    """The ray on which each knob has a fixed share of the cost; the shares add up to 1.

    Source: Dollar, Singh and Girshick 2021, Section 5: d = s^e_d, w = s^(e_w / 2), r = s^(e_r / 2).
    """
    return lambda phi: Scale(2.0 ** (phi * depth), 2.0 ** (phi * width / 2), 2.0 ** (phi * resolution / 2))


_REST = (1.0 - FAST_ALPHA) / 2

RULES: Mapping[str, Rule] = {
    "compound": compound(),
    "printed": Rule(
        "printed",
        "the networks as they were published",
        "the family's papers; for EfficientNet, B0 to B7 by the authors' code (arXiv 1905.11946)",
        (),
        shares(0.0, 0.0, 0.0),
    ),
    "fast": Rule(
        "fast",
        "mostly width, so that activations grow about as the root of the cost",
        "Dollar, Singh and Girshick 2021, Fast and Accurate Model Scaling, arXiv 2103.06877, Section 5",
        ALL,
        shares(_REST, FAST_ALPHA, _REST),
    ),
    "resnet-rs": Rule(
        "resnet-rs",
        "depth, where long training can overfit, and resolution more slowly; width stays",
        "Bello et al. 2021, Revisiting ResNets, arXiv 2103.07579, Sections 6 and 7",
        ("depth", "resolution"),
        shares(RS_DEPTH, 0.0, RS_RESOLUTION),
    ),
    "efficientnet-v2": Rule(
        "efficientnet-v2",
        f"compound, with the input at most {V2_MOST_SIZE} px",
        "Tan and Le 2021, EfficientNetV2, arXiv 2104.00298, Section 3.3",
        ALL,
        compound().ray,
        most_size=V2_MOST_SIZE,
    ),
    "depth": Rule(
        "depth", "depth alone", "Tan and Le 2019, Section 3.2 (a baseline)", ("depth",), shares(1.0, 0.0, 0.0)
    ),
    "width": Rule(
        "width",
        "width alone, as MobileNet's alpha",
        "Howard et al. 2017, MobileNets, arXiv 1704.04861, Section 3.3",
        ("width",),
        shares(0.0, 1.0, 0.0),
    ),
    "resolution": Rule(
        "resolution",
        "input size alone, as MobileNet's rho",
        "Howard et al. 2017, MobileNets, arXiv 1704.04861, Section 3.4",
        ("resolution",),
        shares(0.0, 0.0, 1.0),
    ),
    "grid": Rule(
        "grid",
        "compound, with factors found by a small grid search of trainings at phi = 1",
        "Tan and Le 2019, EfficientNet, arXiv 1905.11946, Section 3.3, step 1",
        ALL,
        compound().ray,
    ),
}
"""By name. The factors of `grid` come from `grid_search`."""


def find_rule(name: str) -> Rule:
    """The rule of a name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in RULES:
        raise unknown("rule", name, RULES, f"rules are {', '.join(RULES)}")
    return RULES[name]


def check_knobs(rule: Rule, network: str, knobs: tuple[str, ...]) -> None:
    """Refuses a rule that turns what a network does not have.

    Raises:
        ValueError: names the knob, and the rules that the network has all knobs for.
    """
    missing = [knob for knob in rule.knobs if knob not in knobs]
    if missing:
        fitting = [each.name for each in RULES.values() if set(each.knobs) <= set(knobs)]
        raise ValueError(
            f"`--rule {rule.name}` scales {' and '.join(missing)}, which {network} has no knob for; "
            f"rules that it has the knobs for are {', '.join(fitting)}"
        )
