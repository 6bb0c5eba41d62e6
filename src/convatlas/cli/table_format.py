"""`--format`, and `--json` for short: how a command prints its table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from convatlas.cli.terminal import terminal
from convatlas.escape import json_text
from convatlas.tables import Grid, grid_html, grid_latex, grid_markdown, grid_text, records_csv

Form = Literal["table", "json", "csv", "md", "latex", "html"]

_FORM_HELP = "table, json and csv with exact values, md (Markdown), latex (for the package booktabs) or html."


@Parameter(name="*")
@dataclasses.dataclass(frozen=True)
class TableFormat:
    """How a command prints its table.

    Attributes:
        form: as `--format` was given; None where it was not.
        json: whether `--json` was given.
    """

    form: Annotated[Form | None, Parameter(name="--format", help=_FORM_HELP, show_default=False)] = None
    json: Annotated[bool, Parameter(name="--json", negative="", help="Short for --format json.")] = False

    def chosen(self) -> Form:
        """The format that was asked for.

        Raises:
            ValueError: if two are asked for.
        """
        if self.json and self.form not in (None, "json"):
            raise ValueError(f"`--json` and `--format {self.form}` are both given; expected one of them")
        return "json" if self.json else self.form or "table"


TABLE = TableFormat()
"""The default: a table for people."""


def render(
    form: Form,
    grid: Grid,
    *,
    records: Sequence[Mapping[str, Any]],
    title: str = "",
    everything: Any = None,
    to_file: bool = False,
) -> str:
    """A table in a format.

    Args:
        form: the format.
        grid: cells as people read them, for `table`, `md`, `latex` and `html`.
        records: exact values of each row, for `csv` and `json`.
        title: for the comment above a LaTeX table.
        everything: for `json`, where a command knows more than its table shows.
        to_file: whether the text goes into a file, which has no width and no colours.
    """
    if form == "json":
        return json_text(list(records) if everything is None else everything, indent=2) + "\n"
    if form == "csv":
        return records_csv(records)
    if form == "table":
        width, color = terminal(to_file)
        return grid_text(grid, width=width, color=color)
    if form == "latex":
        return grid_latex(grid, title)
    return grid_markdown(grid) if form == "md" else grid_html(grid) + "\n"
