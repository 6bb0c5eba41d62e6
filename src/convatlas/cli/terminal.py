"""What the commands that print tables know of the terminal."""

from __future__ import annotations

import os
import shutil
import sys

from convatlas.sizing.grids import WIDTH


def terminal(to_file: bool) -> tuple[int, bool]:
    """Columns, and whether to colour: 100 and no where output is no terminal."""
    if to_file or not sys.stdout.isatty():
        return WIDTH, False
    return shutil.get_terminal_size((WIDTH, 24)).columns, "NO_COLOR" not in os.environ
