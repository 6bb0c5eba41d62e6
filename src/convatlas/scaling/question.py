"""What is asked of the planner."""

from __future__ import annotations

import dataclasses

from convatlas.scaling.budget import Budget
from convatlas.scaling.families import Base
from convatlas.scaling.latency import AUTO
from convatlas.scaling.search import Space


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of the planner, with all names resolved.

    Attributes:
        base: the network that is scaled.
        budget: the most that it may cost.
        sizes: smallest and largest input, in px.
        batch_size: B of latency and memory.
        engine: that latency is for, or "auto".
        space: networks to choose from; None for those near the rule's curve.
        threads: that work on a batch; None for torch's own number.
    """

    base: Base
    budget: Budget
    sizes: tuple[int, int]
    batch_size: int = 1
    engine: str = AUTO
    space: Space | None = None
    threads: int | None = None
