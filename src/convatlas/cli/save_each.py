"""A figure for each image, with a line for each on the terminal."""

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from convatlas.escape import plain
from convatlas.predict.outputs import Skipped

T = TypeVar("T")


def save_each(results: Iterable[T | Skipped], save: Callable[[T], str]) -> int:
    """Saves what was found and prints the line that `save` returns; what was skipped, on standard error.

    Returns:
        The exit code: 2 where an image was skipped.
    """
    refused = 0
    for found in results:
        if isinstance(found, Skipped):
            refused += 1
            print(f"convatlas: {plain(found.reason)}", file=sys.stderr)
        else:
            print(save(found))
    return 2 if refused else 0
