"""The arguments of a call under the names and in the order of PyTorch's own signatures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch


@lru_cache(maxsize=512)
def signatures(name: str) -> tuple[tuple[tuple[str, bool, Any], ...], ...]:
    """Arguments (name, keyword only, default) of each overload of the operator `aten::name`."""
    find = getattr(torch._C, "_jit_get_schemas_for_operator", None)
    if find is None:
        return ()
    return tuple(
        tuple((a.name, bool(a.kwarg_only), a.default_value) for a in schema.arguments)
        for schema in find(f"aten::{name}")
    )


def reordered(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The call with every argument that has a place in it, for each overload whose names it uses.

    Args:
        name: of the function, without the underscore of one that works in place.
        args: positional arguments.
        kwargs: keyword arguments; without any there is nothing to reorder.
    """
    if not kwargs:
        return
    for signature in signatures(name):
        places = [known for known in signature if not known[1]]
        names = ["input" if known[0] == "self" else known[0] for known in places]
        only = {known[0] for known in signature if known[1]}
        given = {("input" if key == "self" else key): value for key, value in kwargs.items()}
        if len(args) > len(names) or any(key not in names[len(args) :] and key not in only for key in given):
            continue
        wanted = max((names.index(key) + 1 for key in given if key in names), default=len(args))
        placed = [given.get(names[i], places[i][2]) for i in range(len(args), wanted)]
        yield (*args, *placed), {key: value for key, value in given.items() if key in only}
