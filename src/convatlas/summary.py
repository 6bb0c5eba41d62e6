"""Short descriptions of results, for the Python prompt and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping

from convatlas.escape import plain

MOST_LINES = 5
"""Lines of a text, its title included."""


class Summary:
    """A result that shows itself in a few lines; a subclass says which facts."""

    def _title(self) -> str:
        """What it is, in a few words."""
        return type(self).__name__

    def _facts(self) -> Mapping[str, object]:
        """Its most important facts by name, those that a glance needs first."""
        return {}

    def __repr__(self) -> str:
        """The facts, in at most five lines."""
        facts = [(plain(name), plain(value)) for name, value in self._facts().items()]
        lines = [f"  {name}: {value[:200]}" for name, value in facts[: MOST_LINES - 1]]
        return "\n".join([plain(self._title()), *lines])

    def _repr_html_(self) -> str:
        """The facts as a table, for notebooks; without scripts, and with every name escaped."""
        rows = "".join(
            f'<tr><th style="text-align:left">{plain(name, "html")}</th>'
            f'<td style="text-align:left">{plain(value, "html")}</td></tr>'
            for name, value in self._facts().items()
        )
        return f"<div><strong>{plain(self._title(), 'html')}</strong><table>{rows}</table></div>"
