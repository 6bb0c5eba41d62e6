import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from convatlas.cli import main
from convatlas.runs.lock import locked
from made_runs import make_run


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", "runs", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    make_run(root / "lenet5-digits-1")
    make_run(root / "lenet5-digits-2", done=2, finished=False, lr=0.1)
    make_run(
        root / "resnet20_cifar-cifar10-1", network="resnet20_cifar", data="cifar10", done=0, finished=False
    )
    return root


def test_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path) -> None:
    with locked(runs / "resnet20_cifar-cifar10-1"):
        code, shown, errors = run(capsys, monkeypatch, str(runs))
    assert (code, errors) == (0, "")
    assert [line.split() for line in shown.splitlines()] == [
        ["run", "network", "data", "epochs", "state", "accuracy", "images/s", "time"],
        ["lenet5-digits-1", "lenet5", "digits", "4/4", "finished", "93.75%", "400", "1:15", "min"],
        ["lenet5-digits-2", "lenet5", "digits", "2/4", "stopped", "75.00%", "200", "-"],
        ["resnet20_cifar-cifar10-1", "resnet20_cifar", "cifar10", "0/4", "running", "-", "-", "-"],
    ]
    assert {len(line) for line in shown.splitlines()} == {len(shown.splitlines()[0])}


def test_the_folder_runs_is_looked_into_unless_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    monkeypatch.chdir(runs.parent)
    code, shown, _ = run(capsys, monkeypatch)
    assert code == 0
    assert "lenet5-digits-2" in shown


def test_for_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    code, shown, _ = run(capsys, monkeypatch, str(runs), "--json")
    rows = json.loads(shown)
    assert code == 0
    assert [row["state"] for row in rows] == ["finished", "stopped", "stopped"]
    assert rows[1] == {
        "run": "lenet5-digits-2",
        "network": "lenet5",
        "data": "digits",
        "state": "stopped",
        "epoch": 2,
        "epochs": 4,
        "test_accuracy": 0.75,
        "images_per_s": 200.0,
        "seconds": None,
        "started": "2026-11-21T07:00:00",
    }


def test_an_empty_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(capsys, monkeypatch, str(tmp_path)) == (0, f"no runs in {tmp_path}\n", "")
    assert run(capsys, monkeypatch, str(tmp_path), "--json") == (0, "[]\n", "")


def test_damaged_runs_are_named_and_the_others_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    (runs / "lenet5-digits-2" / "run.json").write_text("{")
    code, shown, errors = run(capsys, monkeypatch, str(runs))
    assert code == 2
    assert len(shown.splitlines()) == 3
    assert errors.startswith(f"convatlas: {runs / 'lenet5-digits-2' / 'run.json'}: is damaged")
    assert len(errors.splitlines()) == 1


def test_two_runs_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    names = "lenet5-digits-1", "lenet5-digits-2"
    code, shown, errors = run(capsys, monkeypatch, str(runs), "--compare", *names)
    assert (code, errors) == (0, "")
    rows = [line.split() for line in shown.splitlines()]
    assert rows[4] == ["differs", *names]
    assert ["config.recipe.lr", "0.05", "0.1"] in rows
    assert ["result.seconds", "75.4", "-"] in rows
    plot = runs / "lenet5-digits-1-and-lenet5-digits-2.png"
    assert rows[-1] == ["curves", "of", "both:", str(plot)]
    with Image.open(plot) as image:
        assert image.width > 900


def test_two_runs_compared_for_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "both.png"
    paths = [str(runs / name) for name in ("lenet5-digits-1", "lenet5-digits-2")]
    code, shown, _ = run(capsys, monkeypatch, "--compare", *paths, "--image", str(plot), "--json")
    record = json.loads(shown)
    assert code == 0
    assert [row["run"] for row in record["runs"]] == ["lenet5-digits-1", "lenet5-digits-2"]
    assert {"name": "config.recipe.lr", "first": 0.05, "second": 0.1} in record["differences"]
    assert record["image"] == str(plot)
    assert plot.is_file()


def test_long_values_are_cut_for_people_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    path, reason = runs / "lenet5-digits-2" / "run.json", "photo.jpg: is cut off " * 9
    record = json.loads(path.read_text())
    record["data"]["skipped"] = [reason]
    path.write_text(json.dumps(record))
    words = str(runs), "--compare", "lenet5-digits-1", "lenet5-digits-2"
    _, shown, _ = run(capsys, monkeypatch, *words)
    assert "photo.jpg" in shown
    assert "…" in shown
    assert reason not in shown
    assert reason in run(capsys, monkeypatch, *words, "--json")[1]


def test_a_run_compared_with_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    _, shown, _ = run(capsys, monkeypatch, str(runs), "--compare", "lenet5-digits-1", "lenet5-digits-1")
    assert "their records are the same" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["nowhere"], "nowhere: no such folder", id="folder"),
        pytest.param(["--compare", "lenet5-digits-1"], "--compare", id="one"),
        pytest.param(
            ["--compare", "lenet5-digits-1", "lenet5-digits-3"],
            "no run 'lenet5-digits-3' in runs; nearest: lenet5-digits-2, lenet5-digits-1",
            id="name",
        ),
        pytest.param(["--image", "a.png"], "`--image`='a.png' is given without --compare", id="image"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    runs: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(runs.parent)
    code, shown, errors = run(capsys, monkeypatch, *arguments)
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
