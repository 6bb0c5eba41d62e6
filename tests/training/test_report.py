import importlib
import json
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from convatlas.data.sets import ImageSet
from convatlas.metrics.classification import Evaluation
from convatlas.runs.run import Run, open_run
from convatlas.training.logging.report import LiveCurves, repeat_command, write_report
from made_runs import Clock, epoch_done, facts, lines, make_run, record

NAMES = tuple("0123456789")


def parts(wrong: int = 3, count: int = 40) -> tuple[Evaluation, ImageSet]:
    """An evaluation in which the first `wrong` images are taken for the next class."""
    labels = torch.arange(count) % 10
    predicted = labels.clone()
    predicted[:wrong] = (labels[:wrong] + 1) % 10
    losses = torch.linspace(4.0, 0.1, count, dtype=torch.float64)
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    for truth, prediction in zip(labels.tolist(), predicted.tolist(), strict=True):
        confusion[truth, prediction] += 1
    evaluation = Evaluation(
        correct=count - wrong,
        top5=count,
        count=count,
        loss=float(losses.mean()),
        confusion=confusion,
        losses=losses,
        predicted=predicted,
    )
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 28, 28) * 6
    return evaluation, ImageSet(images, labels)


def width(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


def page(folder: Path, wrong: int = 3) -> str:
    evaluation, test = parts(wrong)
    write_report(open_run(folder), evaluation, test, NAMES)
    return (folder / "report.md").read_text()


def test_the_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lenet5-digits-1")
    text = page(folder)
    assert text.startswith(
        "# lenet5 on digits\n\n**Test accuracy 93.75%**: 37 of 40 images that training never saw,\n"
    )
    assert "Gradient-Based Learning Applied to Document Recognition" in text
    assert "Trained for 4 epochs over 1,000 images in 1:15 min" in text
    assert "The highest test accuracy of any epoch was 93.75% (epoch 4)" in text
    assert "| 0 | 4 | 75.0% | 100.0% | 1 (1) |\n| 1 | 4 | 75.0% | 75.0% | 2 (1) |\n" in text
    assert "The 24 test images with the highest loss, 3 of them misclassified." in text
    assert "| 1 | 0 | 1 | 4.00 | image 0 |\n| 2 | 1 | 2 | 3.90 | image 1 |" in text
    assert f"    convatlas predict {folder} image.png" in text
    assert "    convatlas train lenet5 --data digits --seed 3\n\nOn the same machine" in text
    assert "with 1 thread, this gives the same weights to the bit." in text
    assert "| schedule.kind | cosine |" in text
    assert "patience" not in text
    assert f"Data: SHA-256 {'0' * 64}." in text
    for line in text.splitlines():
        assert line == line.rstrip()


def test_its_images_are_there_and_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lenet5-digits-1")
    text = page(folder)
    for name in ("curves.png", "confusion.png", "hardest.png"):
        assert f"({name})" in text
        assert width(folder / name) > 500


def test_a_network_without_mistakes(tmp_path: Path) -> None:
    text = page(make_run(tmp_path / "lenet5-digits-1"), wrong=0)
    assert "## Mistakes\n\nThere were none." in text
    assert "0 of them misclassified" in text


def test_images_without_loss_are_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lenet5-digits-1")
    evaluation, test = parts()
    evaluation.losses.zero_()
    write_report(open_run(folder), evaluation, test, NAMES)
    assert "No test image has a loss of 0.01 or more." in (folder / "report.md").read_text()
    assert not (folder / "hardest.png").exists()


def test_a_network_from_python(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "mine-1", network="MyNet")
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"from_names": False}))
    text = page(folder)
    assert "A network given from Python." in text
    assert "It was started from Python with what no command can name" in text
    assert "convatlas predict" not in text
    assert f"net.load_state_dict(safetensors.torch.load_file('{folder / 'weights.safetensors'}'))" in text


