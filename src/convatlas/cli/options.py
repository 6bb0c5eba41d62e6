"""What to say of an option that a command does not have."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from cyclopts import App
from cyclopts.exceptions import UnknownOptionError

from convatlas.errors import nearest

FORMATS = ("csv", "md", "latex", "html")
"""Formats that are asked for by `--format`."""

SYNONYMS = {
    "--learning-rate": "--lr",
    "--num-epochs": "--epochs",
    "--output": "--out",
    "--gpu": "--device",
    "--image-size": "--input",
    "--input-size": "--input",
}
"""What other tools call options."""


def explain_unknown(error: UnknownOptionError, app: App, commands: Mapping[str, str]) -> str:
    """One line: the option, the nearest ones, the recipe field of that name, or the commands that have it.

    Args:
        error: as the parser raised it.
        app: the command line.
        commands: names of all commands.
    """
    typed = (error.token.keyword or error.token.value).partition("=")[0]
    own = flags_of(error.argument_collection)
    command = " ".join(["convatlas", *(error.command_chain or ())])
    found = f"unknown option {typed} of `{command}`"
    name = typed.lstrip("-")
    if name in FORMATS and "--format" in own:
        return f"{found}; write --format {name}"
    if "--set" in own:
        field = name.replace("-", "_")
        if field.partition(".")[0] in recipe_fields():
            return f"{found}; a field of the recipe is set by --set {field}=VALUE"
    same = SYNONYMS.get(typed)
    near = same if same in own else nearest(typed, own)
    found += f"; nearest: {near}" if near != "none" else ""
    if "--set" in own:
        found += "; --set NAME=VALUE sets a field of the recipe (`convatlas recipe show`)"
    others = [other for other in commands if typed in command_flags(app, other)]
    if others:
        found += f"; {typed} belongs to {', '.join(others)}"
    elif near == "none":
        found += f"; `{command} --help` lists its options"
    return found


def flags_of(collection: Iterable[Any]) -> list[str]:
    """The names of options, without those that are positional alone."""
    return [flag for argument in collection if argument.parse for flag in argument.names if flag[0] == "-"]


def command_flags(app: App, name: str) -> list[str]:
    """The options of a command."""
    command = app[name]
    if command.default_command is None:
        return []
    return flags_of(command.assemble_argument_collection())


def recipe_fields() -> list[str]:
    """The fields that `--set` takes at the top of a recipe."""
    recipe = importlib.import_module("convatlas.training.recipes.recipe")
    return list(recipe.Recipe.__dataclass_fields__)
