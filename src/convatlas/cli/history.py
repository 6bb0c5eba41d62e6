"""`convatlas history`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from convatlas.drawing import Figure

CHARTS = ("depth", "ideas", "accuracy")


def history_command(
    *networks: str,
    chart: str = "depth",
    year: str | None = None,
    theme: str = "light",
    scale: float = 2.0,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> None:
    """Draw the history of convolutional networks: depth, ideas, or accuracy and what it costs.

    Depth is counted on the networks themselves: convolutions and linear layers on the longest path from input
    to output, each use once; norms, activations, poolings and gates are left out.

    Args:
        networks: For depth: networks by name (`convatlas list`); where none are given, those that published
            an error on the test set of the ImageNet challenge.
        chart: depth (layers and error by year), ideas (who introduced what, and what it builds on) or
            accuracy (against multiply-adds and memory).
        year: Year of the paper, or a range such as 2012..2015.
        theme: light, dark or print.
        scale: PNG: px of the file for each px of the figure.
        out: Write to this file, whose name ends in .svg, .png or .pdf; history-CHART.svg where not given.
        as_json: Print the data of all charts as one JSON object, for machines; nothing is drawn
            without --out.
    """
    if as_json:
        from convatlas.escape import json_text
        from convatlas.plots.history import record

        print(json_text(record(networks), indent=2))
        if out is None:
            return
    figure = _draw(networks, chart, year, theme)
    path = out or Path(f"history-{chart}.svg")
    figure.save(path, scale=scale)
    if not as_json:
        print(f"wrote {path} ({figure.width}x{figure.height} px)")


def _draw(networks: tuple[str, ...], chart: str, year: str | None, theme: str) -> Figure:
    from convatlas.catalog.index import parse_years
    from convatlas.drawing.palette import THEMES
    from convatlas.errors import unknown
    from convatlas.plots.history import draw_accuracy, draw_depth, draw_timeline

    if theme not in THEMES:
        raise unknown("theme", theme, THEMES)
    if chart not in CHARTS:
        raise unknown("chart", chart, CHARTS)
    years = None if year is None else parse_years(year)
    if networks and chart != "depth":
        raise ValueError(f"networks are named for --chart depth only; --chart {chart} shows all of them")
    if chart == "ideas":
        return draw_timeline(years=years, theme=theme)
    return (
        draw_accuracy(years=years, theme=theme)
        if chart == "accuracy"
        else draw_depth(networks, years=years, theme=theme)
    )
