"""The record of a search: one SQLite file, which one process writes and any may read."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from convatlas.search.spec import VERSION, SearchSpec

STORE = "search.db"


class StoreError(ValueError):
    """A folder that holds no search, or one that cannot be gone on with; the message says why."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One evaluation.

    Attributes:
        arm: "search" or "random", the baseline; "retrain" for trainings after the search.
        number: logical index in its arm.
        child: number of the architecture in its arm.
        text: of the architecture.
        rung: that it is trained on.
        state: "waiting", "done" or "failed".
        value: what was measured; None unless it is done.
        detail: what else is known, such as "reason" where it failed.
        seconds: that it took.
    """

    arm: str
    number: int
    child: int
    text: str
    rung: int
    state: str = "waiting"
    value: float | None = None
    detail: dict[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    seconds: float = 0.0


SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS job (
    arm TEXT NOT NULL, number INTEGER NOT NULL, child INTEGER NOT NULL, text TEXT NOT NULL,
    rung INTEGER NOT NULL, state TEXT NOT NULL, value REAL, detail TEXT NOT NULL, seconds REAL NOT NULL,
    PRIMARY KEY (arm, number));
CREATE TABLE IF NOT EXISTS latency (key TEXT PRIMARY KEY, seconds REAL NOT NULL);
"""


class Store:
    """The file of one search.

    Each write is a transaction: after a crash, or on a full disk, the file is as it was before it.

    Args:
        folder: of the search.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / STORE
        self._connection = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(SCHEMA)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def begin(self, spec: SearchSpec, extra: dict[str, Any]) -> None:
        """Writes what is asked for, or checks that it is what the file was begun with.

        Raises:
            StoreError: the file is of another search or version.
        """
        known = self.meta()
        if not known:
            with self._connection:
                for key, value in {"version": VERSION, "spec": spec.to_json(), **extra}.items():
                    self._connection.execute("INSERT INTO meta VALUES (?, ?)", (key, json.dumps(value)))
            return
        check_version(self.path, known)
        if known["spec"] != spec.to_json():
            before, now = json.loads(known["spec"]), json.loads(spec.to_json())
            changed = [f"{k} was {before.get(k)!r}, is {v!r}" for k, v in now.items() if before.get(k) != v]
            raise StoreError(
                f"{self.path.parent}: holds another search ({'; '.join(changed)}); name another folder, or "
                "go on with this one by `convatlas search resume`"
            )

    def meta(self) -> dict[str, Any]:
        """What the file says about the search."""
        return {key: json.loads(value) for key, value in self._connection.execute("SELECT * FROM meta")}

    def note(self, key: str, value: Any) -> None:
        """Keeps a fact about the search."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def put(self, job: Job) -> None:
        """Writes a job, in place of what stood at its number."""
        row = (job.arm, job.number, job.child, job.text, job.rung, job.state, job.value)
        self._connection.execute(
            "INSERT OR REPLACE INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, json.dumps(job.detail), job.seconds),
        )

    def jobs(self, arm: str) -> list[Job]:
        """The jobs of an arm, in order."""
        rows = self._connection.execute("SELECT * FROM job WHERE arm = ? ORDER BY number", (arm,))
        return [
            Job(arm, number, child, text, rung, state, value, json.loads(detail), seconds)
            for arm, number, child, text, rung, state, value, detail, seconds in rows
        ]

    def latencies(self) -> dict[str, float]:
        """Measured latencies in s, by the key of the architecture."""
        return dict(self._connection.execute("SELECT key, seconds FROM latency").fetchall())

    def put_latency(self, key: str, seconds: float) -> None:
        """Keeps a measured latency."""
        self._connection.execute("INSERT OR REPLACE INTO latency VALUES (?, ?)", (key, seconds))


def check_version(path: Path, meta: dict[str, Any]) -> None:
    """Refuses the file of another version.

    Raises:
        StoreError: it is of another version.
    """
    if meta.get("version") != VERSION:
        raise StoreError(
            f"{path}: was written by version {meta.get('version')} of the store, this is {VERSION}; "
            "begin the search anew in another folder"
        )


@contextmanager
def open_store(folder: Path) -> Generator[Store]:
    """Opens the store of a search that there is.

    Raises:
        StoreError: the folder holds no search, or one of another version.
    """
    if not (folder / STORE).is_file():
        raise StoreError(f"{folder}: holds no search (no {STORE}); `convatlas search run` begins one")
    try:
        with closing(Store(folder)) as store:
            meta = store.meta()
            if "spec" not in meta:
                raise StoreError(f"{folder / STORE}: holds no search; begin it anew in another folder")
            check_version(store.path, meta)
            yield store
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{folder / STORE}: cannot be read or written ({error})") from None


def read_spec(store: Store) -> SearchSpec:
    """What a search was asked for."""
    entry: dict[str, Any] = json.loads(store.meta()["spec"])
    entry["rungs"] = tuple(entry["rungs"])
    return SearchSpec(**entry)
