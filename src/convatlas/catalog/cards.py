"""Cards: where a network comes from and what its paper printed. Needs no torch.

The data lie in `papers/*.toml`, one file for each paper.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import tomllib
from pathlib import Path
from typing import Any

from convatlas.catalog.index import natural
from convatlas.errors import unknown
from convatlas.files import with_tuples

PAPERS = Path(__file__).parent.parent / "papers"


@dataclasses.dataclass(frozen=True)
class Paper:
    """A publication.

    Attributes:
        title: as printed.
        authors: as printed, in order.
        year: of first publication.
        venue: conference, journal or "arXiv".
        identifier: "arXiv:..." or "doi:...", or an address where there is neither.
        new: what was new, in one sentence.
    """

    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    identifier: str
    new: str


@dataclasses.dataclass(frozen=True)
class Published:
    """One figure that a paper printed.

    Attributes:
        what: "params", "macs", "top1_error", "top5_error", "test_error", "depth", ...
        value: the number, in plain units (parameters, MACs, per cent).
        place: table, section or page.
        printed: as printed, for example "60M"; empty where it is the number itself.
        protocol: data set and how it was measured; empty for sizes.
        note: why our computed number differs from it, where it does.
    """

    what: str
    value: float
    place: str
    printed: str = ""
    protocol: str = ""
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Exact:
    """A size counted independently of this package.

    Attributes:
        params: trainable parameters.
        basis: who counted, or the derivation.
        macs: multiply-adds of convolutions and linear layers for one image of `input_size`; None if unknown.
    """

    params: int
    basis: str
    macs: int | None = None


@dataclasses.dataclass(frozen=True)
class Card:
    """All that is known about a network before it is built.

    Attributes:
        name: name in the registry.
        module: module of `convatlas.models` that holds it.
        paper: the paper that it implements.
        summary: which network this is, in one line.
        tags: ideas it is built from, for example "residual".
        input_size: C, H, W that it was published for.
        num_classes: K that it was published for.
        mean: per-channel mean that inputs are normalised with, for values in [0, 1].
        std: per-channel standard deviation, likewise.
        interpolation: how images are resized, "bilinear" or "bicubic".
        crop_pct: share of the resized short side that the central test crop keeps.
        published: the paper's figures.
        exact: its size, counted elsewhere; None where nobody counted.
        departures: how it differs from the paper.
        zoos: what later libraries changed under the same name.
        aliases: other names that mean this network.
    """

    name: str
    module: str
    paper: Paper
    summary: str
    tags: tuple[str, ...]
    input_size: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    published: tuple[Published, ...] = ()
    exact: Exact | None = None
    departures: tuple[str, ...] = ()
    zoos: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@functools.cache
def all_cards() -> dict[str, Card]:
    """Every card by name, ordered by year and then by name.

    Raises:
        ValueError: a file holds an unknown key, or two files describe one name.
    """
    cards: dict[str, Card] = {}
    for path in sorted(PAPERS.glob("*.toml")):
        for card in _read_cards(path):
            if card.name in cards:
                raise ValueError(f"{path.name}: `{card.name}` has a card in another file already")
            cards[card.name] = card
    return dict(sorted(cards.items(), key=lambda item: (item[1].paper.year, natural(item[0]))))


@functools.cache
def all_aliases() -> dict[str, str]:
    """Every alias with the name that it stands for."""
    return {alias: card.name for card in all_cards().values() for alias in card.aliases}


def _read_cards(path: Path) -> list[Card]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        paper = Paper(**with_tuples(data["paper"]))
        shared = data.get("defaults", {})
        return [
            _make_card(name, data["module"], paper, shared | entry)
            for name, entry in data["networks"].items()
        ]
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _make_card(name: str, module: str, paper: Paper, entry: dict[str, Any]) -> Card:
    fields = with_tuples(entry)
    fields["published"] = tuple(Published(**figure) for figure in fields.get("published", ()))
    fields["exact"] = Exact(**fields["exact"]) if "exact" in fields else None
    return Card(name=name, module=module, paper=paper, **fields)


def list_models(pattern: str = "*") -> list[str]:
    """Names of networks, oldest paper first.

    Args:
        pattern: shell-style, for example "resnet*_cifar".
    """
    return [name for name in all_cards() if fnmatch.fnmatchcase(name, pattern)]


def is_model(name: str) -> bool:
    """Whether `name` is a network or an alias of one."""
    return name in all_cards() or name in all_aliases()


def find_card(name: str) -> Card:
    """The card of a network, by name or alias.

    Raises:
        UnknownNameError: there is none; the message holds the three nearest names.
    """
    card = all_cards().get(all_aliases().get(name, name))
    if card is None:
        raise unknown("network", name, [*all_cards(), *all_aliases()], "`convatlas list` shows all")
    return card
