"""Trainings that something happens to: nothing is lost, and what is damaged is told and mended."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from convatlas import load, resume, train
from convatlas.runs.run import RunError, find_runs, open_run, read_metrics
from convatlas.training import session, trainer
from convatlas.training.distributed import RanksError, rank_timeout
from convatlas.training.logging.compare_runs import make_rows
from convatlas.training.signals import InterruptedWorkError, StoppedError, ending_at_once, stop_flag
from made_images import save_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    return train("lenet5", data="digits", epochs=1, batch_size=256, out=root, progress=False).folder


def copied(folder: Path, to: Path) -> Path:
    target = to / folder.name
    for path in folder.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_a_flipped_bit_of_the_weights_is_found_and_resume_writes_them_anew(
    folder: Path, tmp_path: Path, share: float
) -> None:
    damaged = copied(folder, tmp_path) / "weights.safetensors"
    before = damaged.read_bytes()
    content = bytearray(before)
    content[int(share * len(content))] ^= 16
    damaged.write_bytes(content)
    for source in (damaged.parent, damaged):
        with pytest.raises(RunError, match=r"is damaged \(its SHA-256 .* `convatlas resume"):
            load(source)
    resume(damaged.parent, progress=False)
    assert damaged.read_bytes() == before
    load(damaged.parent)


def test_a_changed_result_is_found(folder: Path, tmp_path: Path) -> None:
    record = copied(folder, tmp_path) / "run.json"
    content = json.loads(record.read_text())
    content["result"]["test_accuracy"] += 0.01
    record.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"the result is not what training wrote"):
        open_run(record.parent)


@pytest.mark.parametrize(
    "line", ["1", "[1]", "{}", "[" * 5000, '{"step": "a"}', '{"step": 1, "loss": []}', "\0"]
)
def test_a_damaged_line_of_metrics_is_told_of_its_run_alone(folder: Path, tmp_path: Path, line: str) -> None:
    copied(folder, tmp_path / "good")
    bad = copied(folder, tmp_path)
    metrics = (bad / "metrics.jsonl").read_text()
    (bad / "metrics.jsonl").write_text(f"{line}\n{metrics}")
    copied(folder, tmp_path / "other").rename(tmp_path / "fine")
    rows, damaged = make_rows(tmp_path)
    assert [row.run for row in rows] == ["fine"]
    assert [str(error) for error in damaged] == [f"{bad / 'metrics.jsonl'}: line 1 is damaged"]
    lost: list[RunError] = []
    assert len(read_metrics(bad, lost)) == len(metrics.splitlines()) and len(lost) == 1


def test_resume_leaves_a_damaged_line_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = stopped_in_evaluation(tmp_path, monkeypatch)
    (stopped / "metrics.jsonl").write_text("[1]\n")
    run = resume(stopped, progress=True)
    assert [line["epoch"] for line in run.metrics()] == [1, 2]
    assert "line 1 is damaged; it was left out" in "".join(capsys.readouterr())


def stopped_in_evaluation(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training to which SIGUSR1 comes in its first evaluation."""
    evaluate = trainer.evaluate

    def asked(*arguments: object, **options: object) -> object:
        os.kill(os.getpid(), signal.SIGUSR1)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(trainer, "evaluate", asked)
    with pytest.raises(StoppedError, match="stopped at step 6; "):
        train("lenet5", data="digits", epochs=2, batch_size=256, out=root, name="stopped", progress=False)
    monkeypatch.undo()
    assert not (root / "stopped" / "metrics.jsonl").exists()
    return root / "stopped"


def test_a_signal_in_an_evaluation_is_heeded_at_once_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resume(stopped_in_evaluation(tmp_path, monkeypatch), progress=False)
    whole = train("lenet5", data="digits", epochs=2, batch_size=256, out=tmp_path, progress=False)
    ours, theirs = load_file(run.weights), load_file(whole.weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    kept = ("step", "loss", "test_accuracy", "test_loss")
    lines = [[[line[name] for name in kept] for line in each.metrics()] for each in (run, whole)]
    assert lines[0] == lines[1]


def test_a_report_that_fails_undoes_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "no such letter")

    monkeypatch.setattr(session, "write_report", fails)
    run = train("lenet5", data="digits", epochs=1, batch_size=256, out=tmp_path, progress=True)
    assert run.state == "finished"
    assert "its report could not be written" in "".join(capsys.readouterr())
    monkeypatch.undo()
    assert resume(run.folder, progress=False).test_accuracy == run.test_accuracy
    assert (run.folder / "report.md").is_file()


def test_hostile_class_names_reach_the_report_escaped(tmp_path: Path) -> None:
    names = [b"bad\xff", b"a|b$x_1$", b"<script>"]
    for name in names:
        place = tmp_path / "data" / os.fsdecode(name)
        save_images(place, 6)
    options = {"input_size": 32, "epochs": 1, "batch_size": 6, "workers": 0, "progress": False}
    run = train("lenet5", data=f"folder:{tmp_path / 'data'}", out=tmp_path / "runs", **options)  # type: ignore[arg-type]
    text = (run.folder / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert (run.folder / "confusion.png").is_file()


def test_a_refusal_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lighting|channels"):
        train("lenet5", data="digits", epochs=1, out=tmp_path, progress=False, augment={"lighting": 0.1})
    assert list(tmp_path.iterdir()) == []


def test_data_by_a_relative_path_are_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        save_images(tmp_path / "home" / "images" / f"c{number}", 6)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    run = train(
        "lenet5", data="folder:images", input_size=32, epochs=1, batch_size=6, workers=0, progress=False
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "home" / "runs" / run.folder.name / "report.md").unlink()
    again = resume(tmp_path / "home" / run.folder, progress=False, workers=0)
    assert again.test_accuracy == run.test_accuracy


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_neither_followed_nor_waited_for(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    place = copied(folder, tmp_path)
    (place / ".lock").unlink(missing_ok=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "link":
        (place / ".lock").symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(place / ".lock")
    else:
        (place / ".lock").mkdir()
    assert [run.state for run in find_runs(tmp_path)[0]] == ["finished"]
    (place / "report.md").unlink()
    with pytest.raises(ValueError, match=r"\.lock: is a link or no regular file; remove it"):
        resume(place, progress=False)
    assert victim.read_text() == "precious"


def test_a_signal_after_the_last_step_ends_what_trains_on() -> None:
    with pytest.raises(InterruptedWorkError, match="the study x was stopped"), ending_at_once("the study x"):
        with stop_flag() as flag:
            os.kill(os.getpid(), signal.SIGTERM)
            assert flag.asked
        raise AssertionError("it went on")
    with pytest.raises(InterruptedWorkError), ending_at_once("the study x"):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_patience_with_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_timeout().total_seconds() == 120
    monkeypatch.setenv("CONVATLAS_RANK_TIMEOUT", "7.5")
    assert rank_timeout().total_seconds() == 7.5
    for bad in ("0", "-1", "nan", "soon", "1e999"):
        monkeypatch.setenv("CONVATLAS_RANK_TIMEOUT", bad)
        with pytest.raises(RanksError, match=f"CONVATLAS_RANK_TIMEOUT='{bad}'; expected a number of seconds"):
            rank_timeout()
