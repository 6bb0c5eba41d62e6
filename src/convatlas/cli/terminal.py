"""What the commands that print tables know of the terminal."""

from __future__ import annotations

import os
import shutil
import sys

from convatlas.tables import WIDTH

UNBOUNDED = 1_000_000
"""Columns of what is no terminal: a pipe or a file, in which tables are as wide as they are."""


def terminal(to_file: bool) -> tuple[int, bool]:
    """Columns, and whether to colour."""
    if to_file or not sys.stdout.isatty():
        return UNBOUNDED, False
    return shutil.get_terminal_size((WIDTH, 24)).columns, "NO_COLOR" not in os.environ
