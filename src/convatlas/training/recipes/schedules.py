"""Learning rates as closed forms of the step: there is no scheduler, so none whose state could be lost.

Every schedule answers `level(step, num_steps, warmup)`: the share of the recipe's `lr` at a step, counted
from 0 over the whole training. Places are shares of the training, so 200 epochs can be cut to 10.
"""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The same rate throughout."""

    def level(self, step: int, num_steps: int, warmup: float) -> float:
        """1."""
        return 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Constant stretches.

    Attributes:
        at: shares of the training at which the next stretch begins, rising.
        levels: share of `lr` in each stretch, one more than `at`.
    """

    at: tuple[float, ...] = (0.5, 0.75)
    levels: tuple[float, ...] = (1.0, 0.1, 0.01)

    def __post_init__(self) -> None:
        """Checks the stretches.

        Raises:
            ValueError: places are not rising shares, or there is not one level more than places.
        """
        rising = all(low < high for low, high in zip((0.0, *self.at), (*self.at, 1.0), strict=True))
        if not rising:
            raise ValueError(f"`schedule.at`={list(self.at)}; expected rising shares between 0 and 1")
        if len(self.levels) != len(self.at) + 1:
            raise ValueError(
                f"`schedule.levels`={list(self.levels)}; expected one more than `schedule.at` has, "
                f"which is {list(self.at)}"
            )
        if not all(level > 0.0 for level in self.levels):
            raise ValueError(f"`schedule.levels`={list(self.levels)}; expected numbers above 0")

    def level(self, step: int, num_steps: int, warmup: float) -> float:
        """The level of the stretch that the step lies in."""
        return self.levels[sum(step >= round(place * num_steps) for place in self.at)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential:
    """A staircase: the training is cut into equal spans, and after each the rate is multiplied by `factor`.

    Attributes:
        factor: between two spans.
        spans: how many, for example 50 for 100 epochs with a drop every 2; need not be whole.
    """

    factor: float = 0.94
    spans: float = 50.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        if not 0.0 < self.factor < 1.0:
            raise ValueError(f"`schedule.factor`={self.factor!r}; expected a number between 0 and 1")
        if not 1.0 <= self.spans < math.inf:
            raise ValueError(f"`schedule.spans`={self.spans!r}; expected a number of at least 1")

    def level(self, step: int, num_steps: int, warmup: float) -> float:
        """`factor` to the power of the spans that are over."""
        # The small number mends 7 * (3 / 7) < 3.
        return self.factor ** math.floor(step * self.spans / num_steps + 1e-9)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """After the warm-up, half a cosine to 0.

    Source: Loshchilov and Hutter 2016, "SGDR", Equation 5 with a single period.
    """

    def level(self, step: int, num_steps: int, warmup: float) -> float:
        """From 1 at the first step after the warm-up to just above 0 at the last step."""
        return 0.5 * (1.0 + math.cos(math.pi * _share_after(step, num_steps, warmup)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """After the warm-up, a straight line to 0."""

    def level(self, step: int, num_steps: int, warmup: float) -> float:
        """From 1 at the first step after the warm-up to just above 0 at the last step."""
        return 1.0 - _share_after(step, num_steps, warmup)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Straight up from `start` to 1, as long straight down again, and a straight tail to 0.

    Attributes:
        start: level at both ends of the cycle.
        tail: share of the training after the cycle.

    Source: Smith and Topin 2017, "Super-Convergence", Section 3 ("1cycle").
    """

    start: float = 0.1
    tail: float = 0.1

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range.
        """
        for name in ("start", "tail"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ValueError(f"`schedule.{name}`={value!r}; expected a share of at least 0 and below 1")

    def level(self, step: int, num_steps: int, warmup: float) -> float:
        """The level on the cycle or its tail."""
        share, half = step / num_steps, 0.5 * (1.0 - self.tail)
        if share <= 2.0 * half:
            return 1.0 - (1.0 - self.start) * abs(share / half - 1.0)
        return self.start * (1.0 - share) / self.tail


Schedule = Constant | Step | Exponential | Cosine | Linear | OneCycle


def warmed_decay(decay: float, step: int) -> float:
    """Share of a moving average that is kept at a step, counted from 0: less at first, then `decay`.

    The average begins at weights that nothing has been learnt by, and soon forgets them.

    Source: TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """
    return min(decay, (1 + step) / (10 + step))


def _share_after(step: int, num_steps: int, warmup: float) -> float:
    """How much of what follows the warm-up is over when the step begins, so that no step has a rate of 0."""
    return max(0.0, (step / num_steps - warmup) / (1.0 - warmup))
