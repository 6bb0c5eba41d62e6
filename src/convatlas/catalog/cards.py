"""Cards: where a network comes from and what its paper printed. Needs no torch.

The data lie in `papers/*.toml`, one file for each paper.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import re
import tomllib
from pathlib import Path
from typing import Any

from convatlas.catalog.index import natural
from convatlas.errors import fold_name, unknown
from convatlas.files import with_tuples
from convatlas.summary import Summary

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
        key: name of its file in `papers`, without the ending.
        label: what its network is called in charts.
        idea: what was new, in a few words.
        builds_on: files of the papers whose ideas it takes up or answers.
    """

    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    identifier: str
    new: str
    key: str = ""
    label: str = ""
    idea: str = ""
    builds_on: tuple[str, ...] = ()


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


@dataclasses.dataclass(frozen=True, repr=False)
class Card(Summary):
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
        std: per-channel standard deviation, in the units of `mean`.
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

    def _title(self) -> str:
        return f"{self.name}: {self.summary}"

    def _facts(self) -> dict[str, object]:
        first, *others = self.paper.authors or ("?",)
        facts: dict[str, object] = {
            "paper": f"{first}{' et al.' if others else ''} {self.paper.year}, {self.paper.title}",
            "input": "x".join(map(str, self.input_size)),
            "classes": f"{self.num_classes:,}",
        }
        if self.exact is not None:
            macs = "" if self.exact.macs is None else f", {self.exact.macs:,} multiply-adds"
            facts["size"] = f"{self.exact.params:,} parameters{macs}"
        return facts


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
        paper = Paper(**with_tuples(data["paper"]), key=path.stem)
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
    return resolve_name(name) is not None


# What other libraries call our networks, where more than capitals and separators differ: library, name.
FOREIGN = {
    "mobilenet_v1_100": (("Keras", "MobileNet"),),
    "mobilenet_v2_100": (("torchvision", "mobilenet_v2"), ("Keras", "MobileNetV2")),
    "nasnet_a_mobile": (("Keras", "NASNetMobile"),),
    "nasnet_a_large": (("timm", "nasnetalarge"), ("Keras", "NASNetLarge")),
    "preact_resnet50": (("timm", "resnetv2_50"), ("Keras", "ResNet50V2")),
    "preact_resnet101": (("timm", "resnetv2_101"), ("Keras", "ResNet101V2")),
    "preact_resnet152": (("timm", "resnetv2_152"), ("Keras", "ResNet152V2")),
    "senet154": (("timm", "legacy_senet154"),),
    "xception": (("timm", "legacy_xception"),),
    **{f"efficientnet_lite{i}": (("timm", f"tf_efficientnet_lite{i}"),) for i in range(5)},
}


@functools.cache
def _folded_names() -> dict[str, str]:
    """Every network by its name, aliases and foreign names without capitals and separators."""
    found: dict[str, str] = {}
    foreign = {theirs: name for name, pairs in FOREIGN.items() for _, theirs in pairs}
    for known in (foreign, all_aliases(), {name: name for name in all_cards()}):
        found |= {fold_name(each): name for each, name in known.items() if name in all_cards()}
    return found


def resolve_name(name: str) -> str | None:
    """The network that a name means, whatever its capitals and separators; None where there is none.

    The names of timm, torchvision and Keras are known too.
    """
    if name in all_cards():
        return name
    folded = fold_name(name) if re.fullmatch(r"[\w\-. ]+", name, re.ASCII) else ""
    return all_aliases().get(name) or _folded_names().get(folded)


def explain_name(name: str) -> str:
    """Whose name this is, in a line, where it is another library's; else ""."""
    card = find_card(name)
    for library, theirs in FOREIGN.get(card.name, ()):
        if fold_name(theirs) == fold_name(name) != fold_name(card.name):
            return f"{theirs} is {library}'s name for {card.name}"
    return ""


def short_title(card: Card) -> str:
    """What a figure calls a network, such as "ResNet-152"; its name where its summary begins otherwise."""
    said = re.split(r"[,:;]| (?:as|of|with|without|for|on|from) ", card.summary)[0]
    return card.name if said.startswith(("The ", "the ", "Any ", "Inverted ")) else said


def find_card(name: str) -> Card:
    """The card of a network, by name or alias.

    Raises:
        UnknownNameError: there is none; the message holds the three nearest names.
    """
    known = resolve_name(name)
    card = None if known is None else all_cards()[known]
    if card is None:
        raise unknown("network", name, [*all_cards(), *all_aliases()], "`convatlas list` shows all")
    return card
