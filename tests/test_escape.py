"""Names of unknown origin, read back as the software of each target reads them."""

import csv
import html
import html.parser
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from convatlas.escape import GuardedStream, json_text, plain, plain_row
from convatlas.files import write_atomic, write_json

HOSTILE = [
    "\x1b]0;owned\x07",
    "\x1b[2J\x9b31m",
    "=cmd|' /C calc'!A0",
    "\t=1+1",
    "@SUM(A1)",
    "-2+3",
    "\uff1d1+1",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;b&gt; &amp;",
    "[a](javascript:alert(1)) ![x](y)",
    "`code` *a* _b_ __c__ ~~d~~ <e> | f",
    "http://x.y www.x.y a@b.c",
    "# heading\n\n| a |\n|---|",
    "1. one",
    "2) two",
    "- item",
    "+ item",
    "=====",
    "> quote",
    "$x^2$ $$y$$ \\$z",
    r"\input{/etc/passwd} \n #1 50% ~ ^ {",
    "  two  spaces  ",
    "user\u202egnp.exe",
    "zero\u200bwidth\ufeff\u00ad\U000e0041",
    "line\u2028sep\u2029\x85\r\n",
    "caf\udce9.png",
    "\ufffe\uffff\U0001ffff\x00\x7f",
    "snow_man ☃ 猫 👩\u200d👩\u200d👧 नमस्ते",
    "resnet20_cifar",
    "",
    " ",
]


def cases(test):
    """Every hostile name, and any text that hypothesis finds."""
    for name in HOSTILE:
        test = example(name)(test)
    return settings(max_examples=60, deadline=None)(given(st.text(max_size=30))(test))


@cases
def test_nothing_hidden_is_left_on_a_terminal(name: str) -> None:
    shown = plain(name)
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", shown
    )
    assert plain(shown) == shown
    shown.encode()


@cases
def test_a_cell_is_no_formula_and_stays_one_cell(name: str) -> None:
    text = io.StringIO()
    csv.writer(text).writerow(plain_row([name, 3, None, -1.5]))
    rows = list(csv.reader(io.StringIO(text.getvalue(), newline="")))
    assert len(rows) == 1
    cell, *numbers = rows[0]
    assert numbers == ["3", "", "-1.5"]
    number = re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", cell)
    assert number or not cell.lstrip().startswith(
        ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
    )
    assert cell in (plain(name), f"'{plain(name)}")


class Text(html.parser.HTMLParser):
    """The text of a page, and the tags in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags = "", []
        self.feed(page)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@cases
def test_html_shows_the_name_in_text_and_attributes(name: str) -> None:
    page = Text(f'<p title="{plain(name, "html")}">{plain(name, "html")}</p>')
    assert page.text == plain(name)
    assert page.tags == [("p", {"title": plain(name)})]


@cases
def test_svg_is_well_formed(name: str) -> None:
    text = ET.fromstring(f'<svg id="{plain(name, "svg")}">{plain(name, "svg")}</svg>')
    assert (text.text or "") == text.get("id") == plain(name)


@cases
def test_markdown_shows_the_name_in_a_paragraph_a_list_and_a_table(name: str) -> None:
    marked = MarkdownIt("gfm-like", {"linkify": False})
    wanted = plain(name)
    if not wanted.strip():
        return
    assert Text(marked.render(f"{plain(name, 'markdown')}\n")).text.rstrip("\n") == wanted
    item = Text(marked.render(f"- {plain(name, 'markdown')} end\n"))
    assert item.text.strip("\n") == f"{wanted} end"
    assert [tag for tag, _ in item.tags] == ["ul", "li"]
    table = Text(
        marked.render(f"| a | b |\n|---|---|\n| {plain(name, 'markdown')} | {plain(name, 'markdown')} |\n")
    )
    assert [tag for tag, _ in table.tags] == "table thead tr th th tbody tr td td".split()
    assert table.text.count(wanted) >= 2


@cases
def test_latex_has_no_command_but_our_own(name: str) -> None:
    shown = plain(name, "latex")
    words = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textquotedbl": '"'}
    words |= {"textless": "<", "textgreater": ">", "textbar": "|"}
    back = re.sub(
        r"\\(text\w+)\{\}|\\([{}$&#_%])|[\\{}$&#_%~^]",
        lambda match: words[match[1]] if match[1] else match[2],
        shown,
    )
    assert back == plain(name)


@cases
def test_matplotlib_shows_dollars_as_dollars(name: str) -> None:
    # matplotlib takes a text for a formula where it has an even number of dollars without a backslash, and
    # else shows "\$" as "$".
    shown = plain(name, "figure")
    assert shown.count("$") == shown.count(r"\$")
    assert shown.replace(r"\$", "$") == plain(name)


@cases
def test_json_reads_back_as_the_same_text(name: str) -> None:
    text = json_text({"name": name, name: [1, None]}, indent=2)
    assert json.loads(text) == {"name": name, name: [1, None]}
    text.encode()
    assert plain(text.replace("\n", "")) == text.replace("\n", "")


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(
        ValueError, match="`target`='pdf'; allowed are terminal, csv, markdown, html, svg, latex"
    ):
        plain("x", "pdf")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@cases
def test_a_guarded_stream_escapes_what_was_forgotten(name: str) -> None:
    stream = io.StringIO()
    print(f"a\t{name}", file=GuardedStream(stream))
    assert stream.getvalue().encode()
    assert plain(stream.getvalue().replace("\n", "").replace("\t", "")) == stream.getvalue().replace(
        "\n", ""
    ).replace("\t", "")


def test_a_guarded_terminal_keeps_colours_and_progress() -> None:
    stream = Terminal()
    GuardedStream(stream).writelines(["\x1b[1;31mred\x1b[0m\x1b[2K\x1b[1A", "\x1b]0;title\x07\x1b[2J\r\n"])
    assert stream.getvalue() == "\x1b[1;31mred\x1b[0m\x1b[2K\x1b[1A\\x1b]0;title\\x07\\x1b[2J\\r\n"


def test_files_take_names_that_are_not_utf8(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"class": "caf\udce9"})
    assert json.loads((tmp_path / "a.json").read_text()) == {"class": "caf\udce9"}
    write_atomic(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\\udce9"
