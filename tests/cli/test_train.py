import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from convatlas.cli import main

COMMAND = [sys.executable, "-m", "convatlas"]


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_train_prints_the_result_and_what_to_do_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    words = f"train lenet5 --seed 3 --out {out} --set epochs=2 --set lr=0.02 --recipe lenet5 --save-every 20"
    code, shown, errors = run(capsys, monkeypatch, *words.split())
    folder = out / "lenet5-digits-1"
    record = json.loads((folder / "run.json").read_text())
    recipe = record["config"]["recipe"]
    assert (code, errors) == (0, "")
    assert (record["seed"], recipe["epochs"], recipe["lr"]) == (3, 2, 0.02)
    lines = shown.splitlines()
    assert lines[0].startswith("lenet5 on digits: 1,438 images, 2 epochs, batches of 32, on cpu")
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line[:9] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert all(word in epochs[0] for word in ("loss", "accuracy", "images/s", "s left"))
    assert f"test accuracy {record['result']['test_accuracy']:.2%} on 359 images" in shown
    assert f"convatlas predict {folder} IMAGE" in shown
    report = (folder / "report.md").read_text()
    command = "convatlas train lenet5 --data digits --seed 3 --recipe lenet5 --set epochs=2 --set lr=0.02\n"
    assert command in report
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-60",
        "step-80",
        "step-90",
    ]


def test_a_recipe_from_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 1\nbatch_size = 100\nlr = 0.03\n")
    words = f"train lenet5 --out {tmp_path} --name mine --config {tmp_path / 'mine.toml'}"
    assert run(capsys, monkeypatch, *words.split())[0] == 0
    record = json.loads((tmp_path / "mine" / "run.json").read_text())
    recipe = record["config"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"]) == (1, 100, 0.03)
    assert record["options"] == {"recipe": str(tmp_path / "mine.toml")}


def test_stopped_resumed_and_finished(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = f"train lenet5 --out {tmp_path} --name run --set epochs=5".split()
    training = subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert training.stdout is not None
    while not training.stdout.readline().startswith("epoch 1/5"):
        assert training.poll() is None
    training.send_signal(signal.SIGTERM)
    _, errors = training.communicate(timeout=120)
    assert training.returncode == 75
    folder = tmp_path / "run"
    assert f"`convatlas resume {folder}` goes on" in errors
    assert len(errors.splitlines()) == 1
    code, _, errors = run(capsys, monkeypatch, "resume", str(folder), "--set", "lr=0.1")
    assert code == 2
    assert (
        "config.recipe.lr: 0.05 -> 0.1; `--allow-change` (`allow_change=True`) goes on all the same" in errors
    )
    code, shown, _ = run(capsys, monkeypatch, "resume", str(folder))
    assert code == 0
    assert "goes on after step " in shown
    assert "epoch 5/5" in shown
    before = (folder / "weights.safetensors").read_bytes()
    code, shown, _ = run(capsys, monkeypatch, "resume", str(folder))
    assert code == 0
    assert shown.startswith(f"{folder}: is finished, with a test accuracy of ")
    assert (folder / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param("resume nowhere", "nowhere: no such run folder", id="resume"),
        pytest.param("train lenet5 --input 16", "`--input`=16 is too small; at least 32 px", id="input"),
        pytest.param("train lenet5 --device cuda:99", "`--device`='cuda:99' would be GPU 99", id="device"),
        pytest.param("train lenet5 --on-nan ignore", "--on-nan", id="on-nan"),
        pytest.param("train lenet5 --recipe a --config b.toml", "both name a recipe; give one", id="recipe"),
        pytest.param("train lenet5 --config recipe", "expected a file that ends in .toml", id="config"),
        pytest.param("train lenet5 --config no.toml", "no.toml", id="no-config"),
        pytest.param("train lenet5 --tag best", "lenet5 has no published weights", id="tag"),
        pytest.param("train lenet5 --data folder:gone", "gone", id="folder"),
    ],
)
def test_bad_input_gets_one_line_and_code_two(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown, errors = run(capsys, monkeypatch, *arguments.split())
    assert (code, shown) == (2, "")
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert errors.startswith("convatlas: ")
    assert list(tmp_path.iterdir()) == []


def test_only_the_first_of_several_processes_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RANK", "1")
    words = f"train lenet5 --out {tmp_path} --set epochs=1".split()
    code, shown, _ = run(capsys, monkeypatch, *words)
    assert code == 0
    assert "everything is in" not in shown


def test_a_terminal_gets_a_bar(tmp_path: Path) -> None:
    parent, child = pty.openpty()
    words = f"train lenet5 --set epochs=2 --out {tmp_path}".split()
    process = subprocess.Popen([*COMMAND, *words], stdout=child, stderr=child, close_fds=True)
    os.close(child)
    shown = b""
    while True:
        ready, _, _ = select.select([parent], [], [], 60)
        try:
            data = os.read(parent, 65536) if ready else b""
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(parent)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "epoch 2/2" in text
    assert "━" in text
    assert "images/s" in text


@pytest.mark.parametrize("flags", [["--epochs", "2"], ["--set", "epochs=2"]])
def test_fields_of_the_recipe_as_flags(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}
    monkeypatch.setattr("convatlas.training.train.train", lambda *_, **options: seen.update(options))
    monkeypatch.setattr("convatlas.cli.train.finish", lambda training: training() or 0)
    monkeypatch.setattr(sys, "argv", ["convatlas", "train", "lenet5", *flags, "--lr", "0.5"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert (seen["epochs"], seen["lr"]) == (2, 0.5)
    assert "batch_size" not in seen


def test_a_field_that_is_set_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["convatlas", "train", "lenet5", "--epochs", "2", "--set", "epochs=3"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "`--epochs 2` and `--set epochs` both set it; give one" in capsys.readouterr().err
