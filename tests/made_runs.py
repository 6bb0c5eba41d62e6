"""Run folders as training leaves them and events as it tells them, made without training."""

import json
import math
from pathlib import Path
from typing import Any

from convatlas.training.logging.events import EpochDone, Facts, StepDone


def record(
    *, network: str = "lenet5", data: str = "digits", epochs: int = 4, lr: float = 0.05
) -> dict[str, Any]:
    """What `run.json` of an unfinished run says."""
    return {
        "config": {
            "network": network,
            "data": data,
            "recipe": {
                "epochs": epochs,
                "batch_size": 32,
                "lr": lr,
                "patience": None,
                "schedule": {"kind": "cosine"},
                "augment": {"flip": 0.0},
            },
        },
        "settings": {},
        "seed": 3,
        "started": "2026-11-21T07:00:00",
        "versions": {"python": "3.11.7", "convatlas": "0.1", "torch": "2.15.0"},
        "machine": {"system": "Linux", "processor": "a processor", "cores": 2, "threads": 1},
        "data": {"fingerprint": "0" * 64, "train": 1000, "test": 40},
    }


def lines(epochs: int, *, steps: int = 10) -> list[dict[str, Any]]:
    """Metrics of so many whole epochs: a line within each, and one at its end with 50 %, 75 %, 87.5 %, ..."""
    made: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        shared = {"loss": math.exp(-epoch / 2), "lr": 0.05 / epoch, "images_per_s": 100.0 * epoch}
        made.append({"step": epoch * steps - steps // 2, "epoch": epoch - 1, **shared})
        measured = {"test_accuracy": 1.0 - 0.5**epoch, "test_loss": math.exp(-epoch / 3)}
        made.append({"step": epoch * steps, "epoch": epoch, **shared, **measured})
    return made


def make_run(
    folder: Path, *, done: int = 4, finished: bool = True, top5: bool = False, **options: Any
) -> Path:
    """Makes a run folder after `done` epochs; `options` as `record` takes them."""
    folder.mkdir(parents=True)
    written, made = lines(done), record(**options)
    if top5:
        for line in written:
            if "test_accuracy" in line:
                line["test_top5"] = 1.0 - 0.1 ** line["epoch"]
    if finished:
        made["result"] = {
            "test_accuracy": written[-1]["test_accuracy"],
            "test_loss": written[-1]["test_loss"],
            "train_loss": written[-1]["loss"],
            "seconds": 75.4,
        }
        (folder / "weights.safetensors").write_bytes(b"")
    (folder / "run.json").write_text(json.dumps(made))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in written))
    return folder


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def facts(**changes: Any) -> Facts:
    """What is known before a ResNet-20 begins, with changes."""
    given: dict[str, Any] = {
        "network": "resnet20_cifar",
        "data": "fashion-mnist",
        "folder": Path("runs/resnet20_cifar-fashion-mnist-1"),
        "num_images": 60_000,
        "num_test_images": 10_000,
        "num_epochs": 12,
        "num_steps": 12 * 469,
        "first_step": 0,
        "batch_size": 128,
        "world_size": 1,
        "device": "cpu",
        "execution": ("channels-last: convolutions are faster so", "float32: no bf16 on this chip"),
    }
    return Facts(**(given | changes))


def step_done(number: int = 100, **changes: Any) -> StepDone:
    given: dict[str, Any] = {
        "step": number,
        "num_steps": 12 * 469,
        "epoch": 0,
        "num_epochs": 12,
        "images": number * 128,
        "loss": 0.5,
        "lr": 0.1,
        "images_per_s": 1234.5,
        "data_share": 0.004,
        "memory_bytes": 812 * 1024**2,
        "left_s": 252.0,
    }
    return StepDone(**(given | changes))


def epoch_done(number: int, accuracy: float, top5: float | None = None) -> EpochDone:
    return EpochDone(
        step=469 * (number + 1),
        epoch=number,
        num_epochs=12,
        loss=0.25,
        lr=0.1,
        images_per_s=1200.0,
        test_accuracy=accuracy,
        test_top5=top5,
        test_loss=0.125,
        left_s=47.0,
    )
