"""Where a network looks: Grad-CAM, and an image of it."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from convatlas.data.crops import central_crop, with_channels
from convatlas.data.image_files import ImageError
from convatlas.data.transforms import Transform
from convatlas.errors import unknown
from convatlas.models.network import Network
from convatlas.predict.features import describe
from convatlas.predict.inputs import find_items, read_pixels
from convatlas.predict.predictor import Predictor

SIDE = 448
"""Px of the longer side of what is drawn."""

POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Which places of an image speak for a class.

    Attributes:
        image: as it was named.
        class_name: that is spoken for.
        probability: of that class, in [0, 1].
        answer: the most likely class.
        layer: path of the module on whose map `heat` lies.
        heat: (H', W') in [0, 1], the largest being 1; all 0 where no place speaks for the class.
        pixels: the part of the image that the network saw, (3, H, W) of uint8, at a size to look at.
    """

    image: str
    class_name: str
    probability: float
    answer: str
    layer: str
    heat: Tensor
    pixels: Tensor


def explain(
    predictor: Predictor, image: Any, *, class_name: str | None = None, stage: int | None = None
) -> Explanation:
    """Finds the places of an image that speak for a class, by Grad-CAM.

    The channels of a late map are weighted by how much the class's score grows with their mean; what is left
    above zero of their sum is the heat.

    Args:
        predictor: holds a network of the atlas.
        image: one image, as `Predictor.predict` takes it.
        class_name: one of the network's classes; None for the most likely one.
        stage: index in the network's `feature_info`; None for the last map that is no pooling's and has more
            than one place.

    Raises:
        ImageError: the image cannot be used.
        UnknownNameError: the network has no such class; names the nearest.
        ValueError: there is no such stage, or the predictor holds no network of the atlas.

    Source: Selvaraju et al. 2016, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
        Localization", Equations 1 and 2.
    """
    network, transform, names = predictor.network, predictor.transform, predictor.class_names
    if not isinstance(network, Network) or not isinstance(transform, Transform):
        raise ValueError("an explanation needs a network of the atlas with its transform, no exported file")
    if class_name is not None and class_name not in names:
        raise unknown("class", class_name, names)
    item = next(iter(find_items(image)), None)
    if item is None:
        raise ValueError("`image` holds no image")
    pixels = read_pixels(item)
    try:
        shown = transform.pixels(pixels)
    except ValueError as error:
        raise ImageError(f"{item.name}: {error}") from None
    x = transform.normalise(shown[None]).to(predictor.device)
    if stage is None:
        stage = last_stage(network, x)
    else:
        describe(network, stage)
        stage %= len(network.feature_info)
    target = None if class_name is None else names.index(class_name)
    shares, target, heat = grad_cam(network, x, stage, target)
    return Explanation(
        image=item.name,
        class_name=names[target],
        probability=float(shares[target]),
        answer=names[int(shares.argmax())],
        layer=network.feature_info[stage].module,
        heat=heat,
        pixels=_as_seen(pixels, shown, transform),
    )


def grad_cam(
    network: Network[Any], x: Tensor, stage: int, target: int | None = None
) -> tuple[Tensor, int, Tensor]:
    """Grad-CAM of one image.

    Args:
        network: in evaluation mode.
        x: as the transform gives it, (1, C, H, W).
        stage: index of the map in `feature_info`, 0 or more.
        target: the class; None for the most likely one.

    Returns:
        The probabilities (K,), the class, and the heat (H', W') in [0, 1].

    Raises:
        ValueError: the map has no part in the scores.
    """
    kept: list[Tensor] = []
    count = iter(range(len(network.feature_info)))

    def tap(feature_map: Tensor) -> Tensor:
        if next(count) != stage:
            return feature_map
        kept.append(feature_map.detach().requires_grad_())
        torch.set_grad_enabled(True)  # What lies before needs no gradient.
        return kept[0].clone()  # Later layers may change it in place.

    with torch.no_grad():
        logits = network.forward_head(network.features(x, tap))[0]
        with torch.enable_grad():
            target = int(logits.argmax()) if target is None else target
            gradients: list[Tensor | None] = list(
                torch.autograd.grad(logits[target], kept, allow_unused=True)
            )
    gradient = gradients[0]
    if gradient is None:
        raise ValueError(f"`stage`={stage}: the scores of {network.name} do not come from this map alone")
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = (weights * kept[0].detach()).sum(dim=1)[0].clamp(min=0.0)
    most = heat.max()
    return logits.detach().softmax(dim=0), target, (heat / most if most > 0.0 else heat).cpu()


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


def draw_explanation(explanation: Explanation) -> bytes:
    """Draws the image, and beside it the heat over the image, as a PNG."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    image = explanation.pixels.permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    heat = F.interpolate(explanation.heat[None, None], (height, width), mode="bicubic").clamp(0.0, 1.0)[0, 0]
    colours = colormaps["turbo"](0.3 + 0.65 * heat.numpy())[..., :3]
    # Where there is no heat the image stays, in grey, so that the eye goes where the network's does.
    grey = image.mean(axis=2, keepdims=True) / 255.0
    alpha = (0.7 * heat).numpy()[..., None]
    overlay = (1.0 - alpha) * (0.15 + 0.8 * grey) + alpha * colours

    margin, gap, above, dpi = 16, 12, 62, 100
    size = 2 * width + 2 * margin + gap, height + above + margin
    figure = Figure(figsize=(size[0] / dpi, size[1] / dpi), dpi=dpi)
    for number, panel in enumerate((image, overlay)):
        left = (margin + number * (width + gap)) / size[0]
        axes = figure.add_axes((left, margin / size[1], width / size[0], height / size[1]))
        axes.imshow(panel, interpolation="none")
        axes.set_axis_off()
        if number and float(heat.max()) > 0.0:
            axes.contour(heat.numpy(), levels=[0.5], colors="white", linewidths=1.2, alpha=0.9)
    title = f"{explanation.class_name} {explanation.probability:.1%}"
    other = "" if explanation.answer == explanation.class_name else f"; the answer is {explanation.answer}"
    nothing = "" if float(heat.max()) > 0.0 else "; no place speaks for it"
    figure.text(margin / size[0], 1 - 24 / size[1], title, fontsize=13, fontweight="bold", va="center")
    where = f"Grad-CAM on the map of {explanation.layer}, {heat_size(explanation)} places"
    caption = f"{where}{nothing or '; the line is half of the most'}{other}"
    figure.text(margin / size[0], 1 - 47 / size[1], caption, fontsize=9, color="#6b7280", va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def heat_size(explanation: Explanation) -> str:
    """How many places the heat has, such as "7x7"."""
    return "x".join(map(str, explanation.heat.shape))


def _as_seen(pixels: Tensor, shown: Tensor, transform: Transform) -> Tensor:
    """The part that the network sees, in more px than it sees; (3, H, W) of uint8."""
    height, width = shown.shape[1:]
    factor = SIDE / max(height, width)
    size = round(height * factor), round(width * factor)
    if transform.kind == "digit":
        grey = Image.fromarray(shown[0].numpy()).resize((size[1], size[0]), Image.Resampling.NEAREST)
        return torch.from_numpy(np.array(grey))[None].expand(3, -1, -1)
    seen = with_channels(pixels, transform.input_size[0])
    return with_channels(central_crop(seen, size, transform.crop_pct, "bicubic"), 3)
