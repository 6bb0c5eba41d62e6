"""Search for a cell, in the spaces that gave NASNet and EfficientNet-B0 or in one of your own."""

import importlib
from typing import TYPE_CHECKING, Any

from convatlas.search.algorithms import Algorithm, History, Problem
from convatlas.search.architecture import Architecture, Categorical, Space, Task
from convatlas.search.known import KNOWN, Known
from convatlas.search.loop import SearchResult, run_search
from convatlas.search.spaces import SPACES, find_space, parse

if TYPE_CHECKING:
    from convatlas.search.study import Study as Study
    from convatlas.search.study import best as best
    from convatlas.search.study import report as report
    from convatlas.search.study import resume as resume
    from convatlas.search.study import run as run
    from convatlas.search.study import status as status

_STUDY = ("Study", "best", "report", "resume", "run", "status")

__all__ = [
    "KNOWN",
    "SPACES",
    "Algorithm",
    "Architecture",
    "Categorical",
    "History",
    "Known",
    "Problem",
    "SearchResult",
    "Space",
    "Study",
    "Task",
    "best",
    "find_space",
    "parse",
    "report",
    "resume",
    "run",
    "run_search",
    "status",
]


def __getattr__(name: str) -> Any:
    """Loads what needs trainings when it is first used."""
    if name not in _STUDY:
        raise AttributeError(f"module 'convatlas.search' has no attribute {name!r}")
    return getattr(importlib.import_module("convatlas.search.study"), name)
