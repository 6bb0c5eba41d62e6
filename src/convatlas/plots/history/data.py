"""The history of convolutional networks as data: depth, errors, ideas and their descent, sizes.

Depths and sizes are counted on the networks themselves, errors are those that papers printed, and ideas with
their descent stand in `papers/*.toml`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import Card, all_cards, find_card, is_model, short_title
from convatlas.catalog.families import family_of
from convatlas.catalog.index import find_entry
from convatlas.sizing.depth import RULE

CHALLENGE = "top5_error_challenge"
BYTES = 4
"""Of a weight or an activation, in float32."""


@dataclasses.dataclass(frozen=True)
class Milestone:
    """A network on the chart of depth.

    Attributes:
        network: its name.
        label: what the chart calls it.
        colour: name of its family's colour.
        year: of its paper.
        depth: weight layers on the longest path from input to output.
        weight_layers: weight layers in all.
        top5_error: published, %; None where nothing was printed.
        protocol: how that was measured.
        place: where it was printed.
    """

    network: str
    label: str
    colour: str
    year: int
    depth: int
    weight_layers: int
    top5_error: float | None
    protocol: str
    place: str


@dataclasses.dataclass(frozen=True)
class Idea:
    """A paper on the timeline.

    Attributes:
        key: of its file in `papers`.
        label: what its network is called.
        idea: what was new, in a few words.
        colour: name of its family's colour.
        year: of first publication.
        title: of the paper.
        builds_on: keys of the ideas that it takes up or answers.
    """

    key: str
    label: str
    idea: str
    colour: str
    year: int
    title: str
    builds_on: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Point:
    """A network on the chart of accuracy and cost.

    Attributes:
        network: its name.
        label: what the chart calls it.
        colour: name of its family's colour.
        year: of its paper.
        top1: published accuracy, %.
        protocol: how that was measured.
        params: parameters.
        macs: multiply-adds for one image.
        memory: bytes of the weights and of all maps of one image, in float32.
    """

    network: str
    label: str
    colour: str
    year: int
    top1: float
    protocol: str
    params: int
    macs: int
    memory: int


def milestones(networks: Sequence[str] = ()) -> list[Milestone]:
    """Networks by year, with their depth and their top-5 error on ImageNet.

    Args:
        networks: names; where none are given, those whose paper printed an error on the test set of the
            ImageNet challenge, which is taken, rather than the error of one network.

    Raises:
        UnknownNameError: there is no network of a name.
    """
    found: list[Milestone] = []
    cards = [find_card(name) for name in dict.fromkeys(networks)] or list(all_cards().values())
    for card in cards:
        what = "top5_error" if networks else CHALLENGE
        error = next((figure for figure in card.published if figure.what == what), None)
        if error is None and not networks:
            continue
        entry = find_entry(card.name)
        found.append(
            Milestone(
                card.name,
                short_title(card),
                family_of(card).colour,
                card.paper.year,
                entry.depth,
                entry.weight_layers,
                None if error is None else error.value,
                "" if error is None else error.protocol,
                "" if error is None else error.place,
            )
        )
    return sorted(found, key=lambda each: (each.year, each.depth))


def ideas() -> list[Idea]:
    """The papers that brought an idea, oldest first; papers of several files stand once.

    Raises:
        ValueError: a paper builds on one that has no file, or that came later.
    """
    papers = {card.paper.key: card for card in all_cards().values() if card.paper.idea}
    first: dict[str, str] = {}
    for key in sorted(papers, key=len):  # The plainest name: resnet before resnet_cifar.
        first.setdefault(papers[key].paper.identifier, key)
    found: dict[str, Idea] = {}
    for key, card in papers.items():
        paper = card.paper
        if first[paper.identifier] != key:
            continue
        for parent in paper.builds_on:
            if parent not in papers or papers[parent].paper.year > paper.year:
                raise ValueError(
                    f"{key}.toml: `builds_on` names {parent!r}; expected an earlier paper's file"
                )
        parents = dict.fromkeys(first[papers[parent].paper.identifier] for parent in paper.builds_on)
        found[key] = Idea(
            key, paper.label, paper.idea, family_of(card).colour, paper.year, paper.title, tuple(parents)
        )
    return sorted(found.values(), key=lambda idea: idea.year)


def points() -> list[Point]:
    """Networks with a published top-1 accuracy on ImageNet at the size of their card, most accurate first.

    A network whose accuracy was measured on another of the atlas, as ResNet-50's was with the paper's
    strides, is left out.
    """
    found = [
        card for card in all_cards().values() if find_accuracy(card.name) is not None and not _borrows(card)
    ]
    shortest: dict[str, str] = {}
    for card in found:
        title = short_title(card)
        if title not in shortest or len(card.name) < len(shortest[title]):
            shortest[title] = card.name
    labelled = [_point(card, _label(card, shortest)) for card in found]
    return sorted(labelled, key=lambda point: -point.top1)


def _borrows(card: Card) -> bool:
    """Whether its errors were measured on another network, which their note names."""
    notes = [figure.note for figure in card.published if figure.what.startswith("top1_error")]
    return any(is_model(name) for note in notes for name in re.findall(r"`(\w+)`", note))


def _label(card: Card, shortest: dict[str, str]) -> str:
    """A title that only one network has: with its width, or with what its name adds to the plainest's."""
    width = re.match(r"([^,:;]+), width ([\d.]+)", card.summary)
    if width is not None:
        return f"{width[1]} {width[2]}"
    title = short_title(card)
    plainest = shortest[title]
    if plainest == card.name:
        return title
    added = card.name.removeprefix(f"{plainest}_")
    return card.name if added == card.name else f"{title} {added.replace('_', ' ')}"


def _point(card: Card, label: str) -> Point:
    entry, accuracy = find_entry(card.name), find_accuracy(card.name)
    assert accuracy is not None
    return Point(
        card.name,
        label,
        family_of(card).colour,
        card.paper.year,
        accuracy.top1,
        accuracy.protocol,
        entry.params,
        entry.macs,
        BYTES * (entry.params + entry.activations),
    )


def record(networks: Sequence[str] = ()) -> dict[str, Any]:
    """All data of the three charts, as plain values.

    Args:
        networks: as for `milestones`.
    """
    return {
        "depth": {"rule": RULE, "networks": [dataclasses.asdict(each) for each in milestones(networks)]},
        "ideas": [dataclasses.asdict(idea) for idea in ideas()],
        "accuracy": {
            "memory": "bytes of the weights and of all maps of one image, float32",
            "networks": [dataclasses.asdict(point) for point in points()],
        },
    }
