"""Finds the network of a family that uses a budget, near the curve of a rule."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from convatlas.scaling.budget import Budget, say_amount
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, MOST_SIZE, WIDTH, Base
from convatlas.scaling.rules import Rule, Scale

PHI = (-24.0, 24.0)
"""Where a rule's curve is looked at; beyond, all multipliers are at their limits."""
CLOSE = 0.01
"""Of candidates that leave no more than this share of the budget, the one nearest to the curve is taken."""
SLACK = 0.25
"""Two budgets contradict each other where the plan for one uses less than this share of the other."""

WIDER = (0.9, 0.92, 0.94, 0.96, 0.98, 1.02, 1.04, 1.06, 1.08, 1.1)
"""Widths beside the curve's that are looked at too where nothing nearer uses the budget."""

Value = Callable[[str, Candidate], float]
"""What a candidate costs, by the kind of budget."""


@dataclasses.dataclass(frozen=True)
class Space:
    """Networks to choose from: all combinations.

    Attributes:
        depth_mults: values of the config's `depth_mult`.
        width_mults: values of the config's `width_mult`.
        input_sizes: px.
    """

    depth_mults: Sequence[float]
    width_mults: Sequence[float]
    input_sizes: Sequence[int]

    def __iter__(self) -> Iterator[Candidate]:
        """Each combination."""
        combined = itertools.product(self.depth_mults, self.width_mults, self.input_sizes)
        return (Candidate(*each) for each in combined)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.depth_mults) * len(self.width_mults) * len(self.input_sizes)


class Found(NamedTuple):
    """A candidate, and where on the rule's curve it is."""

    candidate: Candidate
    phi: float


