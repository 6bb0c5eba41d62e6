"""The spaces by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from convatlas.errors import unknown
from convatlas.search.architecture import Architecture, Categorical, Space, SpaceError
from convatlas.search.cell_spaces import AMOEBANET_OPS, NASNET_OPS, TINY_OPS, CellSpace, Space201
from convatlas.search.mobile_space import MobileSpace


def _nasnet(**options: Any) -> Space:
    return CellSpace("nasnet", options.pop("blocks", 5), NASNET_OPS, **options)


def _amoebanet(**options: Any) -> Space:
    return CellSpace("amoebanet", options.pop("blocks", 5), AMOEBANET_OPS, **options)


def _tiny(**options: Any) -> Space:
    return CellSpace("tiny", options.pop("blocks", 2), TINY_OPS, shared=True, **options)


SPACES: Mapping[str, Callable[..., Space]] = {
    "nasnet": _nasnet,
    "amoebanet": _amoebanet,
    "tiny": _tiny,
    "nasbench201": Space201,
    "mobile": MobileSpace,
}
"""What makes each space."""


def find_space(space: str | Space | Mapping[str, Any], **options: Any) -> Space:
    """The space that is meant.

    Args:
        space: a name; a `Space`; or a mapping from each variable to its values.
        options: of the space, such as `cells` and `chans`; for names alone.

    Raises:
        UnknownNameError: no space of that name, or no such option; names the nearest.
        SpaceError: it is none of these.
    """
    if isinstance(space, str):
        if space not in SPACES:
            raise unknown("space", space, SPACES)
        try:
            return SPACES[space](**options)
        except TypeError as error:
            raise SpaceError(f"space {space}: {error}") from None
    if options:
        raise SpaceError(f"options {sorted(options)} are for spaces by name; received {space!r}")
    if isinstance(space, Mapping):
        return Categorical(space)
    needed = ("name", "variables", "values", "text", "choices_of", "key", "sample", "mutate", "neighbours")
    missing = [name for name in needed if not hasattr(space, name)]
    if missing:
        raise SpaceError(
            f"`space`={space!r} has no {', '.join(missing)}; expected a name ({', '.join(SPACES)}), "
            "a mapping from variables to values, or a subclass of convatlas.search.Space"
        )
    return space


def parse(space: str | Space | Mapping[str, Any], text: str) -> Architecture:
    """The architecture that a text form means.

    Args:
        space: a name, a `Space`, or a mapping from each variable to its values.
        text: as `architecture.text` writes it.

    Raises:
        ValueError: the space is unknown, or the text does not parse; says where and what is allowed there.
    """
    found = find_space(space)
    return Architecture(found, found.choices_of(text))
