"""Canonical forms of small graphs of operations: equal for graphs that differ in the order of nodes alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

Node = tuple[tuple[int, str], ...]
"""The inputs of a node: the state that each comes from (0 and up), and the operation on the way."""


def canonical_form(nodes: Sequence[Node], inputs: int, ends: Sequence[int]) -> str:
    """A text that is the same for each order of the nodes, and of the inputs of each node.

    Nodes are sorted by what they compute. Those that compute the same are not the same node (each has its
    own weights), so each order among them is tried and the least text taken.

    Args:
        nodes: in an order in which each reads earlier states only; node i is state `inputs` + i.
        inputs: states that are given.
        ends: states that form the output, in any order.
    """
    computes: list[str] = [f"#{i}" for i in range(inputs)]
    for node in nodes:
        computes.append("(" + "+".join(sorted(f"{op}[{computes[state]}]" for state, op in node)) + ")")
    expressions = computes[inputs:]
    return min(_written(nodes, inputs, ends, order) for order in _orders(expressions))


def _orders(expressions: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """The orders of nodes that sort their expressions."""
    ranked = sorted(range(len(expressions)), key=lambda i: (len(expressions[i]), expressions[i]))
    groups = [list(group) for _, group in itertools.groupby(ranked, key=lambda i: expressions[i])]
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield tuple(itertools.chain.from_iterable(parts))


def _written(nodes: Sequence[Node], inputs: int, ends: Sequence[int], order: Sequence[int]) -> str:
    name = {i: i for i in range(inputs)} | {inputs + node: inputs + place for place, node in enumerate(order)}
    lines = ["+".join(sorted(f"{name[state]}.{op}" for state, op in nodes[i])) for i in order]
    return "/".join(lines) + ">" + ".".join(sorted(f"{name[state]}" for state in ends))
