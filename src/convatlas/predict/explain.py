"""Where a network looks: which places of an image speak for a class, and a figure of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from convatlas.data.crops import with_channels
from convatlas.data.fit import fit_image
from convatlas.data.image_files import ImageError
from convatlas.data.transforms import Transform
from convatlas.drawing import Figure
from convatlas.errors import unknown
from convatlas.escape import plain
from convatlas.models.network import Network
from convatlas.plots.heat import draw_heat
from convatlas.predict.features import describe
from convatlas.predict.inputs import Item, find_items, read_pixels
from convatlas.predict.outputs import Skipped
from convatlas.predict.predictor import Predictor
from convatlas.predict.saliency import (
    METHODS,
    class_activation_map,
    occlusion_map,
    randomised,
    rank_correlation,
)

NAMES = {
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "occlusion": "Occlusion",
}
SIDE = 448
"""Px of the longer side of what is drawn."""

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
ALIKE = 0.5
"""Rank correlation from which a map of random weights counts as the same map."""
REPEATS = {"occlusion": 1}
"""Sets of random weights that the check takes; 3 where nothing is said."""


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Which places of an image speak for a class.

    Attributes:
        image: as it was named.
        class_name: that is spoken for.
        probability: of that class, in [0, 1].
        prediction: the most likely class.
        layer: path of the module on whose map `heat` lies; "input" for occlusion.
        heat: (H', W') in [0, 1], the largest being 1; all 0 where no place speaks for the class.
        pixels: the part of the image that the network saw, (3, H, W) of uint8, at a size to look at.
        method: "grad-cam", "grad-cam++", "hirescam" or "occlusion".
        alike: mean rank correlation of `heat` with the maps of networks of random weights; None where that
            was not looked at, or where no place speaks for the class.
        frame: of a video, counted from 0; None for an image.
    """

    image: str
    class_name: str
    probability: float
    prediction: str
    layer: str
    heat: Tensor
    pixels: Tensor
    method: str = "grad-cam"
    alike: float | None = None
    frame: int | None = None

    @property
    def check(self) -> str:
        """Whether the map depends on the weights, in words; "" where that was not looked at."""
        if self.alike is None:
            return ""
        alike = f"{round(self.alike, 2) + 0.0:.2f}"  # No -0.00.
        if self.alike < ALIKE:
            return f"random weights give another map (rank correlation {alike})"
        return (
            f"random weights give much the same map (rank correlation {alike}): "
            "it shows the image rather than what was learnt"
        )

    def line(self, file: str) -> str:
        """What the command line says of it.

        Args:
            file: that holds the figure.
        """
        other = "" if self.prediction == self.class_name else f" (the prediction is {self.prediction})"
        where = f"{self.layer}, {heat_size(self)} places"
        said = f"{self.class_name} {self.probability:.1%}{other}: {file} ({where}"
        return plain(f"{said}; {self.check})" if self.check else f"{said})")

    def figure(self, *, theme: str = "light") -> Figure:
        """The image, and beside it the heat over the image.

        Args:
            theme: light, dark or print.
        """
        title = f"{plain(self.class_name)} {self.probability:.1%}"
        name = f"{NAMES[self.method]} for {title} on {plain(self.image)}"
        return draw_heat(self.pixels, self.heat, title=title, facts=self._facts(), name=name, theme=theme)

    def _facts(self) -> list[str]:
        where = "the input" if self.layer == "input" else f"the map of {self.layer}"
        facts = [f"{NAMES[self.method]} on {where}, {'×'.join(map(str, self.heat.shape))} places"]
        if self.prediction != self.class_name:
            facts.append(f"the prediction is {plain(self.prediction)}")
        if float(self.heat.max()) == 0.0:
            facts.append("no place speaks for it")
        return [*facts, self.check] if self.check else facts

    def _repr_svg_(self) -> str:
        return self.figure().svg


