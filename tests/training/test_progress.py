import io
import re

import pytest
from rich.console import Console

from convatlas.training.logging.events import EpochDone, Facts, Silent, StepDone
from convatlas.training.logging.progress import CompositeCallback, Lines, View, duration, memory
from made_runs import Clock, epoch_done, facts, step_done


def test_lines_say_what_is_trained_and_then_how_each_epoch_went() -> None:
    written: list[str] = []
    with Lines(written.append) as watcher:
        watcher.start(facts())
        watcher.step(step_done())
        watcher.epoch(epoch_done(0, 0.9))
        watcher.note("a note")
        watcher.epoch(epoch_done(1, 0.9125, top5=0.995))
    assert written == [
        "resnet20_cifar on fashion-mnist: 60,000 images, 12 epochs, batches of 128, on cpu",
        "  channels-last: convolutions are faster so",
        "  float32: no bf16 on this chip",
        "  run folder: runs/resnet20_cifar-fashion-mnist-1",
        "epoch  1/12  loss 0.2500  test loss 0.1250  accuracy 90.00%  1,200 images/s  47 s left",
        "a note",
        "epoch  2/12  loss 0.2500  test loss 0.1250  accuracy 91.25%  top-5 99.50%  1,200 images/s  "
        "47 s left",
    ]


def test_lines_within_long_epochs_are_a_minute_apart() -> None:
    written: list[str] = []
    clock = Clock()
    watcher = Lines(written.append, every_s=60.0, clock=clock)
    watcher.start(facts(execution=()))
    for number, now in enumerate((10.0, 59.0, 61.0, 119.0, 122.0), 1):
        clock.now = now
        watcher.step(step_done(number * 50))
    assert written[2:] == [
        "epoch  1/12  32%  loss 0.5000  1,234 images/s  waiting for images 0.4%  812 MiB  4:12 min left",
        "epoch  1/12  53%  loss 0.5000  1,234 images/s  waiting for images 0.4%  812 MiB  4:12 min left",
    ]


def test_lines_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    Lines().note("one line")
    assert capsys.readouterr().out == "one line\n"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        pytest.param({"world_size": 4}, "batches of 128, on cpu of 4 processes", id="processes"),
        pytest.param({"first_step": 600}, "  goes on after step 600 of 5,628", id="resumed"),
        pytest.param(
            {"rate": "learning rate 0.1, linear schedule"}, "  learning rate 0.1, linear schedule", id="rate"
        ),
    ],
)
def test_facts_that_are_not_always_there(changes: dict[str, object], line: str) -> None:
    written: list[str] = []
    Lines(written.append).start(facts(**changes))
    assert any(text.endswith(line) for text in written)


def make_view(width: int = 100) -> tuple[View, io.StringIO, Clock]:
    clock, file = Clock(), io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    return View(console, clock=clock), file, clock


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_view_shows_the_epoch_and_the_whole(width: int) -> None:
    view, file, _ = make_view(width)
    with view:
        view.start(facts())
        view.epoch(epoch_done(0, 0.91))
        view.epoch(epoch_done(1, 0.90))
        view.step(step_done(469 * 2 + 234, epoch=2, images=30_000))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).splitlines()
    assert "epoch  1/12  loss 0.2500  test loss 0.1250  accuracy 91.00%  1,200 images/s  47 s left" in lines
    bar, whole, figures = lines[-4:-1]
    assert bar.startswith("epoch  3/12  ━")
    assert bar.endswith("50%")
    assert whole.startswith("in all  ")
    assert whole.endswith("4:12 min left")
    assert figures.startswith("loss 0.5000  accuracy 90.00% (best 91.00%, epoch 1)")
    assert max(map(len, (whole, figures))) <= width


def test_the_view_is_drawn_five_times_a_second_at_most() -> None:
    view, file, clock = make_view()
    drawn: list[int] = []
    with view:
        view.start(facts())
        for number in range(1, 101):
            clock.now = number / 64
            before = file.tell()
            view.step(step_done(number))
            if file.tell() > before:
                drawn.append(number)
    assert drawn == [1, 14, 27, 40, 53, 66, 79, 92]  # 13/64 s is the first multiple of 1/64 s above 0.2 s


def test_a_note_does_not_look_like_markup() -> None:
    view, file, _ = make_view()
    with view:
        view.note("batch [bold]7[/bold] was skipped")
    assert "batch [bold]7[/bold] was skipped" in file.getvalue()


def test_several_watchers_are_told_the_same_in_order() -> None:
    told: list[tuple[str, str]] = []

    class Listener(Silent):
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> "Listener":
            told.append((self.name, "begin"))
            return self

        def __exit__(self, *_: object) -> None:
            told.append((self.name, "end"))

        def start(self, facts: Facts) -> None:
            told.append((self.name, facts.network))

        def step(self, done: StepDone) -> None:
            told.append((self.name, f"step {done.step}"))

        def epoch(self, done: EpochDone) -> None:
            told.append((self.name, f"epoch {done.epoch}"))

        def note(self, text: str) -> None:
            told.append((self.name, text))

    with CompositeCallback(Listener("a"), Listener("b")) as several:
        several.start(facts())
        several.step(step_done(7))
        several.epoch(epoch_done(0, 0.5))
        several.note("a note")
    events = ["begin", "resnet20_cifar", "step 7", "epoch 0", "a note"]
    expected = [(name, event) for event in events for name in "ab"]
    assert told == [*expected, ("b", "end"), ("a", "end")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (185.0, "3:05 min"),
        (7384.0, "2:03 h"),
        (86_400.0, "1 day 0 h"),
        (100 * 3600.0, "4 days 4 h"),
        (float("inf"), "?"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("size", "text"), [(812 * 2**20, "812 MiB"), (5 * 2**29, "2.5 GiB")])
def test_memory(size: int, text: str) -> None:
    assert memory(size) == text
