"""Searches with processes and a store: the same trajectory whatever happens."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import convatlas.search as search
from convatlas.search.report import beats, pareto, verdict
from convatlas.search.schedule import calibrate, next_job
from convatlas.search.store import Job

sys.path.insert(0, str(Path(__file__).parent))
os.environ["PYTHONPATH"] = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
import evaluators

SHORT: dict[str, Any] = {"space": "tiny", "algorithm": "evolve", "evaluations": 22, "top": 1}


def texts(study: search.Study) -> list[tuple[str, float]]:
    return [(found.text, value) for found, value in study.history]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> search.Study:
    return search.run(**SHORT, evaluate=evaluators.ones, workers=1, out=tmp_path_factory.mktemp("s") / "one")


def test_more_workers_with_delays_give_the_same(alone: search.Study, tmp_path: Path) -> None:
    study = search.run(**SHORT, evaluate=evaluators.slow, workers=3, out=tmp_path / "three")
    assert texts(study) == texts(alone)
    assert study.best == alone.best


def test_killed_workers_and_a_killed_driver_change_nothing(alone: search.Study, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    code = (
        "import evaluators, convatlas.search as s\n"
        "if __name__ == '__main__':\n"
        f"    s.run(**{SHORT!r}, evaluate=evaluators.slow, workers=2, out={str(folder)!r})\n"
    )
    script = tmp_path / "driver.py"
    script.write_text(code)
    driver = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _done(folder) < 5:
        time.sleep(0.02)
    driver.kill()
    driver.wait()
    assert search.status(folder)["finished"] is False
    killer = threading.Thread(target=_kill_children, args=(4,))
    killer.start()
    study = search.resume(folder, evaluate=evaluators.slow)
    killer.join()
    assert texts(study) == texts(alone)
    assert study.best == alone.best


def _done(folder: Path) -> int:
    if not (folder / "search.db").is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{folder / 'search.db'}?mode=ro", uri=True) as connection:
            return connection.execute("SELECT count(*) FROM job WHERE state = 'done'").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def _kill_children(count: int) -> None:
    """Kills processes that this test's process has started, some time apart."""
    for _ in range(count):
        time.sleep(0.3)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in children[-1:]:
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)


def test_report_and_files(alone: search.Study) -> None:
    report = (alone.folder / "report.md").read_text()
    assert "P(search better)" in report
    assert "## Winner's curse" in report
    assert (alone.folder / "front.png").read_bytes()[:4] == b"\x89PNG"
    assert "<table>" in (alone.folder / "report.html").read_text()
    found, _ = search.best(alone.folder)
    assert found == alone.best
    now = search.status(alone.folder)
    assert (now["tried"], now["finished"]) == (22, True)
    assert {text for text, _ in texts(alone)} >= {now["best"]}


def test_a_folder_holds_one_search(alone: search.Study) -> None:
    with pytest.raises(ValueError, match=r"holds another search \(evaluations was 22, is 23"):
        search.run(**{**SHORT, "evaluations": 23}, evaluate=evaluators.ones, out=alone.folder)
    with pytest.raises(ValueError, match="was begun from Python"):
        search.resume(alone.folder)


def test_failures_are_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    study = search.run(**SHORT, evaluate=evaluators.fails, workers=1, out=tmp_path / "fails")
    failed = [job for job in study.jobs if job.state == "failed"]
    assert failed
    assert all("max3" in job.text and "no memory for two max3" in job.detail["reason"] for job in failed)
    assert study.best is not None


def test_a_search_of_failures_stops(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluations failed; the last one, of .*: RuntimeError: no memory"):
        search.run(**SHORT, evaluate=evaluators.always_fails, workers=1, out=tmp_path / "never")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_params": 1000}, r"no architecture is within the limits: `max_params`=1,000 \(the smallest"),
        ({"space": "tny"}, "unknown space 'tny'; nearest: tiny"),
        ({"algorithm": "modell"}, "unknown algorithm 'modell'; nearest: model"),
        ({"rungs": (3, 1)}, r"`rungs`=\(3, 1\); expected rising numbers of epochs"),
        ({"repeats": 2}, "`repeats`=2; expected a whole number of at least 3"),
        ({"cluster": "slurm"}, "`cluster`='slurm'; expected 'ray'"),
        ({"evaluate": None, "data": "digits", "validation_share": 0.001}, "too small for a validation split"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {**SHORT, "evaluate": evaluators.ones, "workers": 1, "out": tmp_path / "bad", **arguments}
    with pytest.raises(ValueError, match=message):
        search.run(**given)


def test_no_search_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no search \(no search\.db\)"):
        search.status(tmp_path)


def test_interval_of_few_repeats_is_no_evidence() -> None:
    assert verdict(beats([3, 3, 3], [1, 1, 1])) == "no evidence"
    assert verdict(beats([3] * 8, [1] * 8)) == "better"
    assert verdict(beats([1] * 8, [3] * 8)) == "worse"
    # Jeffreys' interval for 5 of 5, by the quantile of Beta(5.5, 0.5).
    assert beats([2] * 5, [1] * 5)[1] == pytest.approx(0.621, abs=0.002)


def test_pareto_front() -> None:
    assert pareto([(1, 5.0), (2, 4.0), (2, 6.0), (3, 6.0), (0.5, 1.0)]) == [4, 0, 2]


def test_rungs_that_disagree_are_not_used() -> None:
    def values(sign: int) -> dict[tuple[int, int], float]:
        return {(child, rung): child * (sign if rung == 0 else 1) for child in range(8) for rung in range(2)}

    agree, disagree = calibrate(values(1), 2), calibrate(values(-1), 2)
    assert agree is not None and agree.used and agree.correlations == pytest.approx((1.0,))
    assert disagree is not None and not disagree.used and disagree.correlations == pytest.approx((-1.0,))


def test_rungs_promote_the_best_third() -> None:
    space = search.find_space("tiny")

    from convatlas.search.algorithms import RandomSearch

    jobs: list[Job] = []
    children: list[search.Architecture] = []
    problem = search.Problem(space)
    while True:
        made = next_job("search", jobs, jobs, children, 20, 2, problem, RandomSearch(), 0)
        if made is None:
            break
        job, found = made
        if found is not None:
            children.append(found)
        jobs.append(
            Job(job.arm, job.number, job.child, job.text, job.rung, "done", job.child + job.rung / 10)
        )
    assert len(children) == 20
    promoted = {job.child for job in jobs if job.rung == 1}
    assert promoted >= set(range(8))  # Calibration.
    assert 19 in promoted
    assert len({(job.child, job.rung) for job in jobs}) == len(jobs)
