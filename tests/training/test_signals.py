import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from convatlas.training.signals import StoppedError, stop_flag

WAIT = """
import os, sys, time
from convatlas.training.signals import stop_flag
with stop_flag() as flag:
    print("ready", flush=True)
    while not flag.asked:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_signal_sets_the_flag(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    before = signal.getsignal(number)
    with stop_flag() as flag:
        assert not flag.asked
        os.kill(os.getpid(), number)
        assert flag.asked
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "asked\n"
        process.send_signal(second)
        assert process.wait(timeout=10) == -second


def test_under_torchrun_a_repeated_signal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    with stop_flag() as flag:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert flag.asked


def test_in_another_thread_signals_are_left_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with stop_flag() as flag:
            seen.append((flag.asked, signal.getsignal(signal.SIGTERM) == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_the_error_says_how_to_go_on() -> None:
    error = StoppedError("runs/a", 12)
    assert str(error) == "stopped at step 12; `convatlas resume runs/a` goes on"
    assert (error.folder, error.step) == ("runs/a", 12)
