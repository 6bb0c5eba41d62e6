"""Evaluations by a user's function, and the seeds of all evaluations. Needs no training."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from convatlas.search.architecture import Architecture, Space


def training_seed(seed: int, key: str, repeat: int) -> int:
    """The seed of a training: of the study, the architecture and which repeat it is; not of when it comes."""
    digest = hashlib.sha256(f"{seed} {key} {repeat}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@dataclasses.dataclass(frozen=True)
class FunctionEvaluator:
    """Evaluates by a user's function, in the worker processes.

    Attributes:
        space: of the architectures.
        function: of an architecture and a seed; importable in another process.
    """

    space: Space
    function: Callable[[Architecture, int], float]

    def __call__(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The function's value for the architecture of a task."""
        found = Architecture(self.space, self.space.choices_of(task["text"]))
        seed = training_seed(task["seed"], found.key, int(task.get("repeat", -1)))
        return {"value": float(self.function(found, seed))}
