"""Large jobs: predictions go to a file in parts, each written whole, so that a killed job goes on."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from convatlas.files import write_atomic
from convatlas.predict.engine_policy import EngineName
from convatlas.predict.inputs import Item, find_items, list_files
from convatlas.predict.outputs import Format, Prediction, Skipped, encode, format_of, join, require_parquet
from convatlas.predict.predictor import Predictor
from convatlas.predict.progress import watched
from convatlas.runs.lock import LOCK, locked

JOB = "job.json"
FILES = "files.json"
DONE = "done.json"
PART_FILES = 1024
"""Files whose predictions are one part: what is lost at most when a job is killed. Whole batches, so that a
resumed job makes the same ones and gives the same predictions to the bit."""

Results = Prediction | Skipped
Parts = dict[int, list[str]]
PartRunner = Callable[[Parts], Iterator[tuple[int, Results]]]
"""Predictions the files of parts, by number: the number with each prediction, and each part in one piece."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What became of a job.

    Attributes:
        out: the file with the predictions.
        predictions: how many this process gave.
        refusals: images without a prediction in this process; each is in the file, with its reason.
        resumed: files that an earlier process had predicted already.
        earlier_refusals: images without a prediction in earlier processes.
    """

    out: Path
    predictions: int
    refusals: int
    resumed: int
    earlier_refusals: int = 0


def run_job(
    predictor: Predictor,
    images: Sequence[str | os.PathLike[str]],
    out: str | Path,
    *,
    top: int | None = None,
    fps: float | None = 1.0,
    runner: PartRunner | None = None,
) -> Job:
    """Writes the predictions on many files into one file, which appears when all are there.

    Until then they are kept in the folder `OUT.parts`, each part with its SHA-256. When the job is killed,
    the same call goes on after the last whole part, and a damaged part is made anew; the list of files is the
    one that was made when the job began.

    Args:
        predictor: predictions.
        images: files, folders, patterns and films; "-" for names of files on standard input.
        out: ends in .jsonl, .csv or .parquet.
        top: how many classes to name; None for 3, or all where there are fewer.
        fps: frames a second that are taken from a film; None for all.
        runner: predictions in place of this process, as `ray_runner` makes one.

    Raises:
        ValueError: `out` is there already, belongs to another job or is worked on, a value is out of range,
            or a package is missing.
    """
    out = Path(out)
    form = format_of(out)
    if form == "parquet":
        require_parquet()
    top = predictor.check(top, fps)
    if not images:
        raise ValueError("name at least one image")
    parts = _parts_of(out)
    if out.exists() and not any((parts / name).exists() for name in (JOB, DONE)):
        raise ValueError(f"{out}: is there already; name another file, or remove it to have it made anew")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no folder {out.parent}")
    parts.mkdir(exist_ok=True)
    with locked(parts):
        identity = _identity(predictor, images, form, top, fps)
        finished = _finished(parts, out, identity)
        if finished is not None:
            _clean(parts)
            return finished
        files = _begin(parts, identity, images)
        paths = [parts / f"{start:012d}.{form}" for start in range(0, len(files), PART_FILES)]
        refused = [_refusals_in(path) for path in paths]
        missing = {
            number: files[number * PART_FILES : (number + 1) * PART_FILES]
            for number, count in enumerate(refused)
            if count is None
        }
        resumed, earlier = len(files) - sum(map(len, missing.values())), sum(count or 0 for count in refused)
        results = (runner or _local_runner(predictor, top, fps))(missing)
        counts = _write_parts(paths, results, form, top, len(files), resumed)
        _finish(out, paths, form)
        refusals = earlier + counts[Skipped]
        done = identity | {"files": len(files), "refusals": refusals}
        write_atomic(parts / DONE, json.dumps(done))
        _clean(parts)
    return Job(out, counts[Prediction], counts[Skipped], resumed, earlier)


def _finished(parts: Path, out: Path, identity: dict[str, Any]) -> Job | None:
    """What became of a job that was killed in its clean-up, when its file was there already."""
    try:
        done = json.loads((parts / DONE).read_text(encoding="utf-8"))
        files, refusals = int(done["files"]), int(done["refusals"])
    except (ValueError, OSError, KeyError, TypeError):
        return None
    if not out.exists():  # It was taken away since; what is left of the folder holds nothing of use.
        _clean(parts, keep_folder=True)
        return None
    differing = _differing(done, identity)
    if differing:
        raise ValueError(f"{out}: is there already, and was made by another job ({differing}); name another")
    return Job(out, 0, 0, files, refusals)


def _clean(parts: Path, *, keep_folder: bool = False) -> None:
    """Deletes a job's folder, its answers first: a kill leaves none without what says whose they are."""
    for path in sorted(parts.iterdir()):
        if path.name not in (JOB, FILES, DONE, LOCK):
            path.unlink(missing_ok=True)
    for name in (FILES, JOB, *((DONE,) if keep_folder else ())):
        (parts / name).unlink(missing_ok=True)
    if not keep_folder:
        shutil.rmtree(parts)


