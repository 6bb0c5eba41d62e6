"""A network's card as text: what its paper printed against what is computed here. Needs no torch."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from convatlas.catalog.cards import Card, Published, explain_name, find_card, short_title
from convatlas.catalog.index import Entry, find_entry
from convatlas.tables import Grid

COMPUTED = ("params", "macs")
UNITS = {"params": "parameters", "macs": "MACs"}


def describe(name: str) -> str:
    """All that is known of a network, for a terminal of 100 columns.

    Args:
        name: a name or alias.

    Raises:
        UnknownNameError: there is none of that name.
    """
    card = find_card(name)
    entry = find_entry(card.name)
    paper = card.paper
    chans, height, width = card.input_size
    also = f" (also {', '.join(card.aliases)})" if card.aliases else ""
    lines = [
        f"{card.name}{also}: {card.summary}",
        f"{', '.join(paper.authors)} {paper.year}: {paper.title}. {paper.venue}. {paper.identifier}",
        f"New in the paper: {paper.new}",
        "",
        f"tags        {', '.join(card.tags)}",
        f"input       {chans}x{height}x{width}; the smallest that works is {entry.min_input_size} px",
        f"classes     {card.num_classes}",
        f"normalised  mean {_numbers(card.mean)}, deviation {_numbers(card.std)}",
        "",
    ]
    lines += [line for what in COMPUTED for line in _size_lines(card, what, entry)]
    lines.append(
        f"depth       {entry.depth:>14,} weight layers on the longest path, {entry.weight_layers:,} in all"
    )
    lines.append(f"activations {entry.activations:>14,} numbers for one image")
    lines += _section("published", [_published_line(figure, entry) for figure in card.published])
    lines += _section("departs from the paper", card.departures)
    lines += _section("elsewhere under this name", card.zoos)
    whose = explain_name(name)
    lines = [whose, *lines] if whose else lines
    return "\n".join(wrapped for line in lines for wrapped in _wrap(line))


def figure_title(name: str) -> tuple[str, str]:
    """What a figure calls a network, and what is said first under it: its name in words, and in the registry.

    Raises:
        UnknownNameError: there is none of that name.
    """
    card = find_card(name)
    return short_title(card), card.name


def record(name: str) -> dict[str, Any]:
    """The same for machines.

    Raises:
        UnknownNameError: there is none of that name.
    """
    card = find_card(name)
    computed = dataclasses.asdict(find_entry(card.name))
    sizes = {
        key: computed[key]
        for key in (*COMPUTED, "side_params", "depth", "weight_layers", "activations", "min_input_size")
    }
    return dataclasses.asdict(card) | {"computed": sizes}


def published_records(name: str) -> list[dict[str, Any]]:
    """Each published figure, with the computed one beside it where there is one.

    Raises:
        UnknownNameError: there is no network of that name.
    """
    card = find_card(name)
    entry = find_entry(card.name)
    return [
        {
            "what": figure.what,
            "published": figure.value,
            "computed": getattr(entry, figure.what) if figure.what in COMPUTED else None,
            "place": figure.place,
            "protocol": figure.protocol,
            "note": figure.note,
        }
        for figure in card.published
    ]


def published_grid(name: str) -> Grid:
    """The published figures as a table.

    Raises:
        UnknownNameError: there is no network of that name.
    """
    rows = [
        (
            record["what"],
            f"{record['published']:,.10g}",
            "-" if record["computed"] is None else f"{record['computed']:,}",
            record["place"],
            record["protocol"],
            record["note"],
        )
        for record in published_records(name)
    ]
    return Grid(("what", "published", "computed", "place", "protocol", "note"), 1, rows, (), [], tail=3)


def _size_lines(card: Card, what: str, entry: Entry) -> list[str]:
    value: int = getattr(entry, what)
    lines = [f"{what:<11} {value:>14,} computed"]
    if what == "params" and entry.side_params:
        value += entry.side_params
        side = f"{entry.side_params:>+26,} in side classifiers, used in training only"
        lines.append(f"{side}; {value:,} together")
    expected = getattr(card.exact, what) if card.exact else None
    if expected is not None and card.exact is not None:
        basis = card.exact.basis if what == COMPUTED[0] else "the same"
        lines[-1] += f"; {'equal to the count' if expected == value else f'{expected:,}'} by: {basis}"
    return lines


def _published_line(figure: Published, entry: Entry) -> str:
    printed = figure.printed or f"{figure.value:,.10g}"
    unit = f" {UNITS[figure.what]}" if figure.what in UNITS and not figure.printed else ""
    line = f"{figure.what}: {printed}{unit}, {figure.place}"
    if figure.protocol:
        line += f" ({figure.protocol})"
    if figure.what in COMPUTED and figure.value:
        line += f"; computed is {100.0 * (getattr(entry, figure.what) / figure.value - 1.0):+.1f} %"
    return f"{line}: {figure.note}" if figure.note else line


def _section(title: str, items: list[str] | tuple[str, ...]) -> list[str]:
    return ["", f"{title}:", *(f"- {item}" for item in items)] if items else []


def _wrap(line: str) -> list[str]:
    return textwrap.wrap(line, 100, subsequent_indent="  ", break_long_words=False) or [""]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