def explain(
    predictor: Predictor,
    image: Any,
    *,
    class_name: str | None = None,
    stage: int | None = None,
    method: str = "grad-cam",
    window: int | None = None,
    check: bool = True,
) -> Explanation:
    """Finds the places of an image that speak for a class.

    Args:
        predictor: holds a network of the atlas.
        image: one image, as `Predictor.predict` takes it.
        class_name: one of the network's classes; None for the most likely one.
        stage: index in the network's `feature_info`; None for the last map that is no pooling's and has more
            than one place. Occlusion looks at the input and takes none.
        method: "grad-cam" weights each channel by the mean of its gradient, "grad-cam++" by a mean that
            favours places where it grows, "hirescam" each place of each channel by its own gradient;
            "occlusion" covers the image square by square and sees how far the probability falls.
        window: side of the square of occlusion in px of the network's input; None for a quarter of it.
        check: whether the map is compared with those of networks of random weights (`Explanation.alike`).

    Raises:
        ImageError: the image cannot be used.
        UnknownNameError: the network has no such class, or the method is unknown; names the nearest.
        ValueError: there is no such stage, or the predictor holds no network of the atlas.
    """
    options: dict[str, Any] = {"class_name": class_name, "stage": stage, "method": method}
    found = next(explain_each(predictor, image, **options, window=window, check=check, fps=None), None)
    if found is None:
        raise ValueError("`image` holds no image")
    if isinstance(found, Skipped):
        raise ImageError(found.reason)
    return found