def test_early_stopping_is_said_to_flatter(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lenet5-digits-1")
    run = open_run(folder)
    assert "flatters" not in page(folder)
    run.record["config"]["recipe"]["patience"] = 5
    (folder / "run.json").write_text(json.dumps(run.record))
    assert "the figure flatters a little" in page(folder)


def test_names_of_classes_cannot_break_a_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lenet5-digits-1")
    evaluation, test = parts()
    write_report(open_run(folder), evaluation, test, ("a|b", *NAMES[1:]))
    assert "| a\\|b | 4 | 75.0% |" in (folder / "report.md").read_text()


def test_no_report_before_the_first_epoch(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "a-1", done=0, finished=False))
    with pytest.raises(ValueError, match=r"a-1: nothing to report; its first epoch is not over"):
        write_report(run, *parts(), NAMES)


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        pytest.param({}, "convatlas train lenet5 --data digits --seed 3", id="plain"),
        pytest.param(
            {"options": {"recipe": "modern", "exact": True, "data_dir": "my data"}},
            "convatlas train lenet5 --data digits --seed 3 --recipe modern --exact --data-dir 'my data'",
            id="options",
        ),
        pytest.param(
            {
                "settings": {
                    "schedule": "cosine",
                    "augment.flip": 0.5,
                    "nesterov": True,
                    "ema_decay": None,
                }
            },
            "convatlas train lenet5 --data digits --seed 3 --set schedule=cosine "
            "--set augment.flip=0.5 --set nesterov=true --set ema_decay=none",
            id="settings",
        ),
        pytest.param(
            {"settings": {"augment.pad_crop": {"pad": 2, "mode": "reflect"}, "betas": [0.9, 0.99]}},
            "convatlas train lenet5 --data digits --seed 3 "
            """--set 'augment.pad_crop={pad = 2, mode = "reflect"}' --set 'betas=[0.9, 0.99]'""",
            id="nested",
        ),
        pytest.param(
            {"machine": {"processes": 2}},
            "torchrun --nproc-per-node=2 -m convatlas train lenet5 --data digits --seed 3",
            id="processes",
        ),
        pytest.param({"from_names": False}, None, id="from-python"),
    ],
)
def test_the_command_that_repeats_a_run(changes: dict[str, object], command: str | None) -> None:
    assert repeat_command(record() | changes) == command


def test_what_a_repeated_run_has_in_common(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "lenet5-digits-1")
    run = open_run(folder)
    run.record["machine"] |= {"device": "cuda"}
    write_report(Run(folder, run.record), *parts(), NAMES)
    assert "on a GPU, bits may differ" in (folder / "report.md").read_text()
    run.record["machine"] |= {"device": "cpu", "processes": 2}
    write_report(Run(folder, run.record), *parts(), NAMES)
    assert "with 1 thread in each of 2 processes, this gives" in (folder / "report.md").read_text()


def test_the_command_is_read_back_as_it_was() -> None:
    from convatlas.config import parse_settings

    settings = {
        "epochs": 2,
        "augment.pad_crop": {"pad": 2, "mode": "reflect"},
        "betas": [0.9, 0.99],
        "loss": "rbf",
    }
    command = repeat_command(record() | {"settings": settings})
    assert command is not None
    words = shlex.split(command)
    assert parse_settings(words[words.index("--set") + 1 :: 2]) == settings


def draw_live(folder: Path, ends: list[float]) -> list[int]:
    """The epochs after which the curves were redrawn, when each epoch ends at the given time."""
    clock, drawn = Clock(), []
    watcher = LiveCurves(clock=clock)
    watcher.start(facts(folder=folder, network="lenet5", data="digits"))
    for number, end in enumerate(ends):
        clock.now = end
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(number + 1)))
        (folder / "curves.png").unlink(missing_ok=True)
        watcher.epoch(epoch_done(number, 0.9))
        if (folder / "curves.png").exists():
            drawn.append(number)
    return drawn


def test_curves_live(tmp_path: Path) -> None:
    importlib.import_module("matplotlib.figure")
    # A drawing is expected to take 0.5 s, and may take a fiftieth of the time.
    assert draw_live(tmp_path, [10.0, 20.0, 24.0]) == []
    # The clock stands while it draws, so a drawing costs nothing and all later ones are due.
    assert draw_live(tmp_path, [10.0, 26.0, 36.0]) == [1, 2]
    assert width(tmp_path / "curves.png") > 1000


def test_live_curves_take_their_own_time_into_account(tmp_path: Path) -> None:
    class Slow(Clock):
        def __call__(self) -> float:
            self.now += 1.0  # Two looks at the clock for each drawing: it takes 1 s.
            return self.now

    clock = Slow()
    watcher = LiveCurves(clock=clock)
    watcher.start(facts(folder=tmp_path, network="lenet5", data="digits"))
    drawn = []
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines(2)))
    for number in range(150):
        (tmp_path / "curves.png").unlink(missing_ok=True)
        watcher.epoch(epoch_done(number, 0.9))
        if (tmp_path / "curves.png").exists():
            drawn.append(number)
    assert len(drawn) == 3
