"""Computes a network's row of the index."""

import torch

from convatlas.catalog.cards import find_card
from convatlas.catalog.index import Entry
from convatlas.models.registry import create_model
from convatlas.sizing import size


def compute_entry(name: str) -> Entry:
    """Sizes a network at its published input size, in evaluation mode, without weights or arithmetic.

    Args:
        name: in the registry.

    Raises:
        UnknownNameError: there is none of that name.
    """
    card = find_card(name)
    with torch.device("meta"):
        net = create_model(card.name).eval()
    sheet = size(net, card.input_size)
    return Entry(
        name=card.name,
        aliases=card.aliases,
        year=card.paper.year,
        tags=card.tags,
        summary=card.summary,
        input_size=card.input_size,
        params=sheet.params,
        side_params=sheet.side_params,
        depth=sheet.depth.longest,
        weight_layers=sheet.depth.total,
        macs=sheet.macs,
        activations=sheet.activations,
        min_input_size=net.min_input_size,
    )
