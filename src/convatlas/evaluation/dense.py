"""Dense evaluation: a network's classifier at every place of the last map, the predictions averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.head import ClassifierHead
from convatlas.blocks.mlp_head import MlpHead
from convatlas.models.network import Network
from convatlas.models.nin import NiNHead

ScoreMap = Callable[[Tensor], Tensor]


class Dense(nn.Module):
    """A network on images of any size, as if it were run at every place where its training size fits.

    Fully connected layers become convolutions that cover what they covered at the training size; global
    pooling becomes pooling over windows as large as the map was then. At the training size nothing changes.

    Args:
        net: used, not copied; put into evaluation mode.
        size: height and width in px that it was trained at.

    Shape: x (B, C, H, W) with H and W of at least `size` -> (B, K).

    Raises:
        ValueError: the network has no classifier, or pools in a way that has no windows.

    Source: Simonyan and Zisserman 2014, Section 3.2; Sermanet et al. 2013, "OverFeat".
    """

    def __init__(self, net: Network[Any], size: tuple[int, int]) -> None:
        super().__init__()
        if net.num_classes == 0:
            raise ValueError(f"{net.name or type(net).__name__}: has no classifier to slide over the map")
        self.net = net.eval()
        like = next(net.parameters())
        with torch.inference_mode():
            image = torch.zeros(1, net.config.in_chans, *size, device=like.device, dtype=like.dtype)
            window = tuple(net.forward_features(image).shape[2:])
        self.window = (int(window[0]), int(window[1]))
        self._slide = _sliding(net.head, self.window)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, averaged over the places.

        Raises:
            ValueError: the images are smaller than those of training.
        """
        return self.score_map(x).mean(dim=(2, 3))

    def score_map(self, x: Tensor) -> Tensor:
        """Logits at each place: (B, C, H, W) -> (B, K, H', W').

        Raises:
            ValueError: as `forward`.
        """
        features = self.net.forward_features(x)
        if any(side < least for side, least in zip(features.shape[2:], self.window, strict=True)):
            raise ValueError(
                f"{self.net.name}: images of {x.shape[2]}x{x.shape[3]} px give a map of "
                f"{features.shape[2]}x{features.shape[3]}; dense evaluation needs at least the "
                f"{self.window[0]}x{self.window[1]} of the training size"
            )
        return self._slide(features)


def _sliding(head: nn.Module, window: tuple[int, int]) -> ScoreMap:
    """From the last map (B, C, H, W) to the head's logits at each place of a window, (B, K, H', W')."""
    if isinstance(head, ClassifierHead):
        return lambda x: _linear(_pooled(x, head.global_pool, window), head.fc)
    if isinstance(head, NiNHead):
        return lambda x: _pooled(F.relu(head.fc(x)), head.global_pool, window)
    if isinstance(head, MlpHead) and head.pool.output_size in (window[0], window):
        return lambda x: _mlp(x, head, window)
    return lambda x: _by_windows(x, head, window)


def _pooled(x: Tensor, kind: str, window: tuple[int, int]) -> Tensor:
    if kind == "max":
        return F.max_pool2d(x, window, stride=1)
    return F.avg_pool2d(x, window, stride=1)


def _linear(x: Tensor, layer: nn.Module) -> Tensor:
    """A linear layer as a 1x1 convolution."""
    assert isinstance(layer, nn.Linear)
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def _mlp(x: Tensor, head: MlpHead, window: tuple[int, int]) -> Tensor:
    """The first layer as a convolution that covers the window, the others as 1x1 convolutions."""
    linear = [layer for layer in (*head.hidden, head.fc) if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(linear):
        kernel = window if number == 0 else (1, 1)
        x = F.conv2d(x, layer.weight.view(layer.out_features, -1, *kernel), layer.bias)
        x = F.relu(x) if layer is not linear[-1] else x
    return x


def _by_windows(x: Tensor, head: nn.Module, window: tuple[int, int]) -> Tensor:
    """Any other head, on each window as a map of its own."""
    batch, chans, height, width = x.shape
    rows, columns = height - window[0] + 1, width - window[1] + 1
    parts = F.unfold(x, window).transpose(1, 2).reshape(-1, chans, *window)
    return head(parts).view(batch, rows, columns, -1).permute(0, 3, 1, 2)
