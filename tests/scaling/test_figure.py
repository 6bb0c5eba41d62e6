"""The figure of every rule: its forms, its themes, and what cannot be drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from convatlas.drawing.palette import PALETTES
from convatlas.errors import UnknownNameError
from convatlas.scaling.figure import draw_rules

PHIS = (0.0, 1.0)


def rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def test_a_theme_has_its_colours() -> None:
    data = draw_rules("mobilenet_v1_100", phis=PHIS, theme="dark")
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3)
    palette = PALETTES["dark"]
    assert tuple(pixels[0]) == rgb(palette.background)
    # Width has VGG's hue; what is drawn in it is more than an edge.
    assert (pixels == rgb(palette.networks["vgg"])).all(axis=1).sum() > 100


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(UnknownNameError, match="unknown form 'jpg'"):
        draw_rules("mobilenet_v1_100", form="jpg")
    with pytest.raises(UnknownNameError, match="unknown theme 'drk'; nearest: dark"):
        draw_rules("mobilenet_v1_100", theme="drk")
