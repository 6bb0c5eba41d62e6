"""The command line: one file for each command, calling one function of a room below."""

from __future__ import annotations

import os
import sys

from cyclopts import App, CycloptsError

from convatlas._version import __version__
from convatlas.cli.bench import bench_command
from convatlas.cli.list import list_command
from convatlas.cli.predict import predict_command
from convatlas.cli.show import show_command
from convatlas.cli.size import size_command
from convatlas.cli.train import train_command

BAD_INPUT = 2
INTERRUPTED = 130

app = App(
    name="convatlas",
    version=__version__,
    help="The atlas of convolutional networks. Add --debug to any command to see where an error comes from.",
)
app.command(list_command, name="list")
app.command(show_command, name="show")
app.command(size_command, name="size")
app.command(train_command, name="train")
app.command(predict_command, name="predict")
app.command(bench_command, name="bench")


def main() -> None:
    """Runs the command that the user typed, and ends the process.

    A user's mistake ends with one line and exit code 2. `--debug`, anywhere, shows the traceback too.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        code = _complain(error, debug)
    except BrokenPipeError:  # The reader of our output left, for example `head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        code = _complain(error, debug)
    except KeyboardInterrupt:
        if debug:
            raise
        print("convatlas: interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _complain(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    print(f"convatlas: {' '.join(str(error).split())}", file=sys.stderr)
    return BAD_INPUT
