import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from convatlas import Predictor
from convatlas.predict import job
from convatlas.predict.job import Parts, Results, run_job
from convatlas.predict.outputs import Prediction, Skipped
from made_images import pixels, save_images, small_network, weights_file


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(small_network(), batch_size=3, workers=2)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten images, one of them damaged."""
    paths = save_images(tmp_path / "photos", 10)
    paths[4].write_text("nothing")
    return tmp_path / "photos"


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_job(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    done = run_job(predictor, [photos], out, top=2)
    assert (done.out, done.predictions, done.refusals, done.resumed) == (out, 9, 1, 0)
    assert records(out) == [results.record() for results in predictor.predict(photos, top=2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "predictions.jsonl"]
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_other_formats(predictor: Predictor, photos: Path, tmp_path: Path, form: str) -> None:
    pandas = pytest.importorskip("pandas")
    run_job(predictor, [photos], tmp_path / f"predictions.{form}")
    table = getattr(pandas, f"read_{form}")(tmp_path / f"predictions.{form}", dtype_backend="numpy_nullable")
    wanted = predictor.predict(photos)
    assert list(table["image"]) == [results.image for results in wanted]
    for row, results in zip(table.to_dict("records"), wanted, strict=True):
        if isinstance(results, Prediction):
            assert row["class_1"] == results.label
            assert row["probability_3"] == pytest.approx(results.top[2][1], abs=1e-6)
        else:
            assert row["error"] == results.reason


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3, 4, 8, 10])
def test_a_job_that_was_killed_goes_on(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(job, "PART_FILES", 3)
    out = tmp_path / "predictions.jsonl"

    def dies(parts: Parts) -> Iterator[tuple[int, Results]]:
        predictions = job._local_runner(predictor, 3, 1.0)(parts)
        for _ in range(after):
            yield next(predictions)
        raise Killed

    with pytest.raises(Killed):
        run_job(predictor, [photos], out, runner=dies)
    assert not out.exists()
    wanted = [results.record() for results in predictor.predict(photos)]
    save_images(tmp_path / "photos" / "new", 1)  # It came too late: the list was made when the job began.
    done = run_job(predictor, [photos], out)
    whole_parts = max(0, after - 1) // 3
    assert done.resumed == 3 * whole_parts
    assert done.predictions + done.refusals == 10 - done.resumed
    assert records(out) == wanted


def test_a_job_that_was_killed_after_its_last_part(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "predictions.jsonl"

    def dies(path: Path) -> None:
        raise Killed

    monkeypatch.setattr("shutil.rmtree", dies)
    with pytest.raises(Killed):
        run_job(predictor, [photos], out)
    monkeypatch.undo()
    done = run_job(predictor, [photos], out)
    assert (done.predictions, done.resumed) == (0, 10)
    assert len(records(out)) == 10
    assert not (tmp_path / "predictions.jsonl.parts").exists()


SCRIPT = """
import sys, time
from convatlas import load
from convatlas.predict import job
job.PART_FILES = 2
predictor = load(sys.argv[1], batch_size=1)
if len(sys.argv) > 4:
    predictions = predictor.stream_items
    predictor.stream_items = lambda *given: (time.sleep(0.3) or said for said in predictions(*given))
