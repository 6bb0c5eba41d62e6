"""Scaling: the network of a family for a budget of MACs, parameters, memory or milliseconds."""

from .budget import Budget, read_amount
from .families import FAMILIES, open_base
from .grid import GridResult, grid_search
from .plan import Plan, compare_rules, describe, plan
from .rules import RULES, Rule, Scale, compound, shares
from .search import Space

__all__ = [
    "FAMILIES",
    "RULES",
    "Budget",
    "GridResult",
    "Plan",
    "Rule",
    "Scale",
    "Space",
    "compare_rules",
    "compound",
    "describe",
    "grid_search",
    "open_base",
    "plan",
    "read_amount",
    "shares",
]
