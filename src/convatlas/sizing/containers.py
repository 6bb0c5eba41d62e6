"""Dicts, lists and sets that modules hold: what a forward puts into them is taken out after a trace."""

from __future__ import annotations

from typing import Any

from torch import nn

Held = tuple[Any, Any]
"""A container, and a copy of what it held."""
_OWN = frozenset(nn.Module().__dict__)
"""Names of the attributes that every module has."""


def held_by(state: dict[str, Any]) -> list[Held]:
    """The containers among a module's own attributes, and those inside them, with copies.

    A cache that a forward fills, as that of TinyViT's attention biases, would otherwise hold tensors of the
    trace for the next call.

    Args:
        state: `__dict__` of a module.
    """
    found: list[Held] = []
    waiting = [state[name] for name in state.keys() - _OWN]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if type(each) not in (dict, list, set) or id(each) in seen:
            continue
        seen.add(id(each))
        found.append((each, each.copy()))
        if type(each) is not set:
            waiting += each.values() if type(each) is dict else each
    return found


def put_back(held: list[Held]) -> None:
    """Gives containers what they held.

    Args:
        held: of `held_by`.
    """
    for live, saved in held:
        if type(live) is list:
            live[:] = saved
        else:
            live.clear()
            live.update(saved)
