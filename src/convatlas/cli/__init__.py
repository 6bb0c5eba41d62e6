"""The command line: one file for each command, calling one function of a room below."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from convatlas._version import __version__
from convatlas.machine import share_cores

BAD_INPUT = 2
INTERRUPTED = 130

# Name, and what it does; the command is `NAME_command` in `cli/NAME.py`.
COMMANDS = {
    "list": "List the networks with their sizes.",
    "show": "Show a network's card: its paper, and what was published against what is computed.",
    "size": "Size a network before it runs: shapes, parameters, multiply-adds, memory.",
    "draw": "Draw networks: stages, blocks or layers, as SVG, PNG or PDF.",
    "recipe": "List the training recipes, or show one as a TOML file.",
    "data": "Say what a data set is like, or pack one into shards.",
    "train": "Train a network and leave a run folder behind.",
    "resume": "Go on with a training that was stopped or killed.",
    "runs": "Show the runs in a folder, or what differs between two of them.",
    "predict": "Say what is on pictures.",
    "eval": "Measure a network, or several together, on labelled pictures.",
    "features": "Write what a network sees in pictures, as vectors or maps.",
    "explain": "Draw which places of a picture speak for a class.",
    "export": "Write a network into a file that runs elsewhere: ONNX, torch.export, OpenVINO.",
    "study": "Test the claims of the papers: list, show, run, report.",
    "bench": "Measure how fast networks are here, on each engine; or this machine, for estimates of time.",
    "compare": "Say which network to take, given limits on time, size and accuracy.",
}


def main() -> None:
    """Runs the command that the user typed, and ends the process.

    A user's mistake ends with one line and exit code 2. `--debug`, anywhere, shows the traceback too.
    """
    share_cores()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # The reader of our output left, for example `head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        if debug:
            raise
        print(f"convatlas: {' '.join(str(error).split())}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        if debug:
            raise
        print("convatlas: interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _run(arguments: list[str]) -> Any:
    """Parses and calls; what needs no parsing is answered without the parser, whose import takes 0.2 s."""
    if arguments in ([], ["-h"], ["--help"]):
        print(_overview())
        return 0
    if arguments == ["--version"]:
        print(__version__)
        return 0
    if arguments == ["list"]:
        return _command("list")()

    from cyclopts import App, CycloptsError

    app = App(name="convatlas", version=__version__, help_format="plaintext")
    for name in COMMANDS:
        app.command(_command(name), name=name)
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise ValueError(str(error)) from error


def _command(name: str) -> Any:
    return getattr(importlib.import_module(f"convatlas.cli.{name}"), f"{name}_command")


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        "Usage: convatlas COMMAND ...",
        "",
        "The atlas of convolutional networks.",
        "",
        *(f"  {name:<{width}}  {summary}" for name, summary in COMMANDS.items()),
        "",
        "`convatlas COMMAND --help` tells more; --debug, anywhere, shows where an error comes from.",
    ]
    return "\n".join(lines)
