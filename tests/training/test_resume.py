"""Whatever stops a training, and whenever: resumed, it ends with the same weights to the bit."""

import dataclasses
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from convatlas import resume, train
from convatlas.data.sets import ImageSet, Source
from convatlas.runs.checkpoint import SpaceError, steps_in
from convatlas.runs.lock import LockedError, locked
from convatlas.runs.run import Run, RunError, open_run
from convatlas.training.logging.events import Silent, StepDone
from convatlas.training.signals import StoppedError

# Two epochs of ten steps each, a checkpoint every four steps and at the epochs' ends.
KILLS: dict[str, dict[str, Any]] = {
    "not-killed": {},
    "before-the-first-checkpoint": {"after_step": 3},
    "inside-the-first-step": {"inside_update": 0},
    "after-a-step": {"after_step": 7},
    "inside-a-step": {"inside_update": 14},
    "at-an-epochs-end": {"after_step": 10},
    "after-the-last-step": {"after_step": 20},
}
# The record takes two calls, a checkpoint about fourteen.
KILLS |= {
    f"{'after' if number % 2 else 'before'}-write-{call}": {"write": call, "after": bool(number % 2)}
    for number, call in enumerate((1, 3, 5, 8, 11, 13, 15, 16, 17, 31, 52))
}


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How each of the killed trainings ended, once resumed."""
    program = Path(__file__).with_name("kill_and_resume.py")
    command = [sys.executable, str(program), str(tmp_path_factory.mktemp("kills"))]
    found = subprocess.run(command, input=json.dumps(KILLS), capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("case", KILLS)
def test_killed_and_resumed_to_the_same_bits(kills: dict[str, Any], case: str) -> None:
    ended, whole = kills[case], kills["not-killed"]
    assert ended["killed"] == (case != "not-killed")
    assert ended["code"] == 0
    assert ended["sha256"] == whole["sha256"] != ""
    assert [without_speed(line) for line in ended["lines"]] == [
        without_speed(line) for line in whole["lines"]
    ]
    assert not [name for name in ended["left"] if not name.startswith("step-")]


def without_speed(line: str) -> dict[str, Any]:
    kept = json.loads(line)
    return {name: value for name, value in kept.items() if name not in ("images_per_s", "data_share")}


def sha256(run: Run) -> str:
    return hashlib.sha256((run.folder / "weights.safetensors").read_bytes()).hexdigest()


def same_tensors(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "weights.safetensors") for folder in (one, other))
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


class Told(Silent):
    """Keeps what is noted; asks for the end after a step."""

    def __init__(self, stop_after: int = 0, number: int = signal.SIGTERM) -> None:
        self.stop_after, self.number = stop_after, number
        self.notes: list[str] = []

    def step(self, done: StepDone) -> None:
        if done.step == self.stop_after:
            os.kill(os.getpid(), self.number)

    def note(self, text: str) -> None:
        self.notes.append(text)


def stopped(step: int, number: int = signal.SIGTERM, **options: Any) -> Path:
    """The folder of a training that a signal ended after a step."""
    with pytest.raises(StoppedError) as raised:
        train(**options, watcher=Told(step, number))
    return Path(raised.value.folder)


SOURCE_LABELS = torch.arange(60) % 3


def spots() -> Source:
    """60 images of three brightnesses."""
    noise = torch.randint(0, 60, (60, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    images = (noise + 60 * SOURCE_LABELS.view(-1, 1, 1, 1)).to(torch.uint8)
    part = ImageSet(images, SOURCE_LABELS)
    return Source("spots", part, part, ("dark", "grey", "light"), "0" * 64, (1, 32, 32))


SMALL: dict[str, Any] = {"network": "lenet5", "epochs": 2, "batch_size": 10}


def small(out: Path, **options: Any) -> dict[str, Any]:
    return SMALL | {"data": spots(), "out": out} | options


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda n: n.name)
def test_a_signal_saves_at_the_next_step(tmp_path: Path, number: signal.Signals) -> None:
    folder = stopped(3, number, **small(tmp_path, name="stopped"))
    assert steps_in(folder / "checkpoints")[-1] in (
        3,
        4,
    )  # Told of step 3, it heeds the flag at the next look.
    assert open_run(folder).state == "stopped"
    ended = resume(folder, data=spots())
    assert sha256(ended) == sha256(train(**small(tmp_path, name="whole")))
    assert ended.state == "finished"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"optimizer": "rmsprop", "nesterov": False, "lr": 0.001}, id="rmsprop"),
        pytest.param({"optimizer": "adamw", "nesterov": False, "lr": 0.001}, id="adamw"),
        pytest.param({"drop_rate": 0.4, "ema_decay": 0.9}, id="dropout-and-average"),
        pytest.param({"augment.mixup": 0.5, "augment.cutmix": 0.5, "augment.flip": 0.5}, id="mixing"),
        pytest.param({"accumulate": 2, "sizes": [[0.0, 40], [0.6, 32]]}, id="parts-and-sizes"),
        pytest.param({"exact": True}, id="exact"),
        pytest.param({"patience": 1, "epochs": 20, "lr": 1e-7}, id="early-stopping"),
    ],
)
def test_nothing_that_learns_is_forgotten(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = stopped(8, **small(tmp_path, name="stopped", **options))
    ended = resume(folder, data=spots())
    whole = train(**small(tmp_path, name="whole", **options))
    assert sha256(ended) == sha256(whole)
    assert ended.record["result"]["steps"] == whole.record["result"]["steps"]


def test_stopped_again_and_again(tmp_path: Path) -> None:
    folder = stopped(2, **small(tmp_path, name="stopped"))
    for step in (4, 8, 10):
        with pytest.raises(StoppedError):
            resume(folder, data=spots(), watcher=Told(step))
    assert sha256(resume(folder, data=spots())) == sha256(train(**small(tmp_path, name="whole")))


def test_a_stop_during_the_last_step_leaves_the_evaluation_to_resume(tmp_path: Path) -> None:
    ended = resume(stopped(12, **small(tmp_path, name="stopped")), data=spots())
    assert ended.state == "finished"
    assert sha256(ended) == sha256(train(**small(tmp_path, name="whole")))


def test_a_finished_run_is_returned_as_it_is(tmp_path: Path) -> None:
    run = train(**small(tmp_path))
    before, told = sha256(run), Told()
    again = resume(run.folder, data=spots(), watcher=told)
    assert again.test_accuracy == run.test_accuracy
    assert sha256(again) == before
    assert told.notes == [f"{run.folder}: is finished, with a test accuracy of {run.test_accuracy:.2%}"]


def test_a_finished_run_is_trained_longer(tmp_path: Path) -> None:
    run = train(**small(tmp_path))
    epochs = run.record["result"]["epochs"]
    with pytest.raises(RunError, match="is finished, and epochs would change it; `--allow-change`"):
        resume(run.folder, data=spots(), epochs=epochs + 2)
    longer = resume(run.folder, data=spots(), epochs=epochs + 2, allow_change=True)
    assert longer.record["result"]["epochs"] == epochs + 2
    assert [line["epoch"] for line in longer.metrics() if "test_accuracy" in line] == list(
        range(1, epochs + 3)
    )


@pytest.mark.parametrize("name", ["weights.safetensors", "optimiser.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str) -> None:
    folder = stopped(8, **small(tmp_path, name="stopped", save_every=3))
    *_, before, newest = steps_in(folder / "checkpoints")
    path = folder / "checkpoints" / f"step-{newest}" / name
    content = bytearray(path.read_bytes())
    content[random.Random(0).randrange(len(content))] ^= 1
    path.write_bytes(content)
    told = Told()
    ended = resume(folder, data=spots(), watcher=told)
    assert len(told.notes) == 1
    assert told.notes[0].startswith(f"step-{newest} is damaged: ")
    assert told.notes[0].endswith(f"; going back to step-{before}")
    assert sha256(ended) == sha256(train(**small(tmp_path, name="whole")))


def test_a_torn_line_of_the_metrics_goes(tmp_path: Path) -> None:
    folder = stopped(8, **small(tmp_path, name="stopped"))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 11, "epoch": 2, "loss": 9.0, "lr": 0.0}) + "\n" + '{"step": 12, "lo')
    ended, whole = resume(folder, data=spots()), train(**small(tmp_path, name="whole"))
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (ended.folder, whole.folder)]
    assert [without_speed(line) for line in lines[0]] == [without_speed(line) for line in lines[1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"lr": 0.01}, r"config\.recipe\.lr: 0\.05 -> 0\.01; `--allow-change`", id="lr"),
        pytest.param({"epochs": 3}, r"config\.recipe\.epochs: 2 -> 3", id="epochs"),
        pytest.param({"augment.flip": 0.5}, r"config\.recipe\.augment\.flip: 0\.0 -> 0\.5", id="flip"),
        pytest.param(
            {"data": dataclasses.replace(spots(), fingerprint="1" * 64)},
            r"data\.fingerprint: 0+ -> 1+",
            id="data",
        ),
    ],
)
def test_a_change_is_refused_unless_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = stopped(8, **small(tmp_path))
    with pytest.raises(RunError, match=rf"what is asked for is not what .* was trained with: {message}"):
        resume(folder, **({"data": spots()} | change))
    ended = resume(folder, allow_change=True, **({"data": spots()} | change))
    assert ended.record["config"]["recipe"]["epochs"] == change.get("epochs", 2)
    assert ended.record["result"]["epochs"] == change.get("epochs", 2)


def test_how_it_is_kept_goes_on(tmp_path: Path) -> None:
    folder = stopped(2, **small(tmp_path, save_every=1, keep=2))
    resume(folder, data=spots())
    assert steps_in(folder / "checkpoints")[-2:] == [11, 12]
    assert len(steps_in(folder / "checkpoints")) <= 3  # And the best.
    assert json.loads((folder / "run.json").read_text())["upkeep"] == {"save_every": 1, "keep": 2}


def test_data_may_move(folder_runs: dict[str, Any], tmp_path: Path) -> None:
    options = {name: value for name, value in folder_runs.items() if name not in ("sha256", "folder")}
    folder = stopped(5, **options, workers=0)
    moved = tmp_path / "elsewhere"
    shutil.copytree(options["data"].removeprefix("folder:"), moved)
    ended = resume(folder, data=f"folder:{moved}", workers=0)
    assert ended.record["config"]["data"] == f"folder:{moved}"
    assert same_tensors(ended.folder, folder_runs["folder"])


def test_an_edited_record_is_a_change(tmp_path: Path) -> None:
    folder = stopped(8, **small(tmp_path))
    record = json.loads((folder / "run.json").read_text())
    record["config"]["recipe"]["momentum"] = 0.5
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"config\.recipe\.momentum: 0\.9 -> 0\.5"):
        resume(folder, data=spots())
    record["config"]["recipe"].pop("lr")
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"`lr` is missing"):
        resume(folder, data=spots())


def test_other_conditions_are_said(tmp_path: Path) -> None:
    folder = stopped(8, **small(tmp_path))
    record = json.loads((folder / "run.json").read_text())
    record["versions"]["torch"] = "2.10.0"
    (folder / "run.json").write_text(json.dumps(record))
    told = Told()
    ended = resume(folder, data=spots(), watcher=told)
    change = f"torch: 2.10.0 -> {torch.__version__}"
    assert told.notes == [f"the result may differ in its last bits from that of one go: {change}"]
    assert ended.record["conditions_changed"] == [change]


@pytest.mark.parametrize("times", [2.0, 0.5], ids=["ours", "torch's"])
def test_convolutions_are_those_that_the_run_began_with(
    times: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        layers = (nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1))
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))

    monkeypatch.setattr("convatlas.training.cpu.choose.gain", lambda *_: times)
    whole = train(**small(tmp_path, name="whole") | {"network": net()})
    folder = stopped(8, **small(tmp_path, name="stopped") | {"network": net()})
    assert json.loads((folder / "run.json").read_text())["replaced"] == (["winograd"] if times > 1 else [])
    monkeypatch.setattr("convatlas.training.cpu.choose.gain", lambda *_: 1 / times)
    told = Told()
    assert sha256(resume(folder, network=net(), data=spots(), watcher=told)) == sha256(whole)
    assert not told.notes


def test_other_convolutions_than_the_runs_are_said(tmp_path: Path) -> None:
    folder = stopped(8, **small(tmp_path))
    record = json.loads((folder / "run.json").read_text())
    record["replaced"] = ["winograd"]  # There is none in this network, so that it takes torch's.
    (folder / "run.json").write_text(json.dumps(record))
    told = Told()
    resume(folder, data=spots(), watcher=told)
    change = "our own convolutions: winograd -> none"
    assert told.notes == [f"the result may differ in its last bits from that of one go: {change}"]


def test_a_record_of_before_convolutions_were_kept_goes_on(tmp_path: Path) -> None:
    folder = stopped(8, **small(tmp_path))
    record = json.loads((folder / "run.json").read_text())
    del record["replaced"]
    (folder / "run.json").write_text(json.dumps(record))
    told = Told()
    assert resume(folder, data=spots(), watcher=told).state == "finished"
    assert not told.notes


def test_the_number_of_threads_is_that_of_the_run(tmp_path: Path) -> None:
    folder, threads = stopped(8, **small(tmp_path, name="stopped")), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        told = Told()
        ended = resume(folder, data=spots(), watcher=told)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert told.notes == []
    assert sha256(ended) == sha256(train(**small(tmp_path, name="whole")))


def test_another_process_at_work_is_not_disturbed(tmp_path: Path) -> None:
    folder = stopped(8, **small(tmp_path))
    with (
        locked(folder),
        pytest.raises(LockedError, match=f"process {os.getpid()} on .* is working on this run"),
    ):
        resume(folder, data=spots())


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(handle: int) -> None:
        if ".writing-6-" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    message = r"no room for the checkpoint of step 6: it needs [\d.]+ MiB, .* MiB are free; step-3 is safe"
    with pytest.raises(SpaceError, match=message):
        train(**small(tmp_path, name="full", save_every=3))
    monkeypatch.undo()
    assert steps_in(tmp_path / "full" / "checkpoints") == [3]
    ended = resume(tmp_path / "full", data=spots())
    assert sha256(ended) == sha256(train(**small(tmp_path, name="whole")))


class Module(nn.Module):
    """A network from Python; no two of them begin alike."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


