"""Errors that a user can cause and mend. They need no torch, and the command line shows them as one line."""

import difflib
from collections.abc import Iterable


class UnknownNameError(ValueError):
    """A name that does not exist; the message says what was received and what is nearest to it."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The three names most like `name`, joined by commas."""
    return ", ".join(difflib.get_close_matches(name, list(known), n=3, cutoff=0.0))


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownNameError:
    """The one error for a name that does not exist.

    Args:
        kind: what it should name, for example "network".
        name: as received.
        known: the names that exist.
        hint: what to do, for example the command that lists them.
    """
    return UnknownNameError(f"unknown {kind} {name!r}; nearest: {nearest(name, known)}{hint and '; '}{hint}")
