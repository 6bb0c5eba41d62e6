"""The docs' pages on networks, made of their cards and sizes. Needs no torch.

`scripts/make_pages.py` writes them; a test keeps them in step.
"""

from __future__ import annotations

from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import Card, Paper, all_cards
from convatlas.catalog.families import FAMILIES, Family, cards_of, family_of
from convatlas.catalog.figures import FIGURES, HISTORY, LESSONS, DocFigure
from convatlas.catalog.index import find_entry

_MADE = "<!-- Written by scripts/make_pages.py from papers/*.toml and the sizes of the networks. -->"
_HEADS = ("network", "which", "depth", "parameters", "multiply-adds", "input", "published")


def family_page(family: Family) -> str:
    """The page of a family: figures, papers, sizes, departures; Markdown.

    Args:
        family: of `FAMILIES`.
    """
    cards = cards_of(family)
    lines = [f"# {family.title}", "", _MADE, ""]
    for figure in FIGURES[family.name]:
        lines += _figure(figure)
    for paper in {card.paper.key: card.paper for card in cards}.values():
        mine = [card for card in cards if card.paper.key == paper.key]
        lines += [*_paper(paper), "", *_table(mine), ""]
        lines += _notes("Departs from the paper", [(card.name, card.departures) for card in mine])
        lines += _notes("Elsewhere under the same name", [(card.name, card.zoos) for card in mine])
    lines.append("[All families](README.md)")
    return "\n".join(lines) + "\n"


def gallery_page() -> str:
    """The page of all figures, family by family; Markdown."""
    lines = [
        "# The atlas in figures", "", _MADE, "",
        "Each figure is drawn from the network itself, by the command below it; `-o` names the file,",
        "`--theme dark` and `--theme print` change its colours. [What is drawn](../figures.md).", "",
        "| family | networks | years |", "|---|---|---|",
    ]  # fmt: skip
    for family in FAMILIES:
        cards = cards_of(family)
        years = sorted({card.paper.year for card in cards})
        span = str(years[0]) if len(years) == 1 else f"{years[0]} to {years[-1]}"
        lines.append(f"| [{family.title}]({family.name}.md) | {len(cards)} | {span} |")
    lines += ["", "## History", ""]
    for figure in HISTORY:
        lines += _figure(figure)
    for family in FAMILIES:
        lines += [f"## [{family.title}]({family.name}.md)", ""]
        for figure in FIGURES[family.name]:
            lines += _figure(figure)
    lines += ["## Lessons", ""]
    for figure in LESSONS:
        lines += _figure(figure)
    return "\n".join(lines).rstrip() + "\n"


def _figure(figure: DocFigure) -> list[str]:
    title = figure.shows[0].upper() + figure.shows[1:]
    return [f"![{title}](figures/{figure.file}.svg)", "", f"{title}: `convatlas {figure.command}`", ""]


def _paper(paper: Paper) -> list[str]:
    kind, _, number = paper.identifier.partition(":")
    sites = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}
    link = f"[{paper.identifier}]({sites[kind]}{number})" if kind in sites else paper.identifier
    lines = [
        f"## {paper.title}", "",
        f"{', '.join(paper.authors)}, {paper.year}. {paper.venue}. {link}", "", paper.new,
    ]  # fmt: skip
    parents = [_parent(key) for key in paper.builds_on]
    return [*lines, "", f"Builds on {', '.join(parents)}."] if parents else lines


def _parent(key: str) -> str:
    card = next(card for card in all_cards().values() if card.paper.key == key)
    return f"[{card.paper.label}]({family_of(card).name}.md)"


def _table(cards: list[Card]) -> list[str]:
    lines = [f"| {' | '.join(_HEADS)} |", "|---|---|--:|--:|--:|--:|---|"]
    for card in cards:
        entry, accuracy = find_entry(card.name), find_accuracy(card.name)
        printed = "" if accuracy is None else f"top-1 {accuracy.top1:g} % ({accuracy.place})"
        chans, height, width = card.input_size
        cells = (
            f"`{card.name}`", card.summary.replace("|", "\\|"), f"{entry.depth:,}", f"{entry.params:,}",
            f"{entry.macs:,}", f"{chans}×{height}×{width}", printed,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _notes(title: str, notes: list[tuple[str, tuple[str, ...]]]) -> list[str]:
    """What is said of networks, those together of which the same is said."""
    named: dict[str, list[str]] = {}
    for name, texts in notes:
        for text in texts:
            named.setdefault(text, []).append(f"`{name}`")
    if not named:
        return []
    lines = [f"- {', '.join(names)}: {text}" for text, names in named.items()]
    return [f"{title}:", "", *lines, ""]
