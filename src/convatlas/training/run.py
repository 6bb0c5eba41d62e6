"""The folder that a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convatlas._version import __version__
from convatlas.files import write_json
from convatlas.machine import processor

if TYPE_CHECKING:
    from convatlas.models.network import Network

WEIGHTS = "weights.safetensors"
RECORD = "run.json"
METRICS = "metrics.jsonl"


class RunError(ValueError):
    """A folder that cannot be used as a run; the message names it and says why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: where its files lie.
        record: what `run.json` says: config, seed, versions, machine, fingerprint of the data, result.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def test_accuracy(self) -> float:
        """Share of the test images that were classified correctly, in [0, 1]."""
        return self.record["result"]["test_accuracy"]

    def load(self) -> Network[Any]:
        """The trained network, as `convatlas.load` gives it."""
        from convatlas.inference.load import load

        return load(self.folder)


def open_run(folder: Path) -> Run:
    """Reads the record of a run.

    Raises:
        RunError: the folder is missing, or is not the folder of a finished run.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder{_others(folder)}")
    for name in (RECORD, WEIGHTS):
        if not (folder / name).is_file():
            raise RunError(
                f"{folder}: is not the folder of a finished run (it holds no {name}){_others(folder)}"
            )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        _ = record["config"]["network"], record["config"]["data"], record["result"]["test_accuracy"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / RECORD}: is damaged ({error})") from None
    return Run(folder, record)


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

    found = {name: metadata.version(name) for name in ("numpy", "pillow", "scikit-learn")}
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


def _number(name: str, stem: str) -> int:
    tail = name.removeprefix(f"{stem}-")
    return int(tail) if tail.isdecimal() else 0


def _others(folder: Path) -> str:
    found = sorted(path.parent.name for path in folder.parent.glob(f"*/{RECORD}"))[:3]
    return f"; runs there: {', '.join(found)}" if found else ""
