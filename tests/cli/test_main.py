"""What the user sees when a command fails: one line, and a code that says whose error it is."""

import sys

import pytest
import torch

import convatlas.cli
from convatlas.cli import in_flags, main


def run(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | str,
    *words: str,
) -> tuple[int, str, str]:
    """Ends a command by an error, or lets it print a text."""

    def fail(_: list[str]) -> None:
        if isinstance(error, str):
            print(error)
            return
        raise error

    monkeypatch.setattr(convatlas.cli, "_run", fail)
    monkeypatch.setattr(sys, "argv", ["convatlas", "size", *words])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return end.value.code, shown.out, shown.err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("`lr`=2\n  is too much"), "convatlas: `lr`=2 is too much"),
        (ValueError(), "convatlas: ValueError"),
        (FileNotFoundError(2, "No such file", "a\x1b[2J"), r"convatlas: [Errno 2] No such file: 'a\x1b[2J'"),
        (ValueError("no class \x1b]0;x\x07"), r"convatlas: no class \x1b]0;x\x07"),
        (MemoryError(), "convatlas: there is not enough memory; try smaller sizes or batches"),
        (RecursionError("maximum"), "convatlas: the input is nested too deeply"),
        (OverflowError("int too large"), "convatlas: OverflowError: int too large"),
        (RuntimeError("no device mps"), "convatlas: RuntimeError: no device mps"),
        (torch.OutOfMemoryError("tried 3 GiB"), "convatlas: OutOfMemoryError: tried 3 GiB"),
        (ModuleNotFoundError("No module named 'x'"), "convatlas: ModuleNotFoundError: No module named 'x'"),
        (EOFError(), "convatlas: EOFError"),
        (ExceptionGroup("several", [ValueError("`a`=1")]), "convatlas: `a`=1"),
        (SystemExit(0), "convatlas: the Python code that was loaded ended the program (sys.exit(0))"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "bad"), "convatlas: 'utf-8' codec can't encode"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_what_the_user_can_mend_is_one_line_and_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    line: str,
    debug: bool,
) -> None:
    code, out, err = run(capsys, monkeypatch, error, *["--debug"] * debug)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(line)
    assert ("Traceback" in err) == debug
    assert "\x1b" not in err
    assert debug or len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        TypeError("unhashable"),
        KeyError("a"),
        IndexError(),
        AttributeError("x"),
        AssertionError(),
        ZeroDivisionError(),
        NotImplementedError(),
        UnboundLocalError("x"),
        StopIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_internal_error_is_one_line_that_says_how_to_report_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    code, _, err = run(capsys, monkeypatch, error)
    assert code == 1
    assert err.count("\n") == 1
    assert f": {type(error).__name__}" in err
    assert "(test_main.py, line " in err
    assert err.endswith("please report it with the command and what it prints with --debug\n")


def test_a_very_long_message_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run(capsys, monkeypatch, ValueError("class " * 1_000_000))
    assert code == 2
    assert len(err) < 5000
    assert err.endswith("... (5,999,999 letters; --debug has all)\n")


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(capsys, monkeypatch, KeyboardInterrupt()) == (130, "", "convatlas: interrupted\n")


def test_what_a_command_forgot_to_escape_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sys.stdout
    shown = run(capsys, monkeypatch, "a\tb\n\x1b[31mred \udcff")
    assert shown == (0, "a\tb\n\\x1b[31mred \\udcff\n", "")
    assert sys.stdout is before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["eval", "--batch-size", "0"], "`--batch-size`=0; `top` is 3"),
        (["eval", "--batch-size=0"], "`--batch-size`=0; `top` is 3"),
        (["eval", "--top", "3"], "`batch_size`=0; `--top` is 3"),
        (["eval"], "`batch_size`=0; `top` is 3"),
    ],
)
def test_arguments_are_named_as_the_user_typed_them(arguments: list[str], expected: str) -> None:
    assert in_flags("`batch_size`=0; `top` is 3", arguments) == expected
