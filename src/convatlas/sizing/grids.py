"""A table of text, laid out for a terminal and as CSV, Markdown, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

WIDTH = 100


class Grid(NamedTuple):
    """A table of text.

    Attributes:
        columns: titles, unit included.
        left: how many of the first columns hold words; numbers follow, set flush right.
        rows: cells.
        total: the last line; empty for none.
        notes: lines under each row, such as formulas; empty for none at all.
    """

    columns: tuple[str, ...]
    left: int
    rows: list[tuple[str, ...]]
    total: tuple[str, ...]
    notes: list[tuple[str, ...]]


def grid_text(table: Grid, *, width: int = WIDTH, color: bool = False) -> str:
    """A table for a terminal of `width` columns.

    Words wrap where there is no room; where that is not enough, columns of lesser interest are left out.
    """
    table, dropped = _fitting(table, width)
    widths = _widths(table, width)
    bold, dim, plain = ("\033[1m", "\033[2m", "\033[0m") if color else ("", "", "")
    rule = "-" * min(sum(widths) + _GAP * (len(widths) - 1), max(width, 1))
    head = [bold + line + plain for line in _laid_out(table.columns, widths, table.left)]
    lines = [*head, rule]
    for i, cells in enumerate(table.rows):
        lines += _laid_out(cells, widths, table.left)
        for note in table.notes[i] if table.notes else ():
            wrapped = textwrap.wrap(note, max(width - 4, 20), subsequent_indent="  ")
            lines += [f"    {dim}{line}{plain}" for line in wrapped]
    if table.total:
        lines += [rule, *_laid_out(table.total, widths, table.left)]
    if dropped:
        lines += textwrap.wrap(f"No room for: {', '.join(dropped)}", max(width, 20))
    return "\n".join(lines) + "\n"


# What a narrow terminal does without, first what goes first.
_LESSER = ("% MACs", "MiB out", "sees px", "params")


def _fitting(table: Grid, width: int) -> tuple[Grid, list[str]]:
    """The table without the columns for which there is no room, and their titles."""
    dropped: list[str] = []
    for title in _LESSER:
        widths = _widths(table, width)
        shapes = max(len(cells[table.left - 1]) for cells in (table.columns, *table.rows))
        if sum(widths) + _GAP * (len(widths) - 1) <= width and widths[table.left - 1] == shapes:
            break
        if title in table.columns:
            dropped.append(title)
            table = _without(table, table.columns.index(title))
    return table, dropped


def _without(table: Grid, column: int) -> Grid:
    def cut(cells: tuple[str, ...]) -> tuple[str, ...]:
        return cells[:column] + cells[column + 1 :]

    return table._replace(columns=cut(table.columns), rows=[*map(cut, table.rows)], total=cut(table.total))


_GAP = 2
_LEAST = 8


def _widths(table: Grid, width: int) -> list[int]:
    lines = [table.columns, *table.rows, *([table.total] if table.total else [])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = width - _GAP * (len(widths) - 1)
    while sum(widths) > room:
        # The last column of words holds shapes, which read badly in parts: it goes last.
        words = range(table.left)[: max(table.left - 1, 1)]
        widest = max(words, key=lambda i: widths[i])
        if widths[widest] <= _LEAST:
            widest = table.left - 1
        if widths[widest] <= _LEAST // 2:
            break
        widths[widest] -= 1
    return widths


def _laid_out(cells: Sequence[str], widths: list[int], left: int) -> list[str]:
    parts = [
        textwrap.wrap(cell, size) or [""] if i < left else [cell.rjust(size)]
        for i, (cell, size) in enumerate(zip(cells, widths, strict=True))
    ]
    lines = itertools.zip_longest(*parts, fillvalue="")
    return [
        (" " * _GAP).join(part.ljust(size) for part, size in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def grid_csv(table: Grid) -> str:
    """The cells as they are shown."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue()


def grid_markdown(table: Grid) -> str:
    """A pipe table."""
    marks = ["---" if i < table.left else "--:" for i in range(len(table.columns))]
    lines = [table.columns, marks, *table.rows, *([table.total] if table.total else [])]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: "\\" + c for c in "&%$#_{}"
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)


def grid_latex(table: Grid, title: str) -> str:
    """A `tabular` that needs the package booktabs."""
    form = "l" * table.left + "r" * (len(table.columns) - table.left)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(_latex, cells)) + r" \\"

    total = [r"\midrule", line(table.total)] if table.total else []
    lines = [
        f"% {' '.join(title.split())}",
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        line(table.columns),
    ]
    lines += [r"\midrule", *map(line, table.rows), *total, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def grid_html(table: Grid) -> str:
    """A table element."""

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ["left" if i < table.left else "right" for i in range(len(cells))]
        inside = (
            f"<{tag} style='text-align:{side}'>{html.escape(cell)}</{tag}>"
            for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    body: list[str] = []
    for i, cells in enumerate(table.rows):
        body.append(line(cells, "td"))
        notes = "<br>".join(map(html.escape, table.notes[i])) if table.notes else ""
        if notes:
            body.append(
                f"<tr><td colspan='{len(cells)}' style='text-align:left'><small>{notes}</small></td></tr>"
            )
    foot = line(table.total, "th") if table.total else ""
    return f"<table><thead>{line(table.columns, 'th')}</thead><tbody>{''.join(body)}{foot}</tbody></table>"
