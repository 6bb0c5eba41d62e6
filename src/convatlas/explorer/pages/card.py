"""What a paper printed beside what is computed here. Needs no torch."""

from __future__ import annotations

import dataclasses

from convatlas.catalog.cards import Card, Published
from convatlas.catalog.index import Entry

from ..numbers import short

_ACCURACIES = (
    ("top1_error_1crop", "Top-1"), ("top1_error", "Top-1"), ("top1_error_released", "Top-1"),
    ("top5_error_1crop", "Top-5"), ("top5_error", "Top-5"), ("top5_error_released", "Top-5"),
    ("test_error", "Test error"), ("test_error_mean", "Test error"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PublishedLine:
    """A line of the table.

    Attributes:
        what: parameters, multiply-adds, top-1, ...
        computed: here; an en dash where it is not.
        published: as it was printed; an en dash where it was not.
        where: it was printed, and how it was measured.
        differs: how much the computed number differs, in per cent; empty where it is equal.
        why: the reason that the card gives.
    """

    what: str
    computed: str
    published: str
    where: str
    differs: str = ""
    why: str = ""


def published_lines(card: Card, entry: Entry) -> list[PublishedLine]:
    """Parameters and multiply-adds, computed and published, then published accuracies."""
    lines = [
        _size_line(card, "params", "Parameters", entry.params, f"{entry.params:,}"),
        _size_line(card, "macs", "Multiply-adds", entry.macs, short(entry.macs)),
    ]
    figures = {figure.what: figure for figure in card.published}
    seen: set[str] = set()
    for what, label in _ACCURACIES:
        if what in figures and label not in seen:
            seen.add(label)
            lines.append(_accuracy_line(label, figures[what]))
    return lines


def _size_line(card: Card, what: str, label: str, computed: int, shown: str) -> PublishedLine:
    figure = next((figure for figure in card.published if figure.what == what), None)
    exact = None if card.exact is None else getattr(card.exact, what)
    if figure is None:
        if exact is None:
            return PublishedLine(label, shown, "–", "not printed")
        counted = f"{exact:,}" if what == "params" else short(exact)
        basis = card.exact.basis.split(";")[0].split(",")[0] if card.exact is not None else ""
        return PublishedLine(label, shown, counted, f"{basis}, {'equal' if exact == computed else 'counted'}")
    printed = short(figure.value)
    differs = 100 * (computed / figure.value - 1) if figure.value else 0.0
    text = "" if abs(differs) < 0.05 else f"{differs:+.1f} %"
    return PublishedLine(label, shown, printed, figure.place, text, figure.note)


def _accuracy_line(label: str, figure: Published) -> PublishedLine:
    value = figure.value if label == "Test error" else 100.0 - figure.value
    protocol = figure.protocol.replace("ImageNet val, %, ", "").replace("%, ", "")
    where = ", ".join(filter(None, (figure.place, protocol)))
    return PublishedLine(label, "–", f"{value:.4g} %", where, why=figure.note)
