"""The folder that a run leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from convatlas._version import __version__
from convatlas.data.sets import Source
from convatlas.data.sources import load_source
from convatlas.errors import nearest
from convatlas.files import write_json
from convatlas.machine import processor
from convatlas.runs.lock import LockedError, open_lock
from convatlas.summary import Summary

WEIGHTS = "weights.safetensors"
RECORD = "run.json"
METRICS = "metrics.jsonl"

State = Literal["running", "stopped", "finished"]
Line = dict[str, Any]
"""One line of `metrics.jsonl`."""

METRIC_NUMBERS = ("epoch", "loss", "lr", "images_per_s", "test_accuracy", "test_loss", "train_accuracy")
"""Of a line of `metrics.jsonl`, what is a number wherever it stands."""


class RunError(ValueError):
    """A folder that cannot be used as a run; the message names it and says why."""


@dataclasses.dataclass(frozen=True, repr=False)
class Run(Summary):
    """A training: one that is over, one that goes on, or one that was stopped and can be resumed.

    Attributes:
        folder: where its files lie.
        record: what `run.json` says: config, seed, versions, machine, fingerprint of the data and, once the
            run is finished, its result.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def state(self) -> State:
        """Whether it is "finished", "running" (a process trains in the folder now), or "stopped".

        A process that was killed writes nothing any more; so what tells is the lock that it held.
        """
        if "result" in self.record:
            return "finished"
        return "running" if _is_locked(self.folder) else "stopped"

    @property
    def test_accuracy(self) -> float:
        """Share of the test images that were classified correctly, in [0, 1]: of the last evaluation.

        Raises:
            RunError: nothing has been evaluated yet.
        """
        if "result" in self.record:
            return self.record["result"]["test_accuracy"]
        measured = epoch_lines(self.metrics())
        if not measured:
            raise RunError(f"{self.folder}: has no accuracy yet; its first epoch is not over")
        return measured[-1]["test_accuracy"]

    @property
    def weights(self) -> Path:
        """The file with the final weights, whose SHA-256 is the one in the record.

        Raises:
            RunError: the run is not finished, or the file is not the one that training wrote.
        """
        path = self.folder / WEIGHTS
        if "result" not in self.record or not path.is_file():
            raise RunError(
                f"{self.folder}: is not the folder of a finished run (it holds no {WEIGHTS})"
                f"{_others(self.folder)}"
            )
        stated = self.record["result"].get("weights_sha256")
        if stated is not None and sha256_of(path) != stated:
            raise RunError(
                f"{path}: is damaged (its SHA-256 is not the one in {RECORD}); `convatlas resume "
                f"{self.folder}` writes it anew from the last checkpoint"
            )
        return path

    def metrics(self) -> list[Line]:
        """The lines of `metrics.jsonl`, oldest first; a last line that was cut off is left out."""
        return read_metrics(self.folder)

    def _title(self) -> str:
        config = self.record.get("config", {})
        return f"Run of {config.get('network', '?')} on {config.get('data', '?')}, {self.state}"

    def _facts(self) -> dict[str, object]:
        result = self.record.get("result", {})
        facts: dict[str, object] = {"folder": self.folder}
        if "test_accuracy" in result:
            facts["test accuracy"] = f"{result['test_accuracy']:.2%}"
            facts["epochs"] = f"{result.get('epochs', '?')} in {result.get('seconds', 0.0):,.0f} s"
        facts["seed"] = self.record.get("seed", "?")
        return facts

    def __fspath__(self) -> str:
        """The folder, so that a run stands wherever a path to it does: `convatlas.load(run)`."""
        return str(self.folder)


def open_run(folder: Path) -> Run:
    """Reads the record of a run, whether it is finished or not.

    Raises:
        RunError: the folder is missing, is not that of a run, or its record is damaged.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder{_others(folder)}")
    path = folder / RECORD
    if not path.is_file():
        raise RunError(f"{folder}: is not the folder of a run (it holds no {RECORD}){_others(folder)}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        _ = record["config"]["network"], record["config"]["data"], record["config"]["recipe"]["epochs"]
        if "result" in record:
            _ = record["result"]["test_accuracy"]
            check_result(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: is damaged ({type(error).__name__}: {error})") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    return Run(folder, record)


def sealed(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with the SHA-256 of what it says, by which a flipped bit is found."""
    return {**result, "sha256": _digest(result)}


def check_result(record: Mapping[str, Any]) -> None:
    """Compares the result of a run with its SHA-256, where it has one.

    Raises:
        ValueError: it is not what training wrote.
    """
    result = dict(record.get("result") or {})
    stated = result.pop("sha256", None)
    if stated is not None and stated != _digest(result):
        raise ValueError("the result is not what training wrote: its checksum differs")


