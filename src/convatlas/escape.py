r"""Text of unknown origin (class, file, network and run names, messages) made safe for where it is shown.

Names come from files, so that they may hold anything: control characters that a terminal obeys, formulas
that a spreadsheet runs, markup that a browser runs. `plain` shows each as the characters that it consists
of, in the notation of the target. What no target can show (control characters, invisible formatting such as
the override of the writing direction, bytes that are not UTF-8) becomes a backslash escape: `\x1b`.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TextIO

Target = Literal["terminal", "csv", "markdown", "html", "svg", "latex", "figure"]

# Of the characters without a shape of their own, those that join letters and emoji.
JOINERS = "\u200c\u200d"
# Control, format, surrogate, line separator and paragraph separator, as Unicode's categories.
HIDDEN = frozenset(["Cc", "Cf", "Cs", "Zl", "Zp"])
# What a spreadsheet takes for the start of a formula, in any width; a number alone is none.
FORMULA = re.compile(r"\s*[=+\-@\uff0b\uff0d\uff1d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# What begins markup inside a line (a `_` within a word does not), and what makes a link of a bare address.
MARKDOWN = re.compile(r"[\\`*\[\]|~$@]|\b_\B|\B_|:(?=//)|(?<=www)\.", re.IGNORECASE | re.ASCII)
# What begins a heading, a list or a quotation, where the text comes first in its line.
MARKDOWN_START = re.compile(r"[#+\-=>]|\d+(?=[.)])", re.ASCII)
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    '"': r"\textquotedbl{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
} | {letter: "\\" + letter for letter in "{}$&#_%"}
# Colours, and how a progress display moves within its own lines: all that a terminal is sent on purpose.
CONTROLS = re.compile(r"\x1b\[(?:[0-9;]*m|[0-9]*[ABG]|2?K|\?25[hl])")


def plain(text: object, target: Target = "terminal") -> str:
    r"""One line that shows `text` on the target and does nothing else there.

    Args:
        text: a name or message; anything else is taken as `str` writes it.
        target: "terminal" for any plain text, "csv" for a cell (which the csv module quotes), "markdown",
            "html" for text and attribute values, "svg", "latex", "figure" for matplotlib, where `$` begins
            a formula.

    Returns:
        The text; on a terminal, `plain` of it is the same text again.

    Raises:
        ValueError: if the target is unknown.
    """
    if target not in _WRITERS:
        raise ValueError(f"`target`={target!r}; allowed are {', '.join(_WRITERS)}")
    return _WRITERS[target](_visible(str(text)))


def plain_row(values: Iterable[object]) -> list[object]:
    """A row for the csv module: texts are made plain, numbers and None stay as they are."""
    return [plain(value, "csv") if isinstance(value, str) else value for value in values]


def json_text(value: Any, indent: int | None = None) -> str:
    r"""JSON in which hidden characters of any text are written as `\uXXXX`: it reads back as the same value.

    Raises:
        TypeError: if the value is nothing that JSON can hold.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(
        letter if letter == "\n" or not _is_hidden(letter) else _json_escape(letter) for letter in text
    )


class GuardedStream:
    """A text stream that escapes hidden characters in whatever is written to it.

    The last defence of the command line: names are made plain where they are written, and what was
    forgotten is escaped here. Newlines and tabs pass; on a terminal, colours and the movements of a
    progress display too.

    Args:
        stream: where the text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes `text`, escaped; returns its length."""
        if not text.isprintable():
            text = "".join(self._pieces(text))
        self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each line, escaped."""
        for line in lines:
            self.write(line)

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        if self._stream.isatty():
            for control in CONTROLS.finditer(text):
                yield from map(_shown, text[start : control.start()])
                yield control[0]
                start = control.end()
        yield from map(_shown, text[start:])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(_escape(letter) if _is_hidden(letter) else letter for letter in text)


def _shown(letter: str) -> str:
    return letter if letter in "\n\t" or not _is_hidden(letter) else _escape(letter)


def _is_hidden(letter: str) -> bool:
    if letter in JOINERS:
        return False
    # The last two code points of each plane are no characters, and XML forbids them.
    return unicodedata.category(letter) in HIDDEN or ord(letter) & 0xFFFE == 0xFFFE


def _escape(letter: str) -> str:
    code = ord(letter)
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(letter)
    return short or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )


def _json_escape(letter: str) -> str:
    return json.dumps(letter)[1:-1] if ord(letter) != 0x7F else "\\u007f"


def _csv(text: str) -> str:
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def _markdown(text: str) -> str:
    escaped = MARKDOWN.sub(r"\\\g<0>", text.replace("&", "\0").replace("<", "\1"))
    start = MARKDOWN_START.match(escaped)
    if start:
        place = start.end() if start[0].isdecimal() else 0
        escaped = f"{escaped[:place]}\\{escaped[place:]}"
    # Spaces at the ends and in runs would be lost, and of other spaces those at the ends.
    escaped = re.sub(r"^ | $|(?<= ) |[^\S ]", lambda space: f"&#{ord(space[0])};", escaped)
    return escaped.replace("\0", "&amp;").replace("\1", "&lt;")


def _html(text: str) -> str:
    return html.escape(text, quote=True)


def _latex(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)


def _figure(text: str) -> str:
    return text.replace("$", r"\$")


def _same(text: str) -> str:
    return text


_WRITERS: dict[str, Callable[[str], str]] = {
    "terminal": _same,
    "csv": _csv,
    "markdown": _markdown,
    "html": _html,
    "svg": _html,
    "latex": _latex,
    "figure": _figure,
}
