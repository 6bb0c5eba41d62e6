"""The table of all networks with their computed sizes. Needs no torch, and is read at once.

`scripts/make_index.py` writes it; a test keeps it in step with the networks.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import json
import re
from pathlib import Path

from convatlas.errors import UnknownNameError, nearest
from convatlas.files import with_tuples

INDEX = Path(__file__).parent / "index.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A network in the table.

    Attributes:
        name: in the registry.
        aliases: other names for it.
        year: of its paper.
        tags: ideas that it is built from.
        summary: which network it is, in one line.
        input_size: C, H, W that the sizes are for.
        params: parameters that its forward uses.
        side_params: those of side classifiers, used in training only.
        depth: weight layers on the longest path from input to output.
        weight_layers: weight layers in all.
        macs: multiply-adds of convolutions, linear layers and matrix products for one image.
        activations: numbers that its layers write for one image.
        min_input_size: smallest side in px.
    """

    name: str
    aliases: tuple[str, ...]
    year: int
    tags: tuple[str, ...]
    summary: str
    input_size: tuple[int, int, int]
    params: int
    side_params: int
    depth: int
    weight_layers: int
    macs: int
    activations: int
    min_input_size: int


SORTS = ("year", "name", "depth", "params", "macs", "activations")


@functools.cache
def all_entries() -> tuple[Entry, ...]:
    """Every network, oldest paper first."""
    rows = json.loads(INDEX.read_text(encoding="utf-8"))
    return tuple(Entry(**with_tuples(row)) for row in rows)


def find_entry(name: str) -> Entry:
    """The row of a network, by its name (not by an alias)."""
    return next(entry for entry in all_entries() if entry.name == name)


def find_entries(
    pattern: str = "*",
    *,
    tag: str | None = None,
    years: tuple[int, int] | None = None,
    max_params: float | None = None,
    max_macs: float | None = None,
    sort: str = "year",
) -> list[Entry]:
    """Chooses networks.

    Args:
        pattern: shell-style, for names or aliases.
        tag: an idea that the network must have.
        years: first and last year of the paper.
        max_params: most parameters.
        max_macs: most MACs at the published input size.
        sort: "year", "name", "depth", "params", "macs" or "activations".

    Raises:
        UnknownNameError: no network has the tag, or `sort` is unknown.
    """
    tags = {known for entry in all_entries() for known in entry.tags}
    if tag is not None and tag not in tags:
        raise UnknownNameError(f"unknown tag {tag!r}; nearest: {nearest(tag, tags)}")
    if sort not in SORTS:
        raise UnknownNameError(f"`sort`={sort!r}; allowed are {', '.join(SORTS)}")
    low, high = years or (0, 9999)
    found = [
        entry
        for entry in all_entries()
        if any(fnmatch.fnmatchcase(name, pattern) for name in (entry.name, *entry.aliases))
        and (tag is None or tag in entry.tags)
        and low <= entry.year <= high
        and (max_params is None or entry.params <= max_params)
        and (max_macs is None or entry.macs <= max_macs)
    ]
    if sort == "name":
        return sorted(found, key=lambda entry: natural(entry.name))
    return sorted(found, key=lambda entry: getattr(entry, sort))


def natural(name: str) -> list[str]:
    """A key that sorts names as a person would: plain18 before plain110."""
    return [f"{int(part):09d}" if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def parse_years(text: str) -> tuple[int, int]:
    """Reads "2015", "2015..2017", "..2014" or "2017..".

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d{4})?(\.\.)?(\d{4})?", text)
    if match is None or not text or (match[1] and match[3] and not match[2]):
        raise ValueError(f"`year`={text!r}; expected a year or a range, for example 2015 or 2015..2017")
    if not match[2]:
        return int(text), int(text)
    return int(match[1] or 0), int(match[3] or 9999)


def parse_amount(name: str, text: str) -> float:
    """Reads "5M", "1.5G", "300k" or "25557032".

    Raises:
        ValueError: it is no such number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([kKMGB]?)", text)
    if match is None:
        raise ValueError(f"`{name}`={text!r}; expected a number, for example 5M, 1.5G or 300k")
    return float(match[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}[match[2]]


def short_amount(value: float) -> str:
    """Writes 25557032 as "25.6M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
    return f"{value:.0f}"
