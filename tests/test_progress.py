"""Progress is shown where somebody watches, and nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import convatlas
import convatlas.studies.run as context
from convatlas.progress import tracked


class Clock:
    """A clock that goes on by a second at each look."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def numbers() -> Iterator[int]:
    return iter(range(5))


@pytest.mark.parametrize(
    ("terminal", "progress", "shown"),
    [
        (False, None, False),
        (True, None, True),
        (True, False, False),
        (False, True, True),
    ],
)
def test_a_bar_where_somebody_watches(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    progress: bool | None,
    shown: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(tracked(numbers(), "images", 5, progress=progress, clock=Clock())) == [0, 1, 2, 3, 4]
    out, err = capsys.readouterr()
    assert out == ""
    assert ("images" in err) == shown


def test_what_ends_at_once_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked(numbers(), "images", 5, progress=True, clock=lambda: 0.0)) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_items_come_one_by_one() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            taken.append(number)
            yield number

    results = tracked(items(), "images", progress=True, clock=Clock())
    assert next(results) == 0
    assert taken == [0]


@pytest.mark.parametrize(("progress", "told"), [(True, True), (False, False), (None, False)])
def test_a_study_tells_of_its_trainings(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    progress: bool | None,
    told: bool,
) -> None:
    def run_and_judge(
        name: str, log: Callable[[str], None], **_: object
    ) -> tuple[Path, dict[str, str], None]:
        log("a training")
        return tmp_path, {}, None

    monkeypatch.setattr(context, "run_and_judge", run_and_judge)
    context.run_study("a study", progress=progress)
    assert (capsys.readouterr().out != "") == told


@pytest.mark.parametrize("progress", [None, False])
def test_python_is_silent_without_a_terminal(
    capsys: pytest.CaptureFixture[str], lenet_run: Path, progress: bool | None
) -> None:
    convatlas.evaluate(lenet_run, progress=progress)
    convatlas.bench("lenet5", seconds=0.0, threads=1, remember=False, progress=progress)
    assert capsys.readouterr() == ("", "")
