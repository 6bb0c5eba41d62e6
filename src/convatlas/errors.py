"""Errors that a user can cause and mend. They need no torch, and the command line shows them as one line."""

import difflib
from collections.abc import Iterable


class UnknownNameError(ValueError):
    """A name that does not exist; the message says what was received and what is nearest to it."""


# Least likeness, of 0 to 1, of two names that are near; that of `fp8` and `fp32` is 0.57.
NEAR = 0.5


def fold_name(name: str) -> str:
    """A name without what people write differently: capitals, and separators of words."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def nearest(name: str, known: Iterable[str]) -> str:
    """Up to three names that begin with `name` or are much like it, joined by commas; "none" without any.

    Capitals and separators do not count.
    """
    names = list(known)
    start = fold_name(name)
    family = [each for each in names if len(start) >= 3 and fold_name(each).startswith(start)]
    lower = {each.casefold(): each for each in reversed(names)}
    close = difflib.get_close_matches(name.casefold(), list(lower), n=3, cutoff=NEAR)
    return ", ".join(list(dict.fromkeys([*family[:3], *(lower[each] for each in close)]))[:3]) or "none"


def most_alike(name: str, known: Iterable[str]) -> str:
    """The name that is most like `name`, however little that is."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]


FEW = 12
"""Names that a message lists in full, where none is near."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """The one error for a name that does not exist.

    Args:
        kind: what it should name, for example "network".
        name: as received.
        known: the names that exist.
        hint: what to do, for example the command that lists them.
    """
    names = list(known)
    near = nearest(name, names)
    if near != "none":
        near = f"; nearest: {near}"
    else:
        near = f"; expected {', '.join(names)}" if len(names) <= FEW and not hint else ""
    return UnknownNameError(f"unknown {kind} {name!r}{near}{hint and '; '}{hint}")