def _digest(result: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_runs(root: Path) -> tuple[list[Run], list[RunError]]:
    """Every run directly below `root`, in order of their start, and why others cannot be read.

    Raises:
        RunError: there is no such folder.
    """
    if not root.is_dir():
        raise RunError(f"{root}: no such folder; runs are kept where `convatlas train --out` says")
    runs: list[Run] = []
    damaged: list[RunError] = []
    for path in sorted(root.glob(f"*/{RECORD}")):
        try:
            runs.append(open_run(path.parent))
        except RunError as error:
            damaged.append(error)
    return sorted(runs, key=lambda run: (str(run.record.get("started", "")), run.folder.name)), damaged


def trained_on(folder: Path, record: Mapping[str, Any]) -> Source:
    """Loads the data set that a run was trained on, by the name in its record.

    Raises:
        RunError: the record is damaged.
        ValueError: the data are gone or cannot be used.
    """
    try:
        on_bad_image = record["config"].get("on_bad_image", "refuse")
        name, data_dir = locate_data(record), locate_data_dir(record)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{folder / RECORD}: is damaged ({type(error).__name__}: {error})") from None
    return load_source(name, data_dir=data_dir, on_bad_image=on_bad_image)


def locate_data(record: Mapping[str, Any]) -> str:
    """The name of a run's data; a relative path that leads nowhere here begins where it was trained."""
    name = str(record["config"]["data"])
    kind, colon, path = name.partition(":")
    return f"{kind}:{_from_there(path, record)}" if colon and path else name


def locate_data_dir(record: Mapping[str, Any]) -> str | None:
    """Where the small data sets of a run lie; None for the usual place."""
    path = record.get("options", {}).get("data_dir")
    return None if path is None else _from_there(str(path), record)


def _from_there(path: str, record: Mapping[str, Any]) -> str:
    """A path as it stands where it leads somewhere, else from the folder that the run was trained in."""
    there = Path(str(record.get("cwd", ""))) / path
    return str(there) if not Path(path).exists() and there.exists() else path


def find_run(name: str, root: Path) -> Run:
    """The run in the folder `name`, or in `root/name`.

    Raises:
        RunError: neither is the folder of a run; names the nearest.
    """
    for folder in (root / name, Path(name)):
        if (folder / RECORD).is_file():
            return open_run(folder)
    known = [path.parent.name for path in root.glob(f"*/{RECORD}")]
    raise RunError(f"no run {name!r} in {root}" + (f"; nearest: {nearest(name, known)}" if known else ""))


def read_metrics(folder: Path, damaged: list[RunError] | None = None) -> list[Line]:
    """The lines of a run's `metrics.jsonl`, oldest first; a last line that was cut off is left out.

    Args:
        folder: of the run.
        damaged: receives an error for each line that is damaged, which is left out; None to raise the first.

    Raises:
        RunError: a line is not one that training writes, or the file cannot be read.
    """
    path = folder / METRICS
    try:
        # A pipe under this name would be waited for.
        texts = path.read_bytes().split(b"\n") if path.is_file() else []
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    cut_off = texts.pop() if texts else b""
    lines: list[Line] = []
    for number, text in enumerate(texts, 1):
        try:
            lines.append(_metrics_line(path, number, text))
        except RunError as error:
            if damaged is None:
                raise
            damaged.append(error)
    with contextlib.suppress(RunError):
        lines += [_metrics_line(path, len(texts) + 1, cut_off)] if cut_off else []
    return lines


def _metrics_line(path: Path, number: int, text: bytes) -> Line:
    try:
        line = json.loads(text.decode("utf-8"))
        if not isinstance(line, dict) or not isinstance(line["step"], int) or line["step"] < 0:
            raise ValueError("no step")
        for name in METRIC_NUMBERS:
            if not isinstance(line.get(name, 0.0), int | float):
                raise ValueError(f"`{name}` is no number")
    except (ValueError, KeyError, RecursionError):
        raise RunError(f"{path}: line {number} is damaged") from None
    return line


def epoch_lines(lines: list[Line]) -> list[Line]:
    """Those lines that hold an evaluation: one for each epoch."""
    return [line for line in lines if "test_accuracy" in line]


def flat(entry: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a nested mapping with their dotted names; what is None is left out."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{path}{name}.")
        elif value is not None:
            yield f"{path}{name}", value


def make_run_folder(root: Path, stem: str) -> Path:
    """Makes `root/stem-N` with the smallest number above those that are there.

    Raises:
        RunError: the folder cannot be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        taken = [_number(path.name, stem) for path in root.glob(f"{stem}-*")]
        number = 1 + max(taken, default=0)
        while True:
            folder = root / f"{stem}-{number}"
            try:
                folder.mkdir()
                return folder
            except FileExistsError:  # Another process took the number since we looked.
                number += 1
    except OSError as error:
        raise RunError(f"`out`={str(root)!r}: cannot make a run folder there ({error.strerror})") from None


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes `run.json`, atomically."""
    write_json(folder / RECORD, record)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what the result depends on."""
    import torch

    names = ("numpy", "pillow", "scikit-learn", "torchvision")
    found = {name: metadata.version(name) for name in names}
    python = {"python": platform.python_version(), "convatlas": __version__}
    return python | found | {"torch": torch.__version__}  # torch's own says which build it is


def machine(threads: int) -> dict[str, Any]:
    """What the run ran on."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
    }


def _is_locked(folder: Path) -> bool:
    try:
        handle = open_lock(folder, os.O_RDONLY)
    except (OSError, LockedError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _number(name: str, stem: str) -> int:
    tail = name.removeprefix(f"{stem}-")
    return int(tail) if tail.isdecimal() else 0


def _others(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.parent.glob(f"*/{RECORD}"))[:3]
    return f"; runs there: {', '.join(found)}" if found else ""
