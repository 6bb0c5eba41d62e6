"""The atlas page's networks: which fit the filters of a query, and how these are written. Needs no torch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import find_card
from convatlas.catalog.describe import figure_title
from convatlas.catalog.index import all_entries, natural, parse_amount, short_amount

from .settings import BadRequestError

BINS = 24
FAMILIES = {
    "plain": "Plain stacks",
    "inception": "Inception",
    "residual": "Residual",
    "dense": "Dense",
    "depthwise": "Depthwise",
    "se": "Squeeze-excite",
    "searched": "Searched",
}
# Tag of a card, and its family; the first that fits decides.
_FAMILY_TAGS = (
    ("searched", "searched"), ("architecture-search", "searched"), ("compound-scaling", "searched"),
    ("squeeze-excite", "se"), ("dense-connectivity", "dense"),
    ("depthwise-separable", "depthwise"), ("separable-convolution", "depthwise"),
    ("inception", "inception"), ("residual", "residual"), ("fractal", "residual"),
)  # fmt: skip
IDEAS = (
    "residual", "bottleneck", "dense-connectivity", "inception", "depthwise-separable", "squeeze-excite",
    "pre-activation", "grouped-convolution", "batch-norm", "architecture-search", "compound-scaling",
    "mobile",
)  # fmt: skip
ACROSS = {
    "macs": "Multiply-adds",
    "params": "Parameters",
    "memory": "Activations",
    "depth": "Depth",
    "year": "Year",
}
AREAS = {"params": "Parameters", "macs": "Multiply-adds", "memory": "Activations", "none": "None"}
SORTS = ("year", "name", "px", "depth", "params", "macs", "memory", "top1")
VIEW = ("x", "area", "sort", "at", "idea", "q", "token")


@dataclasses.dataclass(frozen=True)
class Network:
    """A line of the atlas.

    Attributes:
        name: in the registry.
        title: in words; the name where several networks have one title.
        family: its hue.
        year: of the paper.
        ideas: tags.
        px: side of the published input.
        depth: weight layers on the longest path from input to output.
        params: parameters.
        macs: multiply-adds.
        memory: bytes of activations in float32.
        top1: published accuracy on ImageNet, %, or None.
        place: where that was printed, and how it was measured.
        own: whether it is from the network's own paper.
        new: what was new in the paper.
        aliases: other names.
    """

    name: str
    title: str
    family: str
    year: int
    ideas: tuple[str, ...]
    px: int
    depth: int
    params: int
    macs: int
    memory: int
    top1: float | None
    place: str
    own: bool
    new: str
    aliases: tuple[str, ...]


@functools.cache
def networks() -> tuple[Network, ...]:
    """Every network, oldest paper first."""
    titles = [figure_title(entry.name)[0] for entry in all_entries()]
    found: list[Network] = []
    for entry, title in zip(all_entries(), titles, strict=True):
        card, accuracy = find_card(entry.name), find_accuracy(entry.name)
        place = "" if accuracy is None else ", ".join(filter(None, (accuracy.place, accuracy.protocol)))
        found.append(
            Network(
                entry.name,
                title if titles.count(title) == 1 else entry.name,
                _family(entry.tags),
                entry.year,
                entry.tags,
                entry.input_size[1],
                entry.depth,
                entry.params,
                entry.macs,
                4 * entry.activations,
                None if accuracy is None else accuracy.top1,
                place,
                accuracy is not None and accuracy.place not in _released(entry.name),
                card.paper.new,
                entry.aliases,
            )
        )
    return tuple(found)


def _released(name: str) -> set[str]:
    """Where accuracies of weights are printed that were released later."""
    return {figure.place for figure in find_card(name).published if figure.what.endswith("_released")}


def _family(tags: Sequence[str]) -> str:
    return next((family for tag, family in _FAMILY_TAGS if tag in tags), "plain")


@dataclasses.dataclass(frozen=True)
class Range:
    """A filter between two values.

    Attributes:
        name: of its parameter.
        label: in words.
        value: of a network; None where it has none.
        edges: values of the handles' positions, smallest first.
        text: writes a value.
    """

    name: str
    label: str
    value: Callable[[Network], float | None]
    edges: tuple[float, ...]
    text: Callable[[float], str]


@functools.cache
def ranges() -> tuple[Range, ...]:
    """Year, parameters, multiply-adds, activations, depth and accuracy."""
    years = [network.year for network in networks()]
    tops = [network.top1 for network in networks() if network.top1 is not None]
    low, high = math.floor(min(tops) / 2) * 2, math.ceil(max(tops) / 2) * 2
    return (
        Range("year", "Year", lambda n: n.year, tuple(range(min(years), max(years) + 1)), "{:.0f}".format),
        _log_range("params", "Parameters", lambda n: n.params),
        _log_range("macs", "Multiply-adds", lambda n: n.macs),
        _log_range("memory", "Activations, B", lambda n: n.memory),
        _log_range("depth", "Depth, layers", lambda n: n.depth),
        Range("top1", "Top-1, published", lambda n: n.top1, tuple(range(low, high + 1, 2)), "{:.0f}".format),
    )


def _log_range(name: str, label: str, value: Callable[[Network], float]) -> Range:
    values = [value(network) for network in networks()]
    low, high = math.log10(min(values)), math.log10(max(values))
    edges = [10 ** (low + (high - low) * i / BINS) for i in range(BINS + 1)]
    return Range(
        name, label, value, tuple(parse_amount(name, short_amount(edge)) for edge in edges), short_amount
    )


@dataclasses.dataclass(frozen=True)
class Query:
    """What of the atlas is shown.

    Attributes:
        limits: per range that is set, its least and largest value, None where open.
        ideas: tags that a network must have.
        x: what the chart's axis is.
        area: what its bubbles' area is.
        sort: column of the table; "-" in front for largest first.
        at: the network that is pointed at.
        text: part of a name.
    """

    limits: tuple[tuple[str, tuple[float | None, float | None]], ...] = ()
    ideas: tuple[str, ...] = ()
    x: str = "macs"
    area: str = "params"
    sort: str = "year"
    at: str = ""
    text: str = ""

    def parameters(self) -> dict[str, str]:
        """As a query, without what is the default."""
        texts = {found.name: found.text for found in ranges()}
        query: dict[str, str] = {}
        for name, (low, high) in self.limits:
            query[name] = "..".join("" if value is None else texts[name](value) for value in (low, high))
        if self.ideas:
            query["idea"] = ",".join(self.ideas)
        for name, value, default in (
            ("x", self.x, "macs"), ("area", self.area, "params"), ("sort", self.sort, "year"),
            ("at", self.at, ""), ("q", self.text, ""),
        ):  # fmt: skip
            if value != default:
                query[name] = value
        return query

    def address(self, **changes: Any) -> str:
        """The page with some of it changed."""
        query = dataclasses.replace(self, **changes).parameters()
        return f"/?{urlencode(query, safe=',')}" if query else "/"


def read_query(given: Mapping[str, str]) -> Query:
    """Reads a query.

    Raises:
        BadRequestError: if a value is not understood.
    """
    known = {found.name: found for found in ranges()}
    limits: list[tuple[str, tuple[float | None, float | None]]] = []
    for name, text in given.items():
        if name in known and text:
            limits.append((name, _read_limits(name, text[:60])))
        elif name not in VIEW and name not in known:
            raise BadRequestError(
                f"parameter {name[:40]!r} is unknown; expected one of {', '.join((*known, *VIEW))}"
            )
    ideas = tuple(dict.fromkeys(idea for idea in given.get("idea", "")[:300].split(",") if idea))
    tags = {tag for network in networks() for tag in network.ideas}
    for idea in ideas:
        if idea not in tags:
            raise BadRequestError(f"`idea`={idea!r}; expected some of {', '.join(IDEAS)}")
    sort = given.get("sort", "") or "year"
    _check("sort", sort.removeprefix("-"), SORTS)
    x, area = given.get("x", "") or "macs", given.get("area", "") or "params"
    _check("x", x, tuple(ACROSS))
    _check("area", area, tuple(AREAS))
    at = given.get("at", "")
    at = at if any(network.name == at for network in networks()) else ""
    return Query(tuple(sorted(limits)), ideas, x, area, sort, at, given.get("q", "")[:60].strip())


def _read_limits(name: str, text: str) -> tuple[float | None, float | None]:
    low, dots, high = text.partition("..")
    if not dots:
        low, high = text, text
    return (parse_amount(name, low) if low else None, parse_amount(name, high) if high else None)


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise BadRequestError(f"`{name}`={value[:40]!r}; expected one of {', '.join(allowed)}")


def chosen(query: Query) -> list[Network]:
    """The networks that fit, in the order of the table."""
    found = [network for network in networks() if _fits(network, query)]
    key = query.sort.removeprefix("-")
    if key == "name":
        found.sort(key=lambda network: natural(network.name))
    else:
        known = [network for network in found if getattr(network, key) is not None]
        unknown = [network for network in found if getattr(network, key) is None]
        known.sort(key=lambda network: getattr(network, key), reverse=query.sort.startswith("-"))
        return known + unknown
    return found[::-1] if query.sort.startswith("-") else found


def _fits(network: Network, query: Query) -> bool:
    if not set(query.ideas) <= set(network.ideas):
        return False
    if query.text and not _is_named(network, query.text):
        return False
    values = {found.name: found.value for found in ranges()}
    for name, (low, high) in query.limits:
        value = values[name](network)
        if value is None or (low is not None and value < low) or (high is not None and value > high):
            return False
    return True


def _is_named(network: Network, text: str) -> bool:
    folded = "".join(letter for letter in text.casefold() if letter.isalnum())
    names = (network.name, network.title, *network.aliases)
    return any(folded in "".join(c for c in name.casefold() if c.isalnum()) for name in names)


def hindrance(query: Query) -> tuple[str, str, int] | None:
    """Where nothing fits: which filter, when it is cleared, lets in most; its address; and how many."""
    ways: list[tuple[str, str, int]] = []
    labels = {found.name: found.label for found in ranges()}
    for name, _ in query.limits:
        less = dataclasses.replace(query, limits=tuple(each for each in query.limits if each[0] != name))
        ways.append((labels[name], less.address(), len(chosen(less))))
    for idea in query.ideas:
        less = dataclasses.replace(query, ideas=tuple(each for each in query.ideas if each != idea))
        ways.append((idea, less.address(), len(chosen(less))))
    if query.text:
        less = dataclasses.replace(query, text="")
        ways.append((f"the name {query.text!r}", less.address(), len(chosen(less))))
    best = max(ways, key=lambda way: way[2], default=None)
    return best if best is not None and best[2] else ("all filters", "/", len(networks()))


def histogram(found: Range, query: Query) -> dict[str, Any]:
    """A range's bars, and its setting in words."""
    edges = found.edges
    low, high = dict(query.limits).get(found.name, (None, None))
    others = dataclasses.replace(query, limits=tuple(each for each in query.limits if each[0] != found.name))
    counts = [0] * max(1, len(edges) - 1)
    for network in chosen(others):
        value = found.value(network)
        if value is not None:
            place = sum(1 for edge in edges[1:-1] if value >= edge)
            counts[place] += 1
    most = max(counts) or 1
    wide = 224 / len(counts)
    bars = [
        {
            "x": f"{i * wide:.1f}", "width": f"{wide - 1:.1f}", "height": f"{25 * count / most:.1f}",
            "y": f"{26 - 25 * count / most:.1f}",
            "inside": (low is None or edges[i + 1] > low) and (high is None or edges[i] <= high),
        }
        for i, count in enumerate(counts)
    ]  # fmt: skip
    first = 0 if low is None else _nearest(edges, low)
    last = len(edges) - 1 if high is None else _nearest(edges, high)
    return {
        "name": found.name, "label": found.label, "bars": bars, "is_set": low is not None or high is not None,
        "words": _words(found, low, high), "low": first, "high": last, "last": len(edges) - 1,
        "texts": ",".join(map(found.text, edges)),
        "x1": f"{4 + 216 * first / max(1, len(edges) - 1):.1f}",
        "x2": f"{4 + 216 * last / max(1, len(edges) - 1):.1f}",
    }  # fmt: skip


def _nearest(edges: Sequence[float], value: float) -> int:
    return min(range(len(edges)), key=lambda i: abs(edges[i] - value))


def _words(found: Range, low: float | None, high: float | None) -> str:
    text: Callable[[float], str] = "{:.0f} %".format if found.name == "top1" else found.text
    if low is None and high is None:
        return "any" if found.name == "top1" else f"{text(found.edges[0])} – {text(found.edges[-1])}"
    if high is None:
        return f"≥ {text(low or 0)}"
    return f"≤ {text(high)}" if low is None else f"{text(low)} – {text(high)}"