@pytest.mark.parametrize("step", [2, 8], ids=["before-its-first-checkpoint", "later"])
def test_a_module_goes_on_from_its_own_weights(tmp_path: Path, step: int) -> None:
    first = Module()
    twin = Module()
    twin.load_state_dict(first.state_dict())
    options = small(tmp_path, recipe="resnet_cifar", network=first, name="stopped")
    folder = stopped(step, **options)
    for path in (folder / "checkpoints").glob("step-[1-9]"):
        if step == 2:  # As if it had been killed: the first weights are all that is left.
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    with pytest.raises(
        RunError, match=r"was started from Python with Module on spots; only `convatlas\.resume"
    ):
        resume(folder)
    ended = resume(folder, network=Module(), data=spots())
    assert sha256(ended) == sha256(train(**(options | {"network": twin, "name": "whole"})))


def images(root: Path) -> str:
    draw = np.random.default_rng(0)
    for label in range(2):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(14):
            size = int(draw.integers(30, 50)), int(draw.integers(30, 50)), 3
            pixels = draw.integers(0, 120, size, dtype=np.uint8) + np.uint8(60 * label)
            Image.fromarray(pixels).save(root / f"class{label}" / f"{number}.png")
    return f"folder:{root}"


@pytest.fixture(scope="module")
def folder_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A training on images without workers, and its options."""
    root = tmp_path_factory.mktemp("images")
    options = {
        "network": "resnet20_cifar", "data": images(root / "photos"), "out": root / "runs", "epochs": 2,
        "batch_size": 6, "input_size": 16, "augment.resized_crop.scale": [0.3, 1.0], "augment.flip": 0.5,
    }  # fmt: skip
    run = train(**options, workers=0)
    return options | {"sha256": sha256(run), "folder": run.folder}


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers(folder_runs: dict[str, Any], workers: int) -> None:
    options = {name: value for name, value in folder_runs.items() if name not in ("sha256", "folder")}
    folder = stopped(5, **options, workers=workers)
    assert sha256(resume(folder, workers=3 - min(workers, 3))) == folder_runs["sha256"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        pytest.param(lambda f: (f / "run.json").unlink(), "is not the folder of a run", id="no-record"),
        pytest.param(lambda f: (f / "run.json").write_text("{"), "run.json: is damaged", id="damaged"),
    ],
)
def test_folders_that_are_no_runs(tmp_path: Path, harm: Any, message: str) -> None:
    folder = stopped(2, **small(tmp_path))
    harm(folder)
    with pytest.raises(RunError, match=message):
        resume(folder)
    with pytest.raises(RunError, match="no such run folder"):
        resume(tmp_path / "nowhere")
