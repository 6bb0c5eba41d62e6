import builtins
import warnings
from pathlib import Path
from typing import Any

import pytest

from convatlas.training.logging.tensorboard import TensorBoard
from made_runs import lines

pytest.importorskip("tensorboard")


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: the steps and values of each chart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
        return {
            name: [(event.step, event.value) for event in events.Scalars(name)]
            for name in events.Tags()["scalars"]
        }


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    callback = TensorBoard(tmp_path)
    for line in lines(2):
        callback(line)
    charts = read(tmp_path)
    assert charts["accuracy/top-1"] == [(10, 0.5), (20, 0.75)]
    assert [step for step, _ in charts["loss/training"]] == [5, 10, 15, 20]
    assert charts["training/images per second"][-1] == (20, 200.0)
    assert charts.keys() == {
        "accuracy/top-1",
        "loss/training",
        "loss/test",
        "training/learning rate",
        "training/images per second",
    }


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    callback = TensorBoard(tmp_path)
    callback(lines(1)[0])
    assert read(tmp_path)["training/learning rate"] == [(5, pytest.approx(0.05))]


def test_a_resumed_run_hides_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    before, after = TensorBoard(tmp_path), TensorBoard(tmp_path)
    for line in lines(3):
        before(line)
    for line in lines(4)[3:]:
        after(line | {"loss": 9.0})
    shown = read(tmp_path)["loss/training"]
    assert [step for step, _ in shown] == [5, 10, 15, 20, 25, 30, 35, 40]
    assert [step for step, loss in shown if loss == 9.0] == [20, 25, 30, 35, 40]


def test_figures_that_it_does_not_know_keep_their_name(tmp_path: Path) -> None:
    TensorBoard(tmp_path)({"step": 3, "epoch": 1, "loss": 1.0, "data_share": 0.25, "note": "text"})
    assert read(tmp_path).keys() == {"loss/training", "data_share"}


def test_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"not installed .*pip install tensorboard"):
        TensorBoard(tmp_path)
