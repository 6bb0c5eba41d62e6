"""How nearly an engine's logits are the network's own."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What was found on some images.

    Attributes:
        error: the largest difference between logits, relative to the largest logit of the network itself.
        same_top: share of the images whose most likely class stays the same.
        images: how many.
    """

    error: float
    same_top: float
    images: int


def compare(logits: Tensor, expected: Tensor) -> Agreement:
    """Compares logits (B, K) with the network's own (B, K).

    Where the network itself gives infinities or NaN, the logits must give the same; an `error` of infinity
    says that they do not, or that the shape is another.
    """
    if logits.shape != expected.shape:
        return Agreement(float("inf"), 0.0, len(expected))
    logits, expected = logits.detach().cpu().double(), expected.detach().cpu().double()
    same_top = 1.0
    if expected.dim() == 2 and expected.shape[1] > 0:
        same_top = (logits.argmax(1) == expected.argmax(1)).double().mean().item()
    finite = expected.isfinite()
    if not torch.equal(logits[~finite].nan_to_num(), expected[~finite].nan_to_num()):
        return Agreement(float("inf"), same_top, len(expected))
    largest = expected[finite].abs().max().item() if finite.any() else 0.0
    difference = (logits - expected)[finite].abs()
    if not difference.isfinite().all():
        return Agreement(float("inf"), same_top, len(expected))
    most = difference.max().item() if difference.numel() else 0.0
    return Agreement(most / largest if largest else most, same_top, len(expected))


def rounding_error(net: nn.Module, images: Tensor, logits: Tensor) -> float:
    """How far a network's logits in float32 are from the true ones, relative to the largest; 0 if unknown.

    Args:
        net: in evaluation mode, on the CPU or a GPU.
        images: (B, C, H, W); the first is looked at.
        logits: (B, K), the network's own.
    """
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    try:
        with torch.inference_mode():
            exact = copy.deepcopy(net).double()(images[:1].to(device, torch.float64))
    except Exception:  # A foreign network may insist on its type.
        return 0.0
    return compare(logits[:1], exact).error
