"""A table of text, laid out for a terminal and as CSV, Markdown, LaTeX and HTML. Needs no torch."""

from __future__ import annotations

import csv
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from convatlas.escape import Target, plain, plain_row

WIDTH = 100


class Grid(NamedTuple):
    """A table of text.

    Attributes:
        columns: titles, unit included.
        left: how many of the first columns hold words; numbers follow, set flush right.
        rows: cells.
        total: the last line; empty for none.
        notes: lines under each row, such as formulas; empty for none at all.
        tail: how many of the last columns hold words too.
        ruled: whether a line stands under the titles.
        lesser: titles of the columns that a narrow terminal does without, first what goes first.
    """

    columns: tuple[str, ...]
    left: int
    rows: list[tuple[str, ...]]
    total: tuple[str, ...]
    notes: list[tuple[str, ...]]
    tail: int = 0
    ruled: bool = True
    lesser: tuple[str, ...] = ("depth", "% MACs", "MiB out", "RF px", "params")

    def is_words(self, column: int) -> bool:
        """Whether a column holds words, which may go on in the next line, rather than numbers."""
        return column < self.left or column >= len(self.columns) - self.tail


def grid_text(table: Grid, *, width: int = WIDTH, color: bool = False) -> str:
    """A table for a terminal of `width` columns, in which no word and no number is broken.

    Where there is no room, cells of words go on below between words; then columns of lesser interest are left
    out; then each row stands as a block of its own, one line for each cell.
    """
    found = _fitting(_plain(table, "terminal"), width)
    style = _Style(*(("\033[1m", "\033[2m", "\033[0m") if color else ("", "", "")))
    if found is None:
        return _blocks(_plain(table, "terminal"), width, style)
    table, widths, dropped = found
    rule = "-" * (sum(widths) + _GAP * (len(widths) - 1))
    head = [style.bold + line + style.reset for line in _laid_out(table.columns, widths, table)]
    lines = [*head, *([rule] if table.ruled else [])]
    for i, cells in enumerate(table.rows):
        lines += _laid_out(cells, widths, table)
        lines += _notes(table, i, width, style)
    if table.total:
        lines += [rule, *_laid_out(table.total, widths, table)]
    if dropped:
        lines += wrapped(f"No room for: {', '.join(dropped)}", max(width, 20))
    return "\n".join(lines) + "\n"


