"""The code blocks of the documentation, and how each kind is run.

A block follows at once on the comment that says why it is not run:

    <!-- not run: REASON -->       of any block
    <!-- parsed only: REASON -->   of commands that take too long: they are parsed, with all their options
"""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from convatlas.cli import main, make_app

ROOT = Path(__file__).parents[1]
WRITTEN_BY_PROGRAMS = ("api", "networks", "studies")
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name not in WRITTEN_BY_PROGRAMS),
)
LANGUAGES = ("python", "pycon", "console", "sh", "text", "toml")
COMMENT = re.compile(r"<!-- (not run|parsed only): (.+) -->")


@dataclasses.dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: where it stands.
        line: number of its first line.
        language: after the fence.
        text: its lines.
        kept: "not run", "parsed only" or "".
        reason: why.
    """

    page: Path
    line: int
    language: str
    text: str
    kept: str = ""
    reason: str = ""

    @property
    def place(self) -> str:
        """Where to look."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    kept = reason = ""
    start: int | None = None
    for number, line in enumerate(lines):
        if start is None and (match := COMMENT.fullmatch(line)):
            kept, reason = match.groups()
        elif line.startswith("```") and start is None:
            start = number
        elif line == "```" and start is not None:
            text = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(page, start + 2, lines[start].removeprefix("```"), text, kept, reason))
            kept, reason, start = "", "", None
        elif start is None and line.strip():
            assert not kept, f"{page.name}:{number + 1}: no block follows on the comment"
    assert start is None, f"{page.name}: a block does not end"
    return found


def commands_of(text: str) -> list[str]:
    """The commands of a block for a shell, without comments; a line that ends in a backslash goes on."""
    return [line for line in text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


def words_of(command: str) -> list[str]:
    """What follows `convatlas`.

    Raises:
        AssertionError: it is another program's.
    """
    words = shlex.split(command, comments=True)
    if words[:1] == ["./run"]:
        words = words[1:]
    assert words[0] == "convatlas", f"{command!r} is not a command of convatlas: say why it is not run"
    return words[1:]


def run_block(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a block, or checks what can be checked of one that is not run.

    Args:
        block: what to run.
        names: Python's names, which the blocks of a page share.
        monkeypatch: sets the arguments of commands.
    """
    if block.kept == "not run":
        return
    if block.kept == "parsed only":
        for command in commands_of(block.text):
            parse(words_of(command))
    elif block.language == "sh":
        for command in commands_of(block.text):
            call(words_of(command), monkeypatch)
    elif block.language == "console":
        check_console(block, monkeypatch)
    elif block.language == "python":
        exec(compile("\n" * (block.line - 1) + block.text, block.place, "exec"), names)
    elif block.language == "pycon":
        check_session(block, names)
    elif block.language == "text":
        check_usage(block)


def parse(words: list[str]) -> None:
    """Parses a command: each option exists and its value has the right type."""
    make_app().parse_args(words, exit_on_error=False, print_error=False)


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a command, which must end well; what it printed."""
    monkeypatch.setattr(sys, "argv", ["convatlas", *words])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, f"convatlas {shlex.join(words)}: {err.getvalue()}"
    return out.getvalue()


def check_console(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands behind "$ ", each with what it prints below; a line of "..." stands for any lines."""
    for piece in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = piece.partition("\n")
        printed = call(words_of(command), monkeypatch)
        pattern = "".join(
            r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in shown.splitlines()
        )
        assert not shown or re.fullmatch(pattern, printed), f"{block.place} shows:\n{shown}\nbut:\n{printed}"


def check_session(block: Block, names: dict[str, Any]) -> None:
    """Lines behind ">>> ", each with what Python shows below."""
    parser, runner, shown = doctest.DocTestParser(), doctest.DocTestRunner(), io.StringIO()
    test = parser.get_doctest(block.text, names, block.place, str(block.page), block.line - 1)
    # A session goes on with the names of the one before; `run` would work on a copy and clear it.
    test.globs = names
    runner.run(test, out=shown.write, clear_globs=False)
    assert not runner.failures, shown.getvalue()


def check_usage(block: Block) -> None:
    """Usage lines: the command exists, and has every option that they name."""
    for line in block.text.splitlines():
        words = line.replace("[", " ").replace("]", " ").replace("|", " ").split()
        if words[:1] != ["convatlas"] or words[1].startswith("-"):
            continue
        flags = {word.rstrip(".") for word in words if re.match(r"--?[a-z]", word)}
        known = known_flags(words[1:])
        assert flags <= known, f"{block.place}: {', '.join(flags - known)} does not exist"


def known_flags(words: list[str]) -> set[str]:
    """The options of the command that some words begin with."""
    from convatlas.cli.options import flags_of

    app = make_app()[words[0]]
    if app.default_command is None or (len(words) > 1 and words[1] in list(app)):
        app = app[words[1]]
    return set(flags_of(app.assemble_argument_collection()))
