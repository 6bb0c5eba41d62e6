"""Reads a genotype from whatever a user has: its text, a mapping, or a TOML or JSON file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convatlas.blocks.cell201 import Genotype201, parse_201
from convatlas.blocks.genotype import CellGenotype, GenotypeError, parse_genotype
from convatlas.blocks.mobile_genotype import MobileGenotype, parse_mobile

AnyGenotype = CellGenotype | Genotype201 | MobileGenotype

FILES = (".toml", ".json")


def read_genotype(value: Any) -> AnyGenotype:
    """The genotype that `value` means.

    Args:
        value: a genotype; anything with a `text`, such as a search's architecture; a text; the path of a
            TOML or JSON file; or a mapping with `genotype` and perhaps `cells`, `chans` and other settings.

    Raises:
        GenotypeError: it is none of these, or does not parse.
        OSError: the file cannot be read.
    """
    if isinstance(value, CellGenotype | Genotype201 | MobileGenotype):
        return value
    if isinstance(value, Mapping):
        return _from_mapping(value, "the mapping")
    if isinstance(value, Path) or (isinstance(value, str) and value.strip().endswith(FILES)):
        return _from_file(Path(value))
    text = getattr(value, "text", value)
    if not isinstance(text, str):
        raise GenotypeError(
            f"`genotype`={value!r}; expected its text, a TOML or JSON file, a mapping or a genotype"
        )
    return parse_any(text)


def parse_any(text: str) -> AnyGenotype:
    """Reads the text of a genotype of any kind.

    Raises:
        GenotypeError: it does not parse.
    """
    if "~" in text:
        return parse_201(text)
    first = text.strip()[:1]
    return parse_mobile(text) if first == "e" else parse_genotype(text)


def _from_file(path: Path) -> AnyGenotype:
    try:
        content = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise GenotypeError(f"{path}: is not a text file; expected TOML or JSON") from None
    except FileNotFoundError:
        raise GenotypeError(f"{path}: no such genotype file") from None
    try:
        entry = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except ValueError as error:
        raise GenotypeError(f"{path}: {error}") from None
    if not isinstance(entry, Mapping):
        raise GenotypeError(f"{path}: expected a table with `genotype`")
    return _from_mapping(entry, str(path))


def _from_mapping(entry: Mapping[str, Any], where: str) -> AnyGenotype:
    text = entry.get("genotype")
    if not isinstance(text, str):
        raise GenotypeError(f'{where}: has no `genotype`; expected for example genotype = "0.sep3+1.id"')
    settings = "".join(
        f";{name}={int(value) if isinstance(value, bool) else value}"
        for name, value in entry.items()
        if name not in ("genotype", "network", "about")
    )
    return parse_any(text + settings)
