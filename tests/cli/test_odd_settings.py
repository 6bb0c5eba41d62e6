"""Odd values of every setting, TOML value and flag: an answer or one line, never a traceback."""

import dataclasses
import inspect
import io
import random
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convatlas.cli import COMMANDS, INTERNAL_ERROR, failure, main, make_app
from convatlas.training.recipes.find import find_recipe, parse_settings
from convatlas.training.recipes.recipe import Recipe

ODD = (
    "",
    " ",
    "none",
    "null",
    "nan",
    "inf",
    "-inf",
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "0.5",
    "-0.5",
    "1e-400",
    "1e400",
    "99999999",
    "1000000000000000000000",
    "-99999999999",
    "0x10",
    "0b11",
    "1_000",
    "1,5",
    "true",
    "false",
    "'x'",
    '"x"',
    "[]",
    "[0]",
    "[[]]",
    "[nan]",
    "[1, 2, 3]",
    "[[0, 1], [2]]",
    "{}",
    "{kind = 'x'}",
    "{kind = []}",
    "{a = {b = {}}}",
    "kind",
    "cosine",
    "step",
    "sgd",
    "=",
    "==",
    "a=b",
    "\u0000",
    "\u001b[31m",
    "\udcff",
    "é",
    "\U0001f600",
    "$x^2$",
    "1979-05-27",
    "07:32:00",
    "[" * 60,
    "{a=" * 40,
    "../..",
    "/dev/null",
    "-",
    "--",
    "%s",
    "x" * 3000,
)


def fields(kind: type, path: str = "") -> Iterator[str]:
    """Every field of a recipe by its dotted name."""
    for name, hint in typing.get_type_hints(kind).items():
        yield path + name
        for option in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(option) and isinstance(option, type):
                yield from fields(option, f"{path}{name}.")


def check_error(error: BaseException) -> None:
    """An error that a user can mend: one line, exit code 2."""
    line, code = failure(error)
    assert code != INTERNAL_ERROR, f"{line}"
    assert "\n" not in line


FIELDS = sorted(set(fields(Recipe)))


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_recipe_takes_or_refuses_every_odd_value(field: str) -> None:
    for value in ODD:
        try:
            find_recipe("lenet5", None, parse_settings([f"{field}={value}"]))
        except ValueError as error:
            check_error(error)


@pytest.mark.parametrize("value", ODD, ids=range(len(ODD)))
def test_every_odd_value_as_a_line_of_toml(tmp_path: Path, value: str) -> None:
    path = tmp_path / "recipe.toml"
    for line in (value, f"lr = {value}", f"augment = {value}", f"[{value}]", f"[augment.{value}]\nflip = 1"):
        path.write_bytes(line.encode("utf-8", "surrogateescape"))
        try:
            find_recipe("lenet5", path)
        except ValueError as error:
            check_error(error)


def flags(command: str) -> list[tuple[str, ...]]:
    """The words before an odd value, for every option of a command and its subcommands."""
    found: list[tuple[str, ...]] = []
    app = make_app()[command]
    commands = [(command,)] if app.default_command is not None else []
    commands += [(command, name) for name in app if not name.startswith("-")] if not commands else []
    for words in commands:
        called = make_app()
        for word in words:
            called = called[word]
        for argument in called.assemble_argument_collection():
            names = [name for name in argument.names if name.startswith("--")]
            found += [(*words, names[0])] if names and argument.parse else []
    return found


# What costs much or waits where it is called with a good value.
PLAIN = {
    "list": (),
    "show": ("lenet5",),
    "size": ("lenet5",),
    "draw": ("lenet5",),
    "recipe": (),
    "data": ("nowhere",),
    "train": ("nonet",),
    "resume": ("nowhere",),
    "runs": ("nowhere",),
    "predict": ("nowhere", "x.png"),
    "eval": ("nowhere",),
    "features": ("nowhere", "x.png"),
    "explain": ("nowhere", "x.png"),
    "filters": ("nowhere",),
    "maps": ("nowhere", "x.png"),
    "export": ("nonet",),
    "bench": ("nonet",),
    "scale": ("nofamily",),
    "choose": ("nonet",),
}


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """A command in this process; its exit code and what it says on standard error."""
    errors = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["convatlas", *arguments])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0), errors.getvalue()


@pytest.mark.parametrize("command", sorted(PLAIN))
def test_every_flag_takes_or_refuses_odd_values(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command in COMMANDS
    monkeypatch.chdir(tmp_path)
    chosen = random.Random(command)
    for words in flags(command):
        for value in chosen.sample(ODD, 2):
            rest = list(PLAIN[command])
            code, said = run([words[0], *rest, *words[1:], value], monkeypatch)
            case = f"{words} {value[:40]!r}: {said[-600:]}"
            assert code in (0, 2), case
            assert "Traceback" not in said, case
            assert said.count("\n") <= 3 or code == 0, case


def test_the_parameters_of_commands_are_all_met() -> None:
    """So that none is added that the test above does not reach."""
    for command in PLAIN:
        module = __import__(f"convatlas.cli.{command}", fromlist=["x"])
        function: Any = getattr(module, f"{command}_command")
        if callable(function) and not hasattr(function, "command"):
            keywords = [
                p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY
            ]
            assert len(flags(command)) >= len(keywords)
