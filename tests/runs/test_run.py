import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from convatlas.runs.lock import locked
from convatlas.runs.run import find_run, find_runs, flat, open_run, read_metrics
from made_runs import lines, make_run


def test_the_states_of_a_run(tmp_path: Path) -> None:
    finished, unfinished = make_run(tmp_path / "a-1"), make_run(tmp_path / "a-2", done=2, finished=False)
    assert open_run(finished).state == "finished"
    assert open_run(unfinished).state == "stopped"
    with locked(unfinished):
        assert open_run(unfinished).state == "running"
    assert open_run(unfinished).state == "stopped"


def test_a_killed_process_no_longer_runs(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a-1", done=1, finished=False)
    code = "import sys, time; from pathlib import Path; from convatlas.runs.lock import locked\n"
    code += "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"locked\n"
        assert open_run(folder).state == "running"
        process.kill()
    assert open_run(folder).state == "stopped"


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a-1", done=1, finished=False)
    with locked(folder):
        pass
    run = open_run(folder)
    assert run.state == "stopped"
    with (folder / ".lock").open("r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_accuracy_and_weights(tmp_path: Path) -> None:
    finished, unfinished = make_run(tmp_path / "a-1"), make_run(tmp_path / "a-2", done=2, finished=False)
    assert open_run(finished).test_accuracy == 1.0 - 0.5**4
    assert open_run(finished).weights == finished / "weights.safetensors"
    assert open_run(unfinished).test_accuracy == 0.75
    with pytest.raises(ValueError, match=r"a-2: is not the folder of a finished run .*no weights"):
        _ = open_run(unfinished).weights
    early = make_run(tmp_path / "a-3", done=0, finished=False)
    with pytest.raises(ValueError, match=r"a-3: has no accuracy yet; its first epoch is not over"):
        _ = open_run(early).test_accuracy


def test_metrics_are_read_up_to_a_line_that_was_cut_off(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a-1", done=2)
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 21, "lo')
    assert read_metrics(folder) == lines(2)
    path.write_text('{"step": 1\n' + path.read_text())
    with pytest.raises(ValueError, match=r"metrics.jsonl: line 1 is damaged"):
        read_metrics(folder)


def test_a_run_without_metrics_has_no_lines(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a-1")
    (folder / "metrics.jsonl").unlink()
    assert read_metrics(folder) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", r"run\.json: is damaged \(JSONDecodeError", id="cut"),
        pytest.param("[]", r"run\.json: is damaged \(TypeError", id="list"),
        pytest.param('{"config": {}}', r"run\.json: is damaged \(KeyError: 'network'\)", id="config"),
    ],
)
def test_damaged_records(tmp_path: Path, content: str, message: str) -> None:
    folder = make_run(tmp_path / "a-1")
    (folder / "run.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_run(folder)


def test_what_is_no_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a-1")
    with pytest.raises(ValueError, match=r"a-2: no such run folder; runs there: a-1"):
        open_run(tmp_path / "a-2")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"other: is not the folder of a run \(it holds no run\.json\)"):
        open_run(tmp_path / "other")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_record_that_may_not_be_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a-1")
    (folder / "run.json").chmod(0)
    with pytest.raises(ValueError, match=r"run\.json: cannot be read \(Permission denied\)"):
        open_run(folder)


def test_runs_are_found_in_order_of_their_start(tmp_path: Path) -> None:
    for name, started in (("b-1", "2026-01-03"), ("c-1", "2026-01-01"), ("a-1", "2026-01-02")):
        path = make_run(tmp_path / name) / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"started": started}))
    (make_run(tmp_path / "d-1") / "run.json").write_text("{")
    runs, damaged = find_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["c-1", "a-1", "b-1"]
    assert [str(error).startswith(f"{tmp_path / 'd-1' / 'run.json'}: is damaged") for error in damaged] == [
        True
    ]
    with pytest.raises(ValueError, match=r"nowhere: no such folder"):
        find_runs(tmp_path / "nowhere")


def test_a_run_is_found_by_name_or_path(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "lenet5-digits-1")
    assert find_run("lenet5-digits-1", tmp_path / "runs").folder == folder
    assert find_run(str(folder), tmp_path / "elsewhere").folder == folder
    with pytest.raises(ValueError, match=r"no run 'lenet5-digits-2' in .*runs; nearest: lenet5-digits-1"):
        find_run("lenet5-digits-2", tmp_path / "runs")


def test_flat_names() -> None:
    assert dict(flat({"a": {"b": 1, "c": {"d": 2}}, "e": None})) == {"a.b": 1, "a.c.d": 2}
