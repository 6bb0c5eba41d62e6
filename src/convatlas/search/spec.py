"""What a search is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from convatlas.search.architecture import Architecture, Space, SpaceError, Task
from convatlas.search.costs import Costs
from convatlas.search.loop import check_whole
from convatlas.search.spaces import find_space

VERSION = 1
"""Of the store and of what decides a trajectory."""


@dataclasses.dataclass(frozen=True)
class SearchSpec:
    """A search, in words and numbers; two searches with the same propose the same architectures.

    Attributes:
        space: name of the space.
        space_options: such as `cells` and `chans`.
        algorithm: name of the algorithm.
        options: its fields.
        evaluations: architectures that are tried.
        seed: of proposals, trainings and the split.
        lag: how many jobs back the newest result lies that a proposal knows; the most workers that can work.
        rungs: epochs of each rung, rising; one number for no early stopping.
        data: name of the data set.
        recipe: how candidates are trained.
        settings: fields of the recipe that are changed.
        validation_share: share of the training images that candidates are measured on.
        train_images: at most so many images are trained on; None for all.
        max_macs: multiply-adds; None for no limit.
        max_params: parameters.
        max_memory: bytes of parameters and activations in float32.
        max_latency: seconds for one image.
        engine: what latency is measured with: "auto" for the fastest here, or an engine's name.
    """

    space: str = "tiny"
    space_options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    algorithm: str = "model"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    evaluations: int = 100
    seed: int = 0
    lag: int = 8
    rungs: tuple[int, ...] = (3,)
    data: str = "fashion-mnist"
    recipe: str = "modern"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    validation_share: float = 0.2
    train_images: int | None = None
    max_macs: float | None = None
    max_params: float | None = None
    max_memory: float | None = None
    max_latency: float | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: one is out of its range.
        """
        check_whole("evaluations", self.evaluations, 1)
        check_whole("seed", self.seed, 0)
        check_whole("lag", self.lag, 1)
        object.__setattr__(self, "rungs", tuple(self.rungs))
        if not self.rungs or list(self.rungs) != sorted(set(self.rungs)) or self.rungs[0] < 1:
            raise ValueError(f"`rungs`={self.rungs!r}; expected rising numbers of epochs, such as 1,3,9")
        if not 0.0 < self.validation_share < 1.0:
            raise ValueError(
                f"`validation_share`={self.validation_share!r}; expected a share between 0 and 1"
            )
        for name in ("max_macs", "max_params", "max_memory", "max_latency"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}`={value!r}; expected a number above 0")

    def find_space(self) -> Space:
        """The space, with its options."""
        return find_space(self.space, **self.space_options)

    def to_json(self) -> str:
        """As the store keeps it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def digest(self) -> str:
        """Tells searches apart."""
        return hashlib.sha256(f"{VERSION} {self.to_json()}".encode()).hexdigest()[:16]


def within(spec: SearchSpec, costs: Costs | None) -> bool:
    """Whether sizes are within the limits."""
    if costs is None:
        return True
    return (
        (spec.max_macs is None or costs.macs <= spec.max_macs)
        and (spec.max_params is None or costs.params <= spec.max_params)
        and (spec.max_memory is None or 4 * costs.params + costs.activation_bytes <= spec.max_memory)
    )


def check_limits(spec: SearchSpec, space: Space, task: Task) -> None:
    """Refuses limits that no architecture meets.

    Raises:
        ValueError: none of many architectures is within them; says the smallest that there is.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    sampled = [space.sample(rng) for _ in range(300)]
    if any(within(spec, space.costs(choices, task)) for choices in sampled):
        return
    smallest: dict[str, int] = {}
    for name in ("macs", "params", "memory"):
        if getattr(spec, f"max_{name}") is None:
            continue
        best = min(sampled, key=lambda choices: _cost(space, choices, task, name))
        improved = True
        while improved:  # Downhill, one choice at a time: costs have no local minima worth the name.
            around = min(space.neighbours(best), key=lambda choices: _cost(space, choices, task, name))
            improved = _cost(space, around, task, name) < _cost(space, best, task, name)
            best = around if improved else best
        if within(spec, space.costs(best, task)):
            return
        smallest[name] = _cost(space, best, task, name)
    said = ", ".join(
        f"`max_{name}`={getattr(spec, f'max_{name}'):,.0f} (the smallest in the space is {value:,})"
        for name, value in smallest.items()
    )
    raise SpaceError(f"space {space.name}: no architecture is within the limits: {said}")


def _cost(space: Space, choices: tuple[int, ...], task: Task, name: str) -> int:
    costs = space.costs(choices, task)
    if costs is None:
        raise SpaceError(f"space {space.name} knows no sizes, so that it can have no limits")
    return 4 * costs.params + costs.activation_bytes if name == "memory" else getattr(costs, name)


def largest(space: Space, task: Task, allowed: Any, seed: int) -> Architecture | None:
    """The size-only baseline: of a thousand architectures within the limits, the one with most parameters."""
    import numpy as np

    rng = np.random.default_rng([seed, 2])
    found = [Architecture(space, space.sample(rng)) for _ in range(1000)]
    sizes = [(costs.params, i) for i, each in enumerate(found) if (costs := each.costs(task)) is not None]
    for _, i in sorted(sizes, reverse=True):
        if allowed(found[i]):
            return found[i]
    return None


def parse_seconds(name: str, text: str) -> float:
    """Reads "2ms", "1.5s", "90s", "20m" or "2h".

    Raises:
        ValueError: it is no such time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(us|ms|s|m|h)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise ValueError(f"`{name}`={text!r}; expected a time, for example 2ms, 90s, 20m or 2h")
    return float(match[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2]]