def _sum_of(path: Path) -> Path:
    """Where the SHA-256 of a part lies."""
    return path.with_name(f"sum-{path.stem}.json")


def _write_part(path: Path, results: Sequence[Results], form: Format, top: int) -> None:
    """Writes a part, and then what tells that it is whole."""
    content = encode(results, form, top)
    write_atomic(path, content)
    refusals = sum(isinstance(each, Skipped) for each in results)
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "refusals": refusals}
    write_atomic(_sum_of(path), json.dumps(facts))


def _refusals_in(path: Path) -> int | None:
    """How many images of a part were refused; None where the part is missing or not what was written."""
    try:
        facts = json.loads(_sum_of(path).read_text(encoding="utf-8"))
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]
        return int(facts["refusals"]) if whole else None
    except (ValueError, OSError, KeyError, TypeError):
        return None


def begun_engine(out: str | Path) -> EngineName | None:
    """The engine of the job that was begun under this name, which has to go on with it; None if none was."""
    try:
        engine = json.loads((_parts_of(Path(out)) / JOB).read_text(encoding="utf-8"))["engine"]
    except (ValueError, OSError, KeyError, TypeError):
        return None
    return engine if engine in get_args(EngineName) else None


def _parts_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _local_runner(predictor: Predictor, top: int, fps: float | None) -> PartRunner:
    def run(parts: Parts) -> Iterator[tuple[int, Results]]:
        # The predictor reads ahead, across the borders of parts; this says which part a prediction is of.
        numbers: collections.deque[int] = collections.deque()

        def items() -> Iterator[Item]:
            for number, files in parts.items():
                for item in find_items(files, fps):
                    numbers.append(number)
                    yield item

        for results in predictor.stream_items(items(), top):
            yield numbers.popleft(), results

    return run


def _write_parts(
    paths: Sequence[Path],
    predicted: Iterable[tuple[int, Results]],
    form: Format,
    top: int,
    total: int,
    resumed: int,
) -> dict[type[Results], int]:
    """Writes each part when its last prediction has come; counts predictions and refusals."""
    counts: dict[type[Results], int] = {Prediction: 0, Skipped: 0}
    numbers: collections.deque[int] = collections.deque()

    def noted() -> Iterator[Results]:
        for number, results in predicted:
            numbers.append(number)
            yield results

    part: list[Results] = []
    current = -1
    for results in watched(noted(), total, resumed):
        number = numbers.popleft()
        if number != current and part:
            _write_part(paths[current], part, form, top)
            part = []
        current = number
        part.append(results)
        counts[type(results)] += 1
    if part:
        _write_part(paths[current], part, form, top)
    return counts


def _begin(parts: Path, identity: dict[str, Any], images: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files of the job: listed now, or as they were listed when it began.

    Raises:
        ValueError: what is there belongs to another job.
    """
    if (parts / JOB).is_file():
        try:
            earlier = json.loads((parts / JOB).read_text(encoding="utf-8"))
            listed = (parts / FILES).read_bytes()
            whole = earlier["files_sha256"] == hashlib.sha256(listed).hexdigest()
            differing = _differing(earlier, identity)
        except (ValueError, OSError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{parts}: is damaged ({error}); remove it to begin anew") from None
        if differing:
            raise ValueError(f"{parts}: belongs to another job ({differing}); remove it to begin anew")
        if not whole:
            raise ValueError(
                f"{parts}: is damaged ({FILES} is not what was written); remove it to begin anew"
            )
        return json.loads(listed)
    _clean(parts, keep_folder=True)  # Answers without a job are nobody's.
    files = list_files(images)
    content = json.dumps(files).encode()
    write_atomic(parts / FILES, content)
    # Last: with it, the job has begun.
    write_atomic(parts / JOB, json.dumps(identity | {"files_sha256": hashlib.sha256(content).hexdigest()}))
    return files


def _differing(earlier: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
    """In which parts of its identity a job differs from an earlier one."""
    return ", ".join(
        f"{key} {earlier.get(key)!r}, not {value!r}"
        for key, value in identity.items()
        if earlier.get(key) != value
    )


def _identity(
    predictor: Predictor,
    images: Sequence[str | os.PathLike[str]],
    form: Format,
    top: int,
    fps: float | None,
) -> dict[str, Any]:
    """What must be the same for a job to go on."""
    return {
        "weights": predictor.fingerprint(),
        "engine": predictor.engine,
        "precision": predictor.precision,
        "exact": predictor.exact,
        "images": [os.fspath(image) for image in images],
        "folder": str(Path.cwd()),
        "format": form,
        "top": top,
        "fps": fps,
        "part_files": PART_FILES,
    }


def _finish(out: Path, paths: Sequence[Path], form: Format) -> None:
    """Joins the parts under a temporary name, and renames."""
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            join(paths, form, file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod((paths[0].stat().st_mode) & 0o777)
        Path(temporary).replace(out)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
