"""Search for a cell, in the spaces that gave NASNet and EfficientNet-B0 or in one of your own."""

from convatlas.search.algorithms import Algorithm, History, Problem
from convatlas.search.architecture import Architecture, Categorical, Space, Task
from convatlas.search.known import KNOWN, Known
from convatlas.search.loop import SearchResult, run_search
from convatlas.search.spaces import SPACES, find_space, parse

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
    "Task",
    "find_space",
    "parse",
    "run_search",
]