def _plain(table: Grid, target: Target) -> Grid:
    """The same table with every text as the target shows it."""

    def row(cells: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(plain(cell, target) for cell in cells)

    rows, notes = [*map(row, table.rows)], [*map(row, table.notes)]
    return table._replace(columns=row(table.columns), rows=rows, total=row(table.total), notes=notes)


class _Style(NamedTuple):
    bold: str
    dim: str
    reset: str


_GAP = 2


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Lines of at most `width` columns, unless a single word is longer; broken between words only."""
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def _notes(table: Grid, row: int, width: int, style: _Style) -> list[str]:
    notes = table.notes[row] if table.notes else ()
    lines = [line for note in notes for line in wrapped(note, max(width - 4, 20), "  ")]
    return [f"    {style.dim}{line}{style.reset}" for line in lines]


def _fitting(table: Grid, width: int) -> tuple[Grid, list[int], list[str]] | None:
    """The table, without columns for which there is no room, its columns' widths, and what was left out."""
    dropped: list[str] = []
    for title in (*table.lesser, None):
        widths = _widths(table, width)
        if widths is not None:
            return table, widths, dropped
        if title in table.columns:
            dropped.append(str(title))
            table = _without(table, table.columns.index(title))
    return None


def _without(table: Grid, column: int) -> Grid:
    def cut(cells: tuple[str, ...]) -> tuple[str, ...]:
        return cells[:column] + cells[column + 1 :]

    columns, rows, total = cut(table.columns), [*map(cut, table.rows)], cut(table.total)
    tail = table.tail - (column >= len(table.columns) - table.tail)
    return table._replace(columns=columns, rows=rows, total=total, tail=tail)


def _widths(table: Grid, width: int) -> list[int] | None:
    """Widths of the columns that fit, as wide as their cells where there is room; None if none do."""
    widths, least = [len(title) for title in table.columns], [_longest_word(title) for title in table.columns]
    lines = [*table.rows, *([table.total] if table.total else [])]
    for cells in lines:
        for i, cell in enumerate(cells):
            widths[i] = max(widths[i], len(cell))
            least[i] = max(least[i], _longest_word(cell) if table.is_words(i) else len(cell))
    room = width - _GAP * (len(widths) - 1)
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((i for i, size in enumerate(widths) if size > least[i]), key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _laid_out(cells: Sequence[str], widths: list[int], table: Grid) -> list[str]:
    parts = [
        [line if table.is_words(i) else line.rjust(size) for line in wrapped(cell, max(size, 1))]
        for i, (cell, size) in enumerate(zip(cells, widths, strict=True))
    ]
    lines = itertools.zip_longest(*parts, fillvalue="")
    return [
        (" " * _GAP).join(part.ljust(size) for part, size in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def _blocks(table: Grid, width: int, style: _Style) -> str:
    """Each row under its name, one line for each cell."""
    lines: list[str] = []
    rows = [*table.rows, *([table.total] if table.total else [])]
    for i, cells in enumerate(rows):
        lines.append(style.bold + cells[0] + style.reset)
        for title, cell in zip(table.columns[1:], cells[1:], strict=True):
            if cell:
                lines += ["  " + line for line in wrapped(f"{title}: {cell}", max(width - 2, 20), "  ")]
        if i < len(table.rows):
            lines += _notes(table, i, width, style)
    return "\n".join(lines) + "\n"


def grid_csv(table: Grid) -> str:
    """The cells as they are shown."""
    out = io.StringIO()
    table = _plain(table, "csv")
    csv.writer(out, lineterminator="\n").writerows([table.columns, *table.rows])
    return out.getvalue()


def records_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Exact values under the keys of the first record: None is an empty cell, a shape is "3x224x224".

    Args:
        records: rows with the same keys.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(plain_row(records[0]) if records else ())
    for record in records:
        writer.writerow(plain_row(_csv_value(value) for value in record.values()))
    return out.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        separator = "; " if any(isinstance(item, str | list | tuple) for item in value) else "x"
        return separator.join(str(_csv_value(item)) for item in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}={_csv_value(item)}" for key, item in value.items())
    return "" if value is None else value


def grid_markdown(table: Grid) -> str:
    """A pipe table."""
    marks = ["---" if table.is_words(i) else "--:" for i in range(len(table.columns))]
    table = _plain(table, "markdown")
    lines = [table.columns, marks, *table.rows, *([table.total] if table.total else [])]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def grid_latex(table: Grid, title: str) -> str:
    """A `tabular` that needs the package booktabs."""
    form = "".join("l" if table.is_words(i) else "r" for i in range(len(table.columns)))

    table = _plain(table, "latex")

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    total = [r"\midrule", line(table.total)] if table.total else []
    lines = [
        f"% {plain(' '.join(title.split()))}",
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        line(table.columns),
    ]
    lines += [r"\midrule", *map(line, table.rows), *total, r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def grid_html(table: Grid) -> str:
    """A table element."""
    table = _plain(table, "html")

    def line(cells: Sequence[str], tag: str) -> str:
        sides = ["left" if table.is_words(i) else "right" for i in range(len(cells))]
        inside = (
            f"<{tag} style='text-align:{side}'>{cell}</{tag}>"
            for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    body: list[str] = []
    for i, cells in enumerate(table.rows):
        body.append(line(cells, "td"))
        notes = "<br>".join(table.notes[i]) if table.notes else ""
        if notes:
            body.append(
                f"<tr><td colspan='{len(cells)}' style='text-align:left'><small>{notes}</small></td></tr>"
            )
    foot = line(table.total, "th") if table.total else ""
    return f"<table><thead>{line(table.columns, 'th')}</thead><tbody>{''.join(body)}{foot}</tbody></table>"
