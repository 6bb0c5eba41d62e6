"""Protocols: what is fixed before the first run, its hash, and what kind of run a set of knobs makes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from convatlas.files import write_json
from convatlas.studies.knobs import Knobs
from convatlas.studies.statistics import LEVEL
from convatlas.studies.study import Study

FROZEN = Path(__file__).with_name("protocols.toml")
PROTOCOL = "protocol.json"

PILOT_SEED = 100_000
"""First seed of pilots, which no report uses."""

REPEAT_SEEDS = 1_000
"""How far the seeds of a repetition lie from those of the one before."""

Kind = Literal["protocol", "repeat", "pilot"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is about to be run.

    Attributes:
        kind: "protocol": the frozen one; "repeat": the same on other seeds; "pilot": with some knob turned.
        preset: name.
        repeat: number of the repetition; 0 for none.
        knobs: with the seeds of that kind.
        turned: knobs that differ from the preset's.
        protocol: all that is fixed beforehand.
    """

    kind: Kind
    preset: str
    repeat: int
    knobs: Knobs
    turned: Mapping[str, Any]
    protocol: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Hash of the protocol."""
        return digest_of(self.protocol)

    @property
    def folder(self) -> str:
        """Name of the folder for the report."""
        if self.kind == "pilot":
            return f"{self.preset}-pilot-{self.digest[:6]}"
        return f"{self.preset}-repeat{self.repeat}" if self.kind == "repeat" else self.preset


def protocol_of(study: Study[Any], preset: str, knobs: Knobs) -> dict[str, Any]:
    """All that is fixed before the first run, the seeds' places apart: clauses, margins, budgets, grids."""
    values = dataclasses.asdict(knobs)
    del values["first_seed"]
    protocol = {
        "study": study.name,
        "version": study.version,
        "claim": study.claim,
        "preset": preset,
        "level": LEVEL,
        "clauses": [dataclasses.asdict(clause) for clause in study.clauses],
        "procedure": study.protocol,
        "knobs": values,
    }
    return json.loads(json.dumps(protocol))


def digest_of(protocol: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of SHA-256 over a protocol."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache
def frozen() -> Mapping[str, Mapping[str, Any]]:
    """The hashes of the protocols that are frozen, by study: its version, and a hash for each preset."""
    return tomllib.loads(FROZEN.read_text(encoding="utf-8"))


def is_frozen(study: Study[Any], preset: str, digest: str) -> bool:
    """Whether that protocol is the one that was written down for this version."""
    entry = frozen().get(study.name, {})
    return entry.get("version") == study.version and entry.get(preset) == digest


def make_plan(
    study: Study[Any], preset: str, settings: Mapping[str, Any], *, repeat: int = 0, pilot: bool = False
) -> Plan:
    """Decides what kind of run this is, and gives it seeds that no other kind uses.

    A knob that is turned makes a pilot, which uses seeds of its own.

    Raises:
        UnknownNameError: if there is no such preset or knob.
        ValueError: if a value is out of its range, or a pilot shall be a repetition.
    """
    knobs = study.knobs(preset, settings)
    base = study.presets[preset]
    turned = {name: getattr(knobs, name) for name in settings if getattr(knobs, name) != getattr(base, name)}
    if repeat < 0:
        raise ValueError(f"`repeat`={repeat}; expected 0 or more")
    if pilot or turned:
        if repeat:
            raise ValueError(
                f"`repeat`={repeat} with {', '.join(turned) or 'pilot'} changed; only the frozen "
                f"protocol of a preset "
                "is repeated"
            )
        moved = knobs.first_seed + (PILOT_SEED if knobs.first_seed < PILOT_SEED else 0)
        knobs = dataclasses.replace(knobs, first_seed=moved)
        kind: Kind = "pilot"
    else:
        knobs = dataclasses.replace(knobs, first_seed=knobs.first_seed + repeat * REPEAT_SEEDS)
        kind = "repeat" if repeat else "protocol"
    return Plan(kind, preset, repeat, knobs, turned, protocol_of(study, preset, knobs))


def begin(folder: Path, plan: Plan) -> None:
    """Writes the protocol down before the first training, or checks that it is the one that was written.

    Raises:
        ValueError: if the folder was begun with another protocol.
    """
    path = folder / PROTOCOL
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["hash"] != plan.digest or digest_of(stored["protocol"]) != plan.digest:
            raise ValueError(
                f"{folder}: no verdict: its runs were made by protocol {stored['hash']} (version "
                f"{stored['protocol'].get('version')}), which is not the present {plan.digest} (version "
                f"{plan.protocol['version']}); run it in another folder with `--out`"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"hash": plan.digest, "kind": plan.kind, "protocol": plan.protocol})


def mismatch(record: Mapping[str, Any], folder: Path) -> str:
    """Why the verdict of a stored record may not be shown; empty where it may.

    Args:
        record: as `study.json` holds it.
        folder: of the record.
    """
    path = folder / PROTOCOL
    if not path.is_file():
        return (
            f"no {PROTOCOL} beside the results: they were not made by a protocol that was written down before"
        )
    stored = json.loads(path.read_text(encoding="utf-8"))
    said, is_ = record.get("hash", "none"), digest_of(stored.get("protocol", {}))
    if said != is_ or stored.get("hash") != is_:
        return f"the report names protocol {said}, the protocol stored beside its runs is {is_}"
    knobs = {key: value for key, value in record.get("knobs", {}).items() if key != "first_seed"}
    if json.loads(json.dumps(knobs)) != stored["protocol"].get("knobs"):
        return f"the report's budget is not that of protocol {is_}"
    return ""


def is_new_version(study: Study[Any], record: Mapping[str, Any]) -> str:
    """A sentence where a record was made by an older version of the study's protocol; empty otherwise."""
    version = record.get("version", 1)
    if version == study.version:
        return ""
    return f"made by version {version} of the protocol; the present one is version {study.version}"
