"""Feature maps of an image as a grid: the units that respond most, first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.data.transforms import Transform
from convatlas.drawing import Figure
from convatlas.drawing.canvas import MARGIN, Canvas
from convatlas.drawing.figure import finish
from convatlas.drawing.frame import Captions, heading
from convatlas.drawing.palette import THEMES
from convatlas.errors import unknown
from convatlas.escape import plain
from convatlas.models.network import Network
from convatlas.plots.pixels import SIGNED, Pixels, coloured, png_bytes, signed
from convatlas.predict.explain import as_seen, read_shown
from convatlas.predict.features import describe
from convatlas.predict.inputs import find_items
from convatlas.predict.outputs import Skipped
from convatlas.predict.predictor import Predictor

UNITS = 32
MOST_UNITS = 1024
_TILE, _GAP, _LABEL, _COLUMNS = 72.0, 12.0, 18.0, 8


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMaps:
    """What a stage of a network answers to an image.

    Attributes:
        image: as it was named.
        layer: path of the module.
        stage: which of the network's maps, in words.
        maps: (C, H', W') of float32.
        order: indices of units, the strongest first, by the root of the mean square of their map.
        pixels: the part of the image that the network saw, (3, H, W) of uint8, at a size to look at.
        frame: of a video, counted from 0; None for an image.
    """

    image: str
    layer: str
    stage: str
    maps: Tensor
    order: tuple[int, ...]
    pixels: Tensor
    frame: int | None = None

    def figure(self, *, units: int = UNITS, theme: str = "light") -> Figure:
        """The image, and the maps of the strongest units, each on a scale of its own from 0 to its most.

        Args:
            units: how many.
            theme: light, dark or print.

        Raises:
            ValueError: `units` is out of range, or the theme unknown.
        """
        return _draw(self, units, theme)

    def _repr_svg_(self) -> str:
        return self.figure().svg


def map_each(
    predictor: Predictor, images: Any, *, stage: int = -1, fps: float | None = 1.0
) -> Iterator[FeatureMaps | Skipped]:
    """Shows images to a network and hands out the maps of one stage, in order.

    Args:
        predictor: holds a network of the atlas.
        images: files, folders, patterns, videos or images, as `Predictor.predict` takes them.
        stage: index in the network's `feature_info`; -1 for the last.
        fps: frames a second that are taken from a video; None for all.

    Raises:
        ValueError: there is no such stage, or the predictor holds no network of the atlas.
    """
    network, transform = predictor.network, predictor.transform
    if not isinstance(network, Network) or not isinstance(transform, Transform):
        raise ValueError("maps come from a network of the atlas with its transform, no exported file")
    described = describe(network, stage)
    return _each(predictor, network, transform, images, (stage, described, fps))


def _each(
    predictor: Predictor,
    network: Network[Any],
    transform: Transform,
    images: Any,
    asked: tuple[int, str, float | None],
) -> Iterator[FeatureMaps | Skipped]:
    stage, described, fps = asked
    for item, read in read_shown(find_items(images, fps), transform):
        if isinstance(read, Skipped):
            yield read
            continue
        pixels, shown = read
        with torch.no_grad():
            x = transform.normalise(shown[None]).to(predictor.device)
            found = network.forward_stages(x)[stage][0].float().cpu().clone()
        strength = found.square().mean(dim=(1, 2)).sqrt()
        order = torch.argsort(strength, descending=True, stable=True)
        layer = network.feature_info[stage].module
        seen = as_seen(pixels, shown, transform)
        yield FeatureMaps(item.name, layer, described, found, tuple(order.tolist()), seen, item.frame)


def _draw(found: FeatureMaps, units: int, theme: str) -> Figure:
    if theme not in THEMES:
        raise unknown("theme", theme, THEMES)
    count = len(found.maps)
    if not 1 <= units <= MOST_UNITS:
        raise ValueError(f"`units`={units}; expected 1 to {MOST_UNITS:,}")
    units = min(units, count)
    image = found.pixels.permute(1, 2, 0).numpy()
    canvas = Canvas()
    height, width = found.maps.shape[1:]
    negative = bool((found.maps < 0.0).any())
    scale_of = "from orange below 0 to purple above, up to" if negative else "from 0 to"
    facts = (
        found.stage,
        f"{count}×{height}×{width}",
        f"the {units} strongest of {count} units, each {scale_of} its most; below: unit · its most",
    )
    columns = min(_COLUMNS, units)
    rows = -(-units // columns)
    aspect = height / width
    wide, high = (_TILE, _TILE * aspect) if aspect <= 1 else (_TILE / aspect, _TILE)
    step = high + _LABEL + _GAP
    side = min(max(rows * step - _GAP - _LABEL, 2 * _TILE), 320.0)
    scale = side / max(image.shape[:2])
    left = MARGIN + image.shape[1] * scale + 32
    room = max(left + columns * (_TILE + _GAP) - MARGIN, 560.0)
    name = plain(found.image)
    top = heading(canvas, Captions(f"What {plain(found.layer)} sees", facts), room) - 8
    canvas.image(MARGIN, top, image.shape[1] * scale, image.shape[0] * scale, png_bytes(image))
    for place, unit in enumerate(found.order[:units]):
        x, y = left + (place % columns) * (_TILE + _GAP), top + (place // columns) * step
        tile, most = _tile(found.maps[unit], negative)
        with canvas.group(f"{found.layer}[{unit}]", f"unit {unit}"):
            canvas.image(x, y, wide, high, png_bytes(tile))
            canvas.text("t11 m", x, y + high + 10, f"{unit} · {most:.3g}", "start")
    said = f"Feature maps of {found.layer} for {name}"
    return finish(canvas, said, f"{said}; units {', '.join(map(str, found.order[:units]))}.", theme)


def _tile(feature_map: Tensor, negative: bool) -> tuple[Pixels, float]:
    """A map's colours, and the most of its values (of their sizes, where some are below 0)."""
    values = np.nan_to_num(feature_map.double().numpy(), posinf=0.0, neginf=0.0)
    most = float(np.abs(values).max())
    if negative:
        return coloured(signed(values, most), SIGNED), most
    return coloured(values / most if most > 0.0 else np.zeros_like(values)), most
