"""Being asked to stop: a signal sets a flag, which the loop reads between two steps."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from types import FrameType
from typing import Any

# "Try again" (EX_TEMPFAIL): schedulers can be told to start a job anew when it ends so.
TRY_AGAIN = 75

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StoppedError(Exception):
    """Training was asked to stop, and has saved itself; `convatlas resume` goes on.

    Attributes:
        folder: of the run, as text.
        step: steps done.
    """

    def __init__(self, folder: str, step: int) -> None:
        super().__init__(f"stopped at step {step}; `convatlas resume {folder}` goes on")
        self.folder = folder
        self.step = step


class StopFlag:
    """Whether a signal has asked for the end.

    Attributes:
        asked: set by the first signal.
        number: of that signal.
    """

    def __init__(self) -> None:
        self.asked = False
        self.number = 0

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Notes the first signal; from then on, signals end the process as they end any other."""
        self.asked, self.number = True, number
        # torchrun's agent passes on what a scheduler sends to all processes anyway, and kills after 30 s.
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)


@contextlib.contextmanager
def stop_flag() -> Generator[StopFlag]:
    """Turns SIGTERM, SIGINT and SIGUSR1 into a flag while the block runs.

    Only a program's main thread can do so; in another one, the flag is never set.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before: dict[int, Any] = {number: signal.signal(number, flag.receive) for number in SIGNALS}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    # It came after the last step, where the training had no more use for it; what trains on has.
    outer = before.get(flag.number)
    if flag.asked and isinstance(outer, EndAtOnce):
        outer(flag.number, None)


class EndAtOnce:
    """A handler of signals that ends what runs, wherever it is.

    Args:
        what: for the message.
    """

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Ends it.

        Raises:
            InterruptedWorkError: always.
        """
        raise InterruptedWorkError(self.what)


class InterruptedWorkError(Exception):
    """Work that consists of several trainings was asked to stop; what was finished is kept."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was stopped; the trainings that are finished are kept")


@contextlib.contextmanager
def ending_at_once(what: str) -> Generator[None]:
    """Turns SIGTERM, SIGINT and SIGUSR1 into an error while the block runs, also one that came in a training.

    Only a program's main thread can do so.

    Args:
        what: for the message.

    Raises:
        InterruptedWorkError: a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = EndAtOnce(what)
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