print(job.run_job(predictor, [sys.argv[2]], sys.argv[3]).resumed)
"""


def test_a_process_that_was_killed_goes_on(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        str(weights_file(tmp_path / "w.safetensors")),
        str(photos),
        str(out),
    ]
    process = subprocess.Popen([*command, "slowly"])
    parts = tmp_path / "predictions.jsonl.parts"
    deadline = time.monotonic() + 120
    while len(list(parts.glob("0*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 4 <= int(done.stdout) < 10
    results = Predictor(small_network(), batch_size=1).predict(photos)
    assert records(out) == [entry.record() for entry in results]


def test_a_job_of_another_kind(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"

    def dies(parts: Parts) -> Iterator[tuple[int, Results]]:
        raise Killed

    with pytest.raises(Killed):
        run_job(predictor, [photos], out, runner=dies)
    with pytest.raises(ValueError, match=r"belongs to another job \(top 3, not 2\); remove it to begin anew"):
        run_job(predictor, [photos], out, top=2)
    with pytest.raises(ValueError, match=r"belongs to another job \(weights '"):
        run_job(Predictor(small_network(1)), [photos], out)
    with pytest.raises(ValueError, match=r"belongs to another job \(weights '"):
        run_job(Predictor(small_network(), class_names="abcdefghij"), [photos], out)
    with pytest.raises(ValueError, match=r"belongs to another job \(exact False, not True\)"):
        run_job(Predictor(small_network(), exact=True), [photos], out)
    with pytest.raises(ValueError, match=r"belongs to another job \(images \["):
        run_job(predictor, [photos / "000.png"], out)
    (tmp_path / "predictions.jsonl.parts" / "job.json").write_text("{")
    with pytest.raises(ValueError, match=r"predictions\.jsonl\.parts: is damaged"):
        run_job(predictor, [photos], out)


def test_two_jobs_at_once(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "predictions.jsonl"

    def another(parts: Parts) -> Iterator[tuple[int, Results]]:
        run_job(predictor, [photos], out)
        yield from ()

    with pytest.raises(ValueError, match=f"process {os.getpid()} on .* is working on this"):
        run_job(predictor, [photos], out, runner=another)


@pytest.mark.parametrize(
    ("name", "images", "options", "message"),
    [
        pytest.param("there.csv", ["a.png"], {}, r"there\.csv: is there already; name another", id="there"),
        pytest.param("no/a.csv", ["a.png"], {}, "a.csv: there is no folder .*no", id="folder"),
        pytest.param("a.txt", ["a.png"], {}, "expected a name that ends in one of", id="format"),
        pytest.param("a.csv", [], {}, "name at least one image", id="none"),
        pytest.param("a.csv", ["a.png"], {"top": 11}, "`top`=11; expected 1 to 10", id="top"),
        pytest.param("a.csv", ["a.png"], {"fps": -1.0}, "`fps`=-1.0; expected", id="fps"),
    ],
)
def test_jobs_that_cannot_begin(
    predictor: Predictor,
    tmp_path: Path,
    name: str,
    images: list[str],
    options: dict[str, float],
    message: str,
) -> None:
    (tmp_path / "there.csv").write_text("precious")
    with pytest.raises(ValueError, match=message):
        run_job(predictor, images, tmp_path / name, **options)  # type: ignore[arg-type]
    assert (tmp_path / "there.csv").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


def test_parquet_without_its_package(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        run_job(predictor, [photos], tmp_path / "a.parquet")


def test_a_folder_with_no_image(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run_job(predictor, [tmp_path / "empty"], tmp_path / "a.jsonl")
    assert (done.predictions, done.refusals) == (0, 1)
    assert "no images in it" in str(records(tmp_path / "a.jsonl")[0]["error"])


def test_one_prediction_for_each_of_many(predictor: Predictor, tmp_path: Path) -> None:
    save_images(tmp_path / "many", 40)
    done = run_job(predictor, [tmp_path / "many", tmp_path / "many"], tmp_path / "a.jsonl", top=1)
    assert done.predictions == 80
    found = records(tmp_path / "a.jsonl")
    assert found[:40] == found[40:]
    (alone,) = predictor.predict(pixels(7), top=1)
    assert not isinstance(alone, Skipped)
    assert found[7]["top"] == alone.record()["top"]


def test_a_damaged_part_is_made_anew(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PART_FILES", 3)
    out = tmp_path / "answers.jsonl"

    def dies(parts: Parts) -> Iterator[tuple[int, Results]]:
        predictions = job._local_runner(predictor, 3, 1.0)(parts)
        for _ in range(10):
            yield next(predictions)
        raise Killed

    with pytest.raises(Killed):
        run_job(predictor, [photos], out, runner=dies)
    part = tmp_path / "answers.jsonl.parts" / "000000000003.jsonl"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    done = run_job(predictor, [photos], out)
    # The damaged image is among the three of the damaged part.
    assert (done.resumed, done.refusals, done.earlier_refusals) == (6, 1, 0)
    assert records(out) == [results.record() for results in predictor.predict(photos)]


def test_refusals_of_an_earlier_process_count(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PART_FILES", 3)
    out = tmp_path / "answers.jsonl"
    real = job._finish

    def dies(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(job, "_finish", dies)
    with pytest.raises(Killed):
        run_job(predictor, [photos], out)
    monkeypatch.setattr(job, "_finish", real)
    done = run_job(predictor, [photos], out)
    assert (done.resumed, done.refusals, done.earlier_refusals) == (10, 0, 1)


@pytest.mark.parametrize("at", range(4, 12))
def test_a_kill_within_the_clean_up_leaves_no_answers_for_the_next_job(
    predictor: Predictor, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(job, "PART_FILES", 3)
    out, left, unlink = tmp_path / "answers.jsonl", [at], Path.unlink

    def dies(path: Path, missing_ok: bool = False) -> None:
        left[0] -= path.parent.name.endswith(".parts")
        if not left[0]:
            raise Killed
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", dies)
    with pytest.raises(Killed):
        run_job(predictor, [photos], out)
    monkeypatch.undo()
    monkeypatch.setattr(job, "PART_FILES", 3)
    first = out.read_bytes()
    # The same job has nothing to do, and another one takes none of its answers.
    assert run_job(predictor, [photos], out).resumed == 10
    assert out.read_bytes() == first
    assert not (tmp_path / "answers.jsonl.parts").exists()
    out.unlink()
    assert run_job(predictor, [photos / "000.png"], out, top=1).predictions == 1
    assert len(records(out)) == 1


def test_parts_without_a_job_are_not_taken(predictor: Predictor, photos: Path, tmp_path: Path) -> None:
    parts = tmp_path / "answers.jsonl.parts"
    parts.mkdir()
    (parts / "000000000000.jsonl").write_text('{"image": "other"}\n')
    run_job(predictor, [photos], tmp_path / "answers.jsonl")
    assert records(tmp_path / "answers.jsonl") == [each.record() for each in predictor.predict(photos)]
