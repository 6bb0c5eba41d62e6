import json
from pathlib import Path

import pytest

from convatlas.runs.run import open_run
from convatlas.training.logging.compare_runs import Difference, compare, draw_runs, make_row, make_rows
from made_runs import make_run


def test_rows(tmp_path: Path) -> None:
    finished = make_row(open_run(make_run(tmp_path / "lenet5-digits-1")))
    assert (finished.run, finished.network, finished.data) == ("lenet5-digits-1", "lenet5", "digits")
    assert (finished.state, finished.epoch, finished.epochs) == ("finished", 4, 4)
    assert (finished.test_accuracy, finished.images_per_s, finished.seconds) == (0.9375, 400.0, 75.4)
    stopped = make_row(open_run(make_run(tmp_path / "lenet5-digits-2", done=2, finished=False)))
    assert (stopped.state, stopped.epoch, stopped.test_accuracy, stopped.seconds) == (
        "stopped",
        2,
        0.75,
        None,
    )
    begun = make_row(open_run(make_run(tmp_path / "lenet5-digits-3", done=0, finished=False)))
    assert (begun.epoch, begun.test_accuracy, begun.images_per_s) == (0, None, None)


def test_a_damaged_run_does_not_hide_the_others(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1")
    (make_run(tmp_path / "a-2") / "metrics.jsonl").write_text("no\nlines\n")
    (make_run(tmp_path / "a-3") / "run.json").write_text("{")
    rows, damaged = make_rows(tmp_path)
    assert [row.run for row in rows] == ["a-1"]
    assert sorted(str(error).split(":")[0] for error in damaged) == [
        str(tmp_path / "a-2" / "metrics.jsonl"),
        str(tmp_path / "a-3" / "run.json"),
    ]


def test_differences(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a-1", lr=0.05)
    second = make_run(tmp_path / "a-2", lr=0.1, done=2, finished=False)
    path = second / "run.json"
    record = json.loads(path.read_text())
    record["config"]["recipe"]["augment"]["mixup"] = 0.2
    record["settings"] = {"lr": 0.1}
    path.write_text(json.dumps(record))
    found = compare(open_run(first), open_run(second))
    assert found[:1] == [Difference("config.recipe.lr", 0.05, 0.1)]
    assert Difference("config.recipe.augment.mixup", None, 0.2) in found
    assert Difference("result.seconds", 75.4, None) in found
    assert not [pair for pair in found if pair.name.startswith("settings")]
    assert all(pair.first != pair.second for pair in found)
    assert compare(open_run(first), open_run(first)) == []


@pytest.mark.parametrize("done", [0, 1, 3])
def test_curves_of_two_runs(tmp_path: Path, done: int) -> None:
    runs = [open_run(make_run(tmp_path / name, done=done, finished=False)) for name in ("a-1", "a-2")]
    assert draw_runs(runs).startswith(b"\x89PNG")
