"""The ledger of a study: every run that was ever begun in a folder, with its budget and verdict."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convatlas.studies.protocol import Plan

LEDGER = "ledger.jsonl"

UNFINISHED = "begun, not finished"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        kind: "protocol", "repeat" or "pilot".
        preset: name.
        version: of the protocol.
        digest: of the protocol.
        seeds: first and last.
        turned: knobs that differ from the preset's.
        verdict: what came of it.
        begun: date.
    """

    kind: str
    preset: str
    version: int
    digest: str
    seeds: tuple[int, int]
    turned: Mapping[str, Any]
    verdict: str
    begun: str

    @property
    def budget(self) -> str:
        """What differs from the preset, in words."""
        return ", ".join(f"{name} {value}" for name, value in self.turned.items()) or "as frozen"


def note(folder: Path, plan: Plan, verdict: str = UNFINISHED) -> None:
    """Appends a run to the ledger of a study: once when it begins and once when it ends.

    Args:
        folder: of the study, above those of its runs.
        plan: of the run.
        verdict: what came of it.
    """
    knobs = plan.knobs
    line = {
        "kind": plan.kind,
        "preset": plan.preset,
        "version": plan.protocol["version"],
        "digest": plan.digest,
        "seeds": [knobs.first_seed, knobs.first_seed + knobs.seeds - 1],
        "turned": plan.turned,
        "verdict": verdict,
        "begun": time.strftime("%Y-%m-%d"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, (json.dumps(line) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def read_ledger(folder: Path) -> list[Entry]:
    """Every run of a study in the order in which they were begun, each with its last verdict."""
    path = folder / LEDGER
    if not path.is_file():
        return []
    found: dict[tuple[str, ...], Entry] = {}
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except ValueError:  # A line that was cut when the machine went down.
            continue
        line["seeds"] = tuple(line["seeds"])
        entry = Entry(**line)
        key = (entry.kind, entry.digest, str(entry.seeds))
        before = found.get(key)
        if before is None:
            found[key] = entry
        elif entry.verdict != UNFINISHED:
            found[key] = dataclasses.replace(before, verdict=entry.verdict)
    return list(found.values())