def explain_each(
    predictor: Predictor,
    images: Any,
    *,
    class_name: str | None = None,
    stage: int | None = None,
    method: str = "grad-cam",
    window: int | None = None,
    check: bool = True,
    fps: float | None = 1.0,
) -> Iterator[Explanation | Skipped]:
    """Finds the places that speak for a class in each of many images, in order.

    Args:
        predictor: holds a network of the atlas.
        images: files, folders, patterns, videos or images, as `Predictor.predict` takes them.
        class_name: one of the network's classes; None for each image's most likely one.
        stage: index in the network's `feature_info`, as for `explain`.
        method: "grad-cam", "grad-cam++", "hirescam" or "occlusion", as for `explain`.
        window: side of the square of occlusion in px; None for a quarter of the input.
        check: whether each map is compared with those of networks of random weights.
        fps: frames a second that are taken from a video; None for all.

    Raises:
        UnknownNameError: the network has no such class, or the method is unknown; names the nearest.
        ValueError: there is no such stage, or the predictor holds no network of the atlas.
    """
    network, transform, names = predictor.network, predictor.transform, predictor.class_names
    if not isinstance(network, Network) or not isinstance(transform, Transform):
        raise ValueError("an explanation needs a network of the atlas with its transform, no exported file")
    if class_name is not None and class_name not in names:
        raise unknown("class", class_name, names)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method == "occlusion" and stage is not None:
        raise ValueError(f"`stage`={stage}: occlusion covers the input, and looks at no feature map")
    if method != "occlusion" and window is not None:
        raise ValueError(f"`window`={window}: only method='occlusion' covers a square")
    if stage is not None:
        describe(network, stage)
        stage %= len(network.feature_info)
    asked = _Asked(class_name, stage, method, window, check)
    return _each(predictor, network, transform, find_items(images, fps), asked)


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What is to be explained, and how."""

    class_name: str | None
    stage: int | None
    method: str
    window: int | None
    check: bool


def _each(
    predictor: Predictor, network: Network[Any], transform: Transform, items: Iterator[Item], asked: _Asked
) -> Iterator[Explanation | Skipped]:
    others: list[Network[Any]] = []
    for item, read in read_shown(items, transform):
        if isinstance(read, Skipped):
            yield read
            continue
        pixels, shown = read
        if asked.check and not others:  # Made once for all images.
            others = [randomised(network, seed) for seed in range(REPEATS.get(asked.method, 3))]
        found = _explained(predictor, network, transform, shown, asked, others)
        seen = as_seen(pixels, shown, transform)
        yield dataclasses.replace(found, image=item.name, pixels=seen, frame=item.frame)


def _explained(
    predictor: Predictor,
    network: Network[Any],
    transform: Transform,
    shown: Tensor,
    asked: _Asked,
    others: list[Network[Any]],
) -> Explanation:
    x = transform.normalise(shown[None]).to(predictor.device)
    names = predictor.class_names
    stage = asked.stage
    if asked.method != "occlusion" and stage is None:
        stage = last_stage(network, x)
    mapped = _mapper(x, stage, transform, asked)
    shares, target, heat = mapped(
        network, None if asked.class_name is None else names.index(asked.class_name)
    )
    alike = None
    if others and float(heat.max()) > 0.0:
        alike = sum(rank_correlation(heat, mapped(other, target)[2]) for other in others) / len(others)
    return Explanation(
        image="",
        class_name=names[target],
        probability=float(shares[target]),
        prediction=names[int(shares.argmax())],
        layer="input" if stage is None else network.feature_info[stage].module,
        heat=heat,
        pixels=shown,
        method=asked.method,
        alike=alike,
    )


def _mapper(
    x: Tensor, stage: int | None, transform: Transform, asked: _Asked
) -> Callable[[Network[Any], int | None], tuple[Tensor, int, Tensor]]:
    """A function from a network and a class to probabilities, the class and its map."""
    if stage is not None:
        return lambda network, target: class_activation_map(network, x, stage, target, asked.method)
    # Ink is covered by the ground that it stands on.
    blank = torch.zeros(x.shape[1], 1, 1, dtype=torch.uint8)
    fill = transform.normalise(blank).flatten() if transform.kind == "digit" else None
    return lambda network, target: occlusion_map(network, x, target, window=asked.window, fill=fill)


def last_stage(network: Network[Any], x: Tensor) -> int:
    """The last map that is no pooling's and has more than one place; the last one where there is none.

    Args:
        network: in evaluation mode.
        x: an image, (1, C, H, W).
    """
    with torch.inference_mode():
        maps = network.forward_stages(x)
    for stage in reversed(range(len(maps))):
        is_pool = isinstance(network.get_submodule(network.feature_info[stage].module), POOLS)
        if not is_pool and min(maps[stage].shape[2:]) > 1:
            return stage
    return len(maps) - 1


def heat_size(explanation: Explanation) -> str:
    """How many places the heat has, such as "7x7"."""
    return "x".join(map(str, explanation.heat.shape))


def read_shown(
    items: Iterator[Item], transform: Transform
) -> Iterator[tuple[Item, tuple[Tensor, Tensor] | Skipped]]:
    """Reads images: their pixels and what the transform makes of them, or why they cannot be used."""
    for item in items:
        try:
            pixels = read_pixels(item)
            yield item, (pixels, transform.pixels(pixels))
        except (ImageError, ValueError) as error:
            reason = str(error) if isinstance(error, ImageError) else f"{item.name}: {error}"
            yield item, Skipped(item.name, reason, item.frame, item.seconds)


def as_seen(pixels: Tensor, shown: Tensor, transform: Transform) -> Tensor:
    """The part that the network sees, in more px than it sees; (3, H, W) of uint8."""
    height, width = shown.shape[1:]
    factor = SIDE / max(height, width)
    size = round(height * factor), round(width * factor)
    if transform.kind == "digit":
        grey = Image.fromarray(shown[0].numpy()).resize((size[1], size[0]), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(grey))[None].expand(3, -1, -1)
    seen = with_channels(pixels, transform.input_size[0])
    view = transform.count_views(seen.shape[1], seen.shape[2]) // 2
    crop_pct, fill = transform.crop_pct, transform.fill
    fitted = fit_image(
        seen, size, transform.fit, crop_pct=crop_pct, interpolation="bicubic", fill=fill, view=view
    )
    return with_channels(fitted, 3)
