"""Published accuracy of a network on ImageNet, from its card."""

from __future__ import annotations

import dataclasses

from convatlas.catalog.cards import find_card

IMAGENET_CLASSES = 1000
# One crop is how a network is used; the paper's own figure comes before that of later weights.
FIGURES = ("top1_error_1crop", "top1_error", "top1_error_released")


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A published top-1 accuracy.

    Attributes:
        top1: per cent of the ImageNet validation images.
        place: where it was printed.
        protocol: how it was measured.
    """

    top1: float
    place: str
    protocol: str


def find_accuracy(name: str, input_size: tuple[int, int, int] | None = None) -> Accuracy | None:
    """The accuracy that was published for a network at an input size.

    Papers tested by protocols of their own: one crop or ten, with mirror images or without.

    Args:
        name: in the registry.
        input_size: C, H, W; None for the size of the card.

    Returns:
        None where nothing was printed for this size, or the network is for other data than ImageNet.
    """
    card = find_card(name)
    if card.num_classes != IMAGENET_CLASSES:
        return None
    size = card.input_size if input_size is None else input_size
    figures = {figure.what: figure for figure in card.published}
    wanted = FIGURES if size == card.input_size else (f"top1_error_{size[1]}",)
    if size[1] != size[2]:
        return None
    for what in wanted:
        if what in figures:
            figure = figures[what]
            # Differences of printed decimals, without what binary fractions add to them.
            return Accuracy(round(100.0 - figure.value, 6), figure.place, figure.protocol)
    return None
