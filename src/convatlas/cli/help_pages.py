"""The pages that `--help` prints."""

from __future__ import annotations

import dataclasses
from typing import Any

from cyclopts.help import DefaultFormatter

NOTHING = ("False", "()")
"""Defaults that say no more than that the option was not given."""


@dataclasses.dataclass(frozen=True)
class HelpPages:
    """The parser's own layout, without the defaults that say nothing."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Prints a panel."""
        for entry in panel.entries:
            if entry.default in NOTHING:
                entry.default = None
        DefaultFormatter()(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Prints the line of the usage."""
        DefaultFormatter().render_usage(console, options, usage)

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Prints what the command does."""
        DefaultFormatter().render_description(console, options, description)
