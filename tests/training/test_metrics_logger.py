import json
from pathlib import Path
from typing import Any

import pytest
import torch

from convatlas.metrics.classification import Evaluation
from convatlas.training.batch_order import BatchOrder
from convatlas.training.logging import metrics_logger as module
from convatlas.training.logging.events import EpochDone, Silent, StepDone
from convatlas.training.logging.metrics_logger import MetricsLogger, Stopwatch, cut_metrics, peak_memory

PLAN = BatchOrder(num_samples=100, batch_size=10, num_epochs=2, seed=0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def evaluation() -> Evaluation:
    nothing = torch.zeros(4)
    return Evaluation(3, None, 4, 0.5, torch.zeros(2, 2), nothing, nothing)


def make(folder: Path, callbacks: Any = (), first_step: int = 0) -> tuple[MetricsLogger, list[Any]]:
    told: list[Any] = []

    class Told(Silent):
        def step(self, done: StepDone) -> None:
            told.append(done)

        def epoch(self, done: EpochDone) -> None:
            told.append(done)

    return MetricsLogger(folder, PLAN, Told(), callbacks, torch.device("cpu"), first_step), told


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_watch_tells_training_from_waiting() -> None:
    clock = Clock()

    def slowly() -> Any:
        for item in "ab":
            clock.now += 3.0
            yield item

    watch, seen = Stopwatch(clock), []
    for item in watch.waiting(slowly()):
        seen.append(item)
        watch.images += 10
        clock.now += 1.0
    assert seen == ["a", "b"]
    assert (watch.seconds, watch.waited_s, watch.images_per_s) == (8.0, 6.0, 2.5)


def test_lines_come_every_few_seconds_and_each_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, received = Clock(), []
    monkeypatch.setattr(module.time, "perf_counter", clock)
    metrics_logger, told = make(tmp_path, [received.append])
    watch = Stopwatch(clock)
    for step in range(1, 11):
        clock.now += 1.0
        watch.images += 10
        metrics_logger.step(step, loss=float(step * 10), images=10, lr=0.1, watch=watch)
    metrics_logger.epoch(10, 0.25, 0.1, watch, evaluation(), 0.625)
    between, end = lines(tmp_path)
    execution = {"images_per_s": 10.0, "data_share": 0.0}
    assert between == {"step": 5, "epoch": 1, "loss": 3.0, "lr": 0.1} | execution
    assert (
        end
        == {"step": 10, "epoch": 1, "loss": 0.25, "lr": 0.1, "train_accuracy": 0.625}
        | {"test_accuracy": 0.75, "test_loss": 0.5}
        | execution
    )
    assert received == [between, end]
    steps, epochs = told[:-1], told[-1]
    assert [done.loss for done in steps] == [1.0, 1.5, 2.0, 2.5, 3.0, 6.0, 6.5, 7.0, 7.5, 8.0]
    assert [done.images for done in steps] == list(range(10, 101, 10))
    assert [done.left_s for done in steps][-1] == 10.0
    assert (epochs.epoch, epochs.test_accuracy, epochs.test_top5, epochs.left_s) == (0, 0.75, None, 10.0)


def test_what_is_beyond_the_checkpoint_goes(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": 0.1 * step} for step in (5, 10, 15)]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(content + '{"step": 20, "lo')
    cut_metrics(tmp_path, 10)
    assert lines(tmp_path) == rows[:2]
    cut_metrics(tmp_path, 10)
    assert lines(tmp_path) == rows[:2]
    cut_metrics(tmp_path / "nowhere", 10)
    metrics_logger, _ = make(tmp_path, first_step=7)
    assert lines(tmp_path) == rows[:1]
    metrics_logger.go_back(0)
    assert lines(tmp_path) == []


def test_memory_is_that_of_this_process() -> None:
    assert 10 * 2**20 < peak_memory(torch.device("cpu")) < 2**40
