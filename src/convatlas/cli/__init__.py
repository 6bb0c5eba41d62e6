"""The command line: one file for each command, calling one function of a room below."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from convatlas._version import __version__
from convatlas.escape import GuardedStream, plain
from convatlas.machine import share_cores

if TYPE_CHECKING:
    from cyclopts import App

BAD_INPUT = 2
INTERNAL_ERROR = 1
INTERRUPTED = 130
# What only wrong code raises. Anything else comes from the input or the machine.
BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    NotImplementedError,
    StopIteration,
    TypeError,
)
# Letters of an error's line.
LONGEST = 4000

OTHER_FLAGS = {"input_size": "--input"}
"""Flags that are not named as the argument that they set."""

# Name, and what it does; the command is `NAME_command` in `cli/NAME.py`.
COMMANDS = {
    "list": "List the networks with their sizes.",
    "show": "Show a network's card: its paper, and what was published against what is computed.",
    "size": "Size a network before it runs: shapes, parameters, multiply-adds, memory.",
    "draw": "Draw networks: stages, blocks or layers, as SVG, PNG or PDF.",
    "history": "Draw the history of networks: depth and error by year, ideas, accuracy and what it costs.",
    "explore": "Look at the atlas in a browser: resize, compare, see what a layer sees.",
    "recipe": "List the training recipes, or show one as a TOML file.",
    "data": "Say what a data set is like, or pack one into shards.",
    "train": "Train a network and leave a run folder behind.",
    "resume": "Go on with a training that was stopped or killed.",
    "runs": "Show the runs in a folder, or what differs between two of them.",
    "predict": "Say what is on images.",
    "eval": "Measure a network, or several together, on labelled images.",
    "features": "Write what a network sees in images, as vectors or maps.",
    "explain": "Draw which places of images speak for a class.",
    "filters": "Draw the kernels of a network's first convolution.",
    "maps": "Draw what a stage of a network sees in images.",
    "export": "Write a network into a file that runs elsewhere: ONNX, torch.export, OpenVINO.",
    "study": "Test the claims of the papers: list, show, run, report.",
    "search": "Find a network for your images and your machine: run, status, resume, report, best.",
    "bench": "Measure how fast networks are here, on each engine; or this machine, for estimates of time.",
    "scale": "Find the network of a family for a budget of MACs, parameters, memory or time.",
    "choose": "Say which network to take, given limits on time, size and accuracy.",
}


def main() -> None:
    """Runs the command that the user typed, and ends the process.

    What goes wrong is told in one line. The exit code is 2 for whatever the user or the machine can mend, and
    1 for an error in convatlas. `--debug`, anywhere, shows the traceback too.
    """
    share_cores()
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", tuple(map(_guarded, streams)))
    try:
        code = _ended(arguments, debug)
    finally:
        sys.stdout, sys.stderr = streams
    sys.exit(code)


def _guarded(stream: Any) -> GuardedStream:
    """A stream that shows what its encoding lacks, and hidden characters, as backslash escapes."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return GuardedStream(stream)


def _ended(arguments: list[str], debug: bool) -> int:
    """Runs the command; the exit code."""
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # The reader of our output left, for example `head`.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        if debug:
            traceback.print_exc()
        line, code = failure(error)
        with contextlib.suppress(OSError):  # Nobody may be there to read it.
            print(f"convatlas: {in_flags(line, arguments)}", file=sys.stderr)
        return code


def in_flags(message: str, arguments: Sequence[str]) -> str:
    """A message in which Python's arguments are named by the flags that the user typed for them."""
    typed = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}

    def flag(match: re.Match[str]) -> str:
        for name in ("--" + match[1].replace("_", "-"), OTHER_FLAGS.get(match[1], "")):
            if name in typed:
                return f"`{name}`"
        return match[0]

    return re.sub(r"`([a-z][a-z0-9_]*)`", flag, message)


def failure(error: BaseException) -> tuple[str, int]:
    """What an error means for the user, in one line, and the exit code."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    words = plain(" ".join(str(error).split()))
    words = (
        words if len(words) <= LONGEST else f"{words[:LONGEST]} ... ({len(words):,} letters; --debug has all)"
    )
    kind = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, SystemExit):
        return f"the Python code that was loaded ended the program (sys.exit({error.code!r}))", BAD_INPUT
    if isinstance(error, MemoryError):
        return f"there is not enough memory{words and f' ({words})'}; try smaller sizes or batches", BAD_INPUT
    if isinstance(error, RecursionError):
        return "the input is nested too deeply", BAD_INPUT
    if isinstance(error, BUGS) and not isinstance(error, ValueError | OverflowError):
        place = _place(error)
        return (
            f"an error in convatlas {__version__}: {kind}{words and ': '}{words}{place}; "
            "please report it with the command and what it prints with --debug",
            INTERNAL_ERROR,
        )
    return (
        words if isinstance(error, ValueError | OSError) and words else f"{kind}{words and ': '}{words}"
    ), BAD_INPUT


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


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

    from cyclopts import CycloptsError
    from cyclopts.exceptions import UnknownOptionError

    app = make_app()
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except UnknownOptionError as error:
        from convatlas.cli.options import explain_unknown

        raise ValueError(explain_unknown(error, app, COMMANDS)) from error
    except CycloptsError as error:
        raise ValueError(str(error)) from error


def make_app() -> App:
    """The command line; a command's module is loaded when the command is called."""
    from cyclopts import App

    from convatlas.cli.help_pages import HelpPages

    app = App(
        name="convatlas",
        version=__version__,
        help="The atlas of convolutional networks.",
        help_format="plaintext",
        help_formatter=HelpPages(),
    )
    for name, summary in COMMANDS.items():
        app.command(f"convatlas.cli.{name}:{name}_command", name=name, help=summary)
    app.register_install_completion_command(help="Install completion of commands and options for your shell.")
    return app


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
        "`convatlas COMMAND --help` tells more; --debug, anywhere, shows where an error comes from;",
        "--install-completion completes commands and options in your shell.",
    ]
    return "\n".join(lines)
