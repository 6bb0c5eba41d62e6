"""The clauses of a claim: each an effect with its direction or its equivalence margin, stated beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

MIN_SEEDS = 3
"""Fewest independent values from which a verdict is given."""

MIN_PROCESSES = 10
"""Fewest fresh processes from which a verdict on a time is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clause:
    """One clause of a claim. Exactly one of `above`, `below` and `within` is given.

    Attributes:
        name: short, unique within the study.
        says: the clause in words.
        measure: the number that decides it, for example "test error, plain-56 minus plain-20".
        unit: of the number.
        above: the effect is claimed to be larger than this.
        below: the effect is claimed to be smaller than this; a margin of "no worse".
        within: the effect is claimed to lie between minus this and this; a margin of equivalence.
        arms: weight of each arm's error rate in the effect, for an effect that is a contrast of arms; None
            for
            one that the study measures itself.
        split: images on which the arms' errors are counted.
        needs: fewest independent values (seeds, or fresh processes) for a verdict.
        published: the source's own number.
        decides: the verdict rests on it; False for an effect that is only reported.
    """

    name: str
    says: str
    measure: str
    unit: str = "points"
    above: float | None = None
    below: float | None = None
    within: float | None = None
    arms: Mapping[str, float] | None = None
    split: Literal["test", "train"] = "test"
    needs: int = MIN_SEEDS
    published: str = ""
    decides: bool = True

    def __post_init__(self) -> None:
        """Checks that one direction or margin is stated.

        Raises:
            ValueError: if none or several of `above`, `below` and `within` are given, `within` is not above
                0, or the weights of a contrast do not add up to 0.
        """
        given = [name for name in ("above", "below", "within") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"clause {self.name!r}: `above`, `below`, `within`: {', '.join(given) or 'none'} given; "
                "expected exactly one"
            )
        if self.within is not None and not self.within > 0.0:
            raise ValueError(f"clause {self.name!r}: `within`={self.within}; expected a margin above 0")
        if self.arms is not None and abs(sum(self.arms.values())) > 1e-9:
            raise ValueError(f"clause {self.name!r}: the weights of `arms` must add up to 0")
        if self.needs < 2:
            raise ValueError(
                f"clause {self.name!r}: `needs`={self.needs}; an interval needs at least 2 values"
            )

    @property
    def expects(self) -> str:
        """The direction or margin in words."""
        if self.above is not None:
            return f"more than {self.above:g}"
        if self.below is not None:
            return f"less than {self.below:g}"
        return f"within {self.within:g} of 0"


def difference(first: str, second: str) -> dict[str, float]:
    """The contrast of two arms: the error of the first minus that of the second."""
    return {first: 1.0, second: -1.0}
