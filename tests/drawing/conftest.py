"""What tests of figures share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from convatlas import create_model
from convatlas.drawing import Figure, draw


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Figure]:
    """Draws a network of the atlas, each figure once in a session."""
    figures: dict[tuple[object, ...], Figure] = {}

    def make(name: str, size: int = 224, **options: str) -> Figure:
        key = (name, size, *sorted(options.items()))
        if key not in figures:
            with torch.device("meta"):
                net = create_model(name)
            figures[key] = draw(net, size, **options)
        return figures[key]

    return make
