"""Writes the hashes of the studies' protocols into src/convatlas/studies/protocols.toml.

./run python scripts/freeze_protocols.py

A protocol that differs from the one that was frozen for its version is refused: raise the study's `version`.
"""

import sys

from convatlas.studies.index import CLAIMS
from convatlas.studies.protocol import FROZEN, digest_of, frozen, protocol_of
from convatlas.studies.study import find_study


def main() -> None:
    lines = ["# The frozen protocols: for each study its version, and the hash of each preset. Written by"]
    lines += ["# scripts/freeze_protocols.py, which refuses another hash for the same version.", ""]
    for name in CLAIMS:
        study, before = find_study(name), frozen().get(name, {})
        hashes = {
            preset: digest_of(protocol_of(study, preset, knobs)) for preset, knobs in study.presets.items()
        }
        if before.get("version") == study.version and any(before[p] != h for p, h in hashes.items()):
            sys.exit(f"{name}: its protocol is not the one of version {study.version}; raise the version")
        lines += [f"[{name}]", f"version = {study.version}"]
        lines += [*(f'{preset} = "{digest}"' for preset, digest in hashes.items()), ""]
    FROZEN.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
