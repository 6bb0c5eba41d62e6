"""Which places of an image a class's score comes from: three weightings of a feature map, and occlusion.

Sources: Selvaraju et al. 2016, "Grad-CAM", Equations 1 and 2; Chattopadhyay et al. 2018, "Grad-CAM++",
Section 3; Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations"; Zeiler and
Fergus 2013, "Visualizing and Understanding Convolutional Networks", Section 4.2; Adebayo et al. 2018, "Sanity
Checks for Saliency Maps", Section 3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from convatlas.models.network import Network

METHODS = ("grad-cam", "grad-cam++", "hirescam", "occlusion")
CELLS = 14
"""Places along a side at which occlusion covers the image."""
BATCH = 32


def class_activation_map(
    network: Network[Any], x: Tensor, stage: int, target: int | None = None, method: str = "grad-cam"
) -> tuple[Tensor, int, Tensor]:
    """The places of one feature map that raise a class's score.

    Args:
        network: in evaluation mode.
        x: an image, (1, C, H, W).
        stage: index in `feature_info`, from 0.
        target: index of the class; None for the most likely one.
        method: "grad-cam", "grad-cam++" or "hirescam".

    Returns:
        Probabilities (K,), the class, and the heat (H', W') in [0, 1].

    Raises:
        ValueError: the map has no part in the logits.
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
        raise ValueError(f"`stage`={stage}: the logits of {network.name} do not come from this map alone")
    heat = WEIGHTINGS[method](kept[0].detach(), gradient)[0]
    return logits.detach().softmax(dim=0), target, unit_range(heat).cpu()


def _grad_cam(feature_map: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.mean(dim=(2, 3), keepdim=True) * feature_map).sum(dim=1)


def _grad_cam_plus_plus(feature_map: Tensor, gradient: Tensor) -> Tensor:
    # For logits that go through an exponential, higher derivatives are powers of the first. The factor
    # exp(score) that all weights share falls out, since the heat is scaled to 1.
    square, cube = gradient.square(), gradient**3
    below = 2.0 * square + feature_map.sum(dim=(2, 3), keepdim=True) * cube
    alpha = torch.where(below == 0.0, torch.zeros_like(below), square / below.where(below != 0.0, 1.0))
    weights = (alpha * gradient.clamp(min=0.0)).sum(dim=(2, 3), keepdim=True)
    return (weights * feature_map).sum(dim=1)


def _hirescam(feature_map: Tensor, gradient: Tensor) -> Tensor:
    return (gradient * feature_map).sum(dim=1)


WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grad-cam": _grad_cam,
    "grad-cam++": _grad_cam_plus_plus,
    "hirescam": _hirescam,
}


def unit_range(heat: Tensor) -> Tensor:
    """What lies above 0, scaled so that the most is 1; all 0 where nothing does or it is not finite."""
    heat = heat.clamp(min=0.0)
    most = heat.max()
    return heat / most if bool(torch.isfinite(most)) and most > 0.0 else torch.zeros_like(heat)


@torch.no_grad()
def occlusion_map(
    network: Network[Any],
    x: Tensor,
    target: int | None = None,
    *,
    window: int | None = None,
    fill: Tensor | None = None,
    batch_size: int = BATCH,
) -> tuple[Tensor, int, Tensor]:
    """How much a class's probability falls when a square is covered, for squares all over the image.

    Args:
        network: in evaluation mode.
        x: an image, (1, C, H, W).
        target: index of the class; None for the most likely one.
        window: side of the square in px; None for a quarter of the shorter side.
        fill: (C,) of the square; None for the mean colour of training, which is 0 after normalisation.
        batch_size: covered images that go through the network together.

    Returns:
        Probabilities (K,), the class, and the heat, up to (14, 14), in [0, 1].

    Raises:
        ValueError: `window` is less than 1 px or larger than the image.
    """
    height, width = x.shape[2:]
    side = max(min(height, width) // 4, 1) if window is None else window
    if not 1 <= side <= min(height, width):
        raise ValueError(f"`window`={window}; expected 1 to {min(height, width)} px")
    shares = network(x)[0].softmax(dim=0)
    target = int(shares.argmax()) if target is None else target
    rows, columns = min(CELLS, height), min(CELLS, width)
    colour = torch.zeros(x.shape[1], device=x.device) if fill is None else fill.to(x.device)
    tops = [_corner(i, rows, height, side) for i in range(rows)]
    lefts = [_corner(j, columns, width, side) for j in range(columns)]
    corners = [(top, left) for top in tops for left in lefts]
    falls: list[Tensor] = []
    for start in range(0, len(corners), batch_size):
        covered = x.repeat(len(corners[start : start + batch_size]), 1, 1, 1)
        for image, (top, left) in zip(covered, corners[start : start + batch_size], strict=True):
            image[:, max(top, 0) : top + side, max(left, 0) : left + side] = colour[:, None, None]
        falls.append(shares[target] - network(covered).softmax(dim=1)[:, target])
    return shares, target, unit_range(torch.cat(falls).reshape(rows, columns)).cpu()


def _corner(index: int, count: int, length: int, side: int) -> int:
    """Where a square begins whose middle is that of a cell; below 0 where it reaches over the edge."""
    return round((index + 0.5) * length / count - side / 2)


def randomised(network: Network[Any], seed: int) -> Network[Any]:
    """The same network with random weights: normal, with the deviation that each tensor had.

    Vectors (biases, and what normalisations hold) are kept, so that activations keep their size.

    Args:
        network: is left as it is.
        seed: of the random numbers.
    """
    other = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * float(parameter.float().std(correction=0)))
    return other


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's: how alike two maps order their places, from -1 to 1; 0 where one of them is constant."""
    from scipy.stats import rankdata

    ranks = [torch.from_numpy(rankdata(each.flatten().numpy())) for each in (one, other)]
    a, b = (each - each.mean() for each in ranks)
    size = float(a.norm() * b.norm())
    return float(a @ b) / size if size > 0.0 else 0.0