class Curve:
    """A rule's curve for one base network, within the limits of its knobs.

    Args:
        base: the network that is scaled.
        rule: the rule.
        sizes: smallest and largest input, in px.
    """

    def __init__(self, base: Base, rule: Rule, sizes: tuple[int, int]) -> None:
        self.base = base
        self.rule = rule
        most = min(sizes[1], rule.most_size or sizes[1])
        self.sizes = min(sizes[0], most), most
        self.step = max(1, base.input_size // 56)
        self._phis = [PHI[0] + i * 0.25 for i in range(round((PHI[1] - PHI[0]) * 4) + 1)]
        self._sums = [sum(self._place(self.scale(phi))) for phi in self._phis]

    def scale(self, phi: float) -> Scale:
        """The multipliers at a phi, cut off where a knob ends."""
        base, wanted = self.base, self.rule.ray(phi)
        size = min(max(base.input_size * wanted.resolution, self.sizes[0]), self.sizes[1])
        depth, width = (
            min(max(base.knob(field) * mult, base.range_of(field)[0]), base.range_of(field)[1])
            if knob in base.knobs
            else 1.0
            for knob, field, mult in (("depth", DEPTH, wanted.depth), ("width", WIDTH, wanted.width))
        )
        return Scale(depth, width, size)

    def at(self, phi: float) -> Candidate:
        """The candidate at a phi."""
        depth, width, size = self.scale(phi)
        return Candidate(round(depth, 2), round(width, 2), self._round_size(size))

    def near(
        self, phi: float, *, fine: bool, sized: bool, spread: Sequence[float] | None = None
    ) -> list[Candidate]:
        """Candidates around a phi.

        Args:
            phi: where.
            fine: more widths and input sizes.
            sized: whether the input size matters to the budget.
            spread: widths beside the curve's, as multiples of it; None for those that `fine` says.
        """
        depth, width, size = self.scale(phi)
        turned = self.rule.knobs
        widths = [round(width, 2)]
        if "width" in turned:
            if spread is None:
                spread = (0.985, 1.015, 1.03) if turned == ("width",) else (0.97, 1.03) if fine else ()
            low, high = self.base.range_of(WIDTH)
            widths += [round(min(max(width * each, low), high), 2) for each in spread]
        depths = self._depths_near(depth) if "depth" in turned else [round(depth, 2)]
        sizes = [self._round_size(size)]
        if sized and "resolution" in turned:
            reach = max(1, round(size * (0.1 if fine else 0.04) / self.step))
            steps = range(-reach, reach + 1)
            sizes += [self._round_size(sizes[0] + i * self.step) for i in steps]
        return list(dict.fromkeys(Candidate(*each) for each in itertools.product(depths, widths, sizes)))

    def phi_of(self, candidate: Candidate) -> float:
        """The phi whose point costs nominally what the candidate does, by depth, width and px."""
        place = sum(self._place(Scale(*candidate)))
        index = bisect.bisect_left(self._sums, place)
        if index == 0 or index == len(self._sums):
            return self._phis[min(index, len(self._phis) - 1)]
        low, high = self._sums[index - 1], self._sums[index]
        share = 0.0 if high == low else (place - low) / (high - low)
        return self._phis[index - 1] + share * (self._phis[index] - self._phis[index - 1])

    def distance(self, candidate: Candidate) -> float:
        """How far a candidate is from the curve: the root of the squared logarithms of cost ratios."""
        there = self._place(self.scale(self.phi_of(candidate)))
        here = self._place(Scale(*candidate))
        return math.hypot(*(a - b for a, b in zip(here, there, strict=True)))

    def _place(self, scale: Scale) -> tuple[float, float, float]:
        """Logarithms of what each knob multiplies the cost by."""
        base = self.base
        return (
            math.log(scale.depth / base.knob(DEPTH)),
            2 * math.log(scale.width / base.knob(WIDTH)),
            2 * math.log(scale.resolution / base.input_size),
        )

    def _round_size(self, size: float) -> int:
        """To the grid of sizes that the base's own is on, within the limits."""
        own, step = self.base.input_size, self.step
        rounded = own + round((size - own) / step) * step
        return min(max(rounded, self.sizes[0]), self.sizes[1])

    def _depths_near(self, depth: float) -> list[float]:
        """One multiplier for each different depth of the network, within 15 %."""
        low, high = self.base.range_of(DEPTH)
        values = {round(min(max(depth * (0.85 + 0.01 * i), low), high), 2) for i in range(31)}
        found: dict[tuple[int, ...], float] = {}
        for value in sorted(values, key=lambda each: abs(math.log(each / depth))):
            config = dataclasses.replace(self.base.config, **{DEPTH: value})
            found.setdefault(tuple(getattr(config, "stage_depths", ())), value)
        return list(found.values())


def size_range(base: Base, given: tuple[int, int] | None) -> tuple[int, int]:
    """Smallest and largest input that may be planned, in px.

    Raises:
        ValueError: the range is empty, or the network does not take its smallest size.
    """
    if given is None:
        # Below an eighth of the published size nothing is left of an image to see.
        least = max(base.min_input_size, base.input_size // 8)
        return least, round(MOST_SIZE * base.input_size)
    low, high = given
    if low > high:
        raise ValueError(f"`--input {low}..{high}`; expected the smaller size first, such as {high}..{low}")
    if low < base.min_input_size:
        raise ValueError(
            f"`--input {low}..{high}`; {base.network} takes at least {base.min_input_size} px a side"
        )
    return low, high


def search(curve: Curve, value: Value, budget: Budget, *, fine: bool = True) -> Found:
    """The candidate near a curve that uses a budget best.

    Raises:
        ValueError: the family does not reach the budget, or two budgets contradict each other.
    """
    asked = budget.asked
    phis = {kind: find_phi(curve, value, kind, limit) for kind, limit in asked.items()}
    kind = min(phis, key=lambda each: phis[each])
    sized = any(each != "params" for each in asked)
    candidates = curve.near(phis[kind], fine=fine, sized=sized)
    best = choose(candidates, curve.distance, value, budget)
    # Rounding may have made all that is near too expensive.
    phi = phis[kind]
    while best is None and phi > PHI[0]:
        phi -= 0.05
        best = choose(curve.near(phi, fine=fine, sized=sized), curve.distance, value, budget)
    if best is None:
        raise _out_of_range(curve, value, kind, asked[kind])
    if fine and max(value(each, best) / limit for each, limit in asked.items()) < 1.0 - 3 * CLOSE:
        # Channels are rounded, so that most widths cost the same as their neighbours.
        more = curve.near(phi, fine=True, sized=sized, spread=WIDER)
        best = choose([best, *more], curve.distance, value, budget) or best
    check_agreement(curve, value, budget, best)
    return Found(best, curve.phi_of(best))


def choose(
    candidates: Iterable[Candidate], distance: Callable[[Candidate], float], value: Value, budget: Budget
) -> Candidate | None:
    """The best of some candidates; None where none is within the budget.

    Of those that leave at most `CLOSE` of a budget, the nearest to the curve; else the one that leaves least.
    """
    fitting: list[tuple[float, float, Candidate]] = []
    for candidate in candidates:
        use = max(value(kind, candidate) / limit for kind, limit in budget.asked.items())
        if use <= 1.0:
            fitting.append((use, distance(candidate), candidate))
    if not fitting:
        return None
    close = [each for each in fitting if each[0] >= 1.0 - CLOSE]
    if close:
        return min(close, key=lambda each: (round(each[1], 9), -each[0], each[2]))[2]
    return max(fitting, key=lambda each: (each[0], -each[1], each[2]))[2]


def check_agreement(curve: Curve, value: Value, budget: Budget, best: Candidate) -> None:
    """Refuses budgets of which the tightest leaves another one nearly unused.

    Raises:
        ValueError: they contradict each other.
    """
    uses = {kind: value(kind, best) / limit for kind, limit in budget.asked.items()}
    tight, loose = max(uses, key=lambda kind: uses[kind]), min(uses, key=lambda kind: uses[kind])
    if uses[loose] < SLACK:
        raise ValueError(
            f"{budget} contradict each other: by the rule {curve.rule.name}, {curve.base.network} at "
            f"{say_amount(tight, value(tight, best))} {tight} has "
            f"{say_amount(loose, value(loose, best))} {loose}, {uses[loose]:.0%} of what was asked; "
            "give one of them, or another rule"
        )


def find_phi(curve: Curve, value: Value, kind: str, limit: float) -> float:
    """Where on a curve a cost reaches a limit, to a twentieth of a step or so.

    Raises:
        ValueError: it does so nowhere.
    """

    def miss(phi: float) -> float:
        return math.log2(limit / value(kind, curve.at(phi)))

    phi, rest, least, most = 0.0, 0.0, 0.0, 0.0
    low, high = PHI
    for _ in range(24):
        rest = miss(phi)
        if rest >= 0:
            low, least = phi, rest
        else:
            high, most = phi, rest
        if 0 <= rest < 0.01 or high - low < 0.02 or low == PHI[1] or high == PHI[0]:
            break
        if low == PHI[0] or high == PHI[1]:
            # One end is open: a step of phi doubles the cost, about.
            phi = min(max(phi + 1.2 * rest + math.copysign(0.05, rest), PHI[0]), PHI[1])
        else:
            # Rounding makes the cost jump, so that the straight line between the ends is kept off them.
            share = least / (least - most)
            phi = low + (high - low) * min(max(share, 0.15), 0.85)
    if high == PHI[0] or (low == PHI[1] and rest > 0):
        raise _out_of_range(curve, value, kind, limit)
    return low


def _out_of_range(curve: Curve, value: Value, kind: str, limit: float) -> ValueError:
    ends: list[str] = []
    for name, phi in zip(("smallest", "largest"), PHI, strict=True):
        candidate = curve.at(phi)
        cost = say_amount(kind, value(kind, candidate))
        ends.append(f"its {name} has {cost} ({say_candidate(curve.base, candidate)})")
    first = value(kind, curve.at(PHI[0]))
    what = "does not change it" if first == value(kind, curve.at(PHI[1])) else "does not reach it"
    return ValueError(
        f"`--{kind} {say_amount(kind, limit)}`: {curve.base.network} by the rule {curve.rule.name} {what}: "
        f"{' and '.join(ends)}"
    )


def say_candidate(base: Base, candidate: Candidate) -> str:
    """A candidate's knobs, for messages: "depth 1.2, width 1.1, 240 px"."""
    parts = [
        f"{name} {value:g}"
        for name, value in zip(("depth", "width"), candidate, strict=False)
        if name in base.knobs
    ]
    return ", ".join([*parts, f"{candidate.input_size} px"])


def exact_value(model: CostModel, batch_size: int) -> Value:
    """The costs that need no measurement: MACs, parameters and bytes."""

    def value(kind: str, candidate: Candidate) -> float:
        if kind == "memory":
            return model.memory(candidate, batch_size)
        costs = model(candidate)
        return costs.macs if kind == "macs" else costs.params

    return value
