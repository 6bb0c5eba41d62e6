"""The table of a network as HTML: a line with its figure, its numbers and what scripts need to light it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from convatlas.escape import plain
from convatlas.sizing import Sheet
from convatlas.sizing.outline import mib

from . import phrases
from .outline import Line
from .spine import spine

_BAR = 56


def body(lines: Sequence[Line], pointed: str) -> str:
    """The `tbody` of a sheet.

    Args:
        lines: what is shown.
        pointed: key of the line that is lit.
    """
    counted = [line for line in lines if line.kind != "stage"] or list(lines)
    most = (
        max((line.params for line in counted), default=0),
        max((line.macs for line in counted), default=0),
        max((line.bytes_written for line in counted), default=0),
    )
    summary = len(counted) < len(lines)
    rows = [
        _row(line, figure, most, line.key == pointed, summary)
        for line, figure in zip(lines, spine(lines), strict=True)
    ]
    return "".join(rows)


def foot(sheet: Sheet) -> str:
    """The line of totals."""
    macs = phrases.grouped(sheet.macs) + ("" if sheet.macs_counted else "+")
    return (
        '<tr><td class="figc"></td><th scope="row">Whole network</th>'
        '<td class="what"></td><td data-measure="shape"></td>'
        f'<td class="num" data-measure="params">{phrases.grouped(sheet.params)}</td>'
        f'<td class="num" data-measure="macs">{macs}</td>'
        f'<td class="num" data-measure="memory">{mib(sheet.activation_bytes)}</td>'
        '<td class="num" data-measure="rf"></td></tr>'
    )


def _row(line: Line, figure: str, most: tuple[int, int, int], pointed: bool, summary: bool) -> str:
    stage = line.kind == "stage" and summary
    classes = " ".join(
        name
        for name, on in (
            ("st", stage),
            ("op", line.kind == "operation"),
            ("on", pointed),
            ("skips", line.unread),
        )
        if on
    )
    key = escape(plain(line.key))
    values = (
        ("params", "p", line.params, phrases.grouped(line.params)),
        ("macs", "m", line.macs, phrases.grouped(line.macs) + ("" if line.macs_counted else "+")),
        ("memory", "y", line.bytes_written, mib(line.bytes_written) if line.bytes_written else "–"),
    )
    cells = "".join(
        _measure(name, colour, value, text, largest, bar=not stage)
        for (name, colour, value, text), largest in zip(values, most, strict=True)
    )
    data = "" if stage else f' data-layer="{key}"{_field_data(line)}{_formula_data(line)}'
    focus = "" if stage else f' tabindex="{0 if pointed else -1}"'
    return (
        f'<tr class="{classes}"{data}{focus}><td class="figc">{figure}</td>'
        f'<th scope="row">{_name(line)}</th><td class="what">{escape(line.operation)}</td>'
        f'<td class="num" data-measure="shape">{phrases.shape(line.shape)}</td>{cells}'
        f'<td class="num" data-measure="rf">{"" if stage else phrases.field(line.field)}</td></tr>'
    )


def _name(line: Line) -> str:
    name = escape(plain(line.name))
    mark = (
        ' <abbr title="A strided window never reads some positions of its input">skips px</abbr>'
        if line.unread and line.kind == "operation"
        else ""
    )
    if not line.opens:
        return f"<span>{name}</span>{mark}"
    state = "true" if line.is_open else "false"
    key = escape(plain(line.key))
    return (
        f'<button type="button" class="tg" aria-expanded="{state}" data-open="{key}" id="o-{key}">'
        f"{name}</button>{mark}"
    )


def _measure(name: str, colour: str, value: int, text: str, largest: int, bar: bool) -> str:
    faint = " faint" if text == "–" else ""
    if not bar or text == "–":
        return f'<td class="num{faint}" data-measure="{name}">{text}</td>'
    long = max(0.4, _BAR * value / largest) if value and largest else 0.0
    return (
        f'<td class="num" data-measure="{name}"><div class="pair">'
        f'<svg class="bar" viewBox="0 0 {_BAR} 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="t" width="{_BAR}" height="6"/>'
        f'<rect class="{colour}" width="{long:.1f}" height="6"/></svg>'
        f"<span>{text}</span></div></td>"
    )


def _field_data(line: Line) -> str:
    """Size, stride and start of the receptive field along both axes, and the places of the map."""
    field = line.field
    if field is None or len(field.size) != 2:
        return ""
    places = list(line.shape[-2:]) if len(line.shape) == 3 else [1, 1]
    data = json.dumps([field.size, field.stride, field.start, places], separators=(",", ":"))
    return f' data-rf="{escape(data)}"'


def _formula_data(line: Line) -> str:
    if not line.formulas:
        return ""
    data = json.dumps([[name, lines] for name, lines in line.formulas], separators=(",", ":"))
    return f' data-formulas="{escape(data)}"'
