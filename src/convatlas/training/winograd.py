"""3x3 convolutions of a training step with a quarter of the products, on CPUs: Winograd's minimal filtering.

Source: Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", Section 4, F(4x4, 3x3): 36
products for 16 outputs, which take 144 one by one. The gradient of the input is a convolution of the same
kind, and that of the weight is the same trilinear form, taken for another of its three parts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convatlas.training.kernels import HALF, LAST, cast, is_layers_step, library, place
from convatlas.training.replacement import SHORTEST, Replacement

SIDE = 4  # of a tile, in outputs
# Below, the tiles that jut out over the edge, or the weights, take longer than the products that are saved.
LEAST_SAVING, LEAST_TILES = 1.5, 32


class WinogradConv2d(nn.Conv2d):
    """A convolution that takes a quarter of the products in training steps on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves x (B, C, H, W)."""
        if not self.fits(input):
            return super().forward(input)
        y: Any = _Convolved.apply(cast(input), self.weight, self.bias, self._pad())
        return y

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` does, and does faster."""
        if not is_layers_step(self, x):
            return False
        height, width = (side + 2 * self._pad() - 2 for side in x.shape[2:])
        tiles = math.ceil(height / SIDE) * math.ceil(width / SIDE)
        return (
            len(x) * tiles >= LEAST_TILES
            and 9 * height * width >= LEAST_SAVING * (SIDE + 2) ** 2 * tiles
            and self.weight.is_contiguous(memory_format=LAST)
        )

    def _pad(self) -> int:
        return int(self.padding[0])

    def _get_name(self) -> str:
        return nn.Conv2d.__name__


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pad: int) -> Tensor:
        images, in_chans, height, width = x.shape
        ctx.sizes = (
            x.dtype == HALF,
            images,
            height,
            width,
            in_chans,
            len(weight),
            pad,
            torch.get_num_threads(),
        )
        shape = (images, len(weight), height + 2 * pad - 2, width + 2 * pad - 2)
        y = torch.empty(shape, dtype=x.dtype, memory_format=LAST)
        library().train_conv_forward(place(x), place(weight), place(bias), place(y), *ctx.sizes)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        asks_x, asks_weight, asks_bias, _ = ctx.needs_input_grad
        grad = grads[0].to(x.dtype).contiguous(memory_format=LAST)
        dx = torch.empty_like(x) if asks_x else None
        dweight = torch.empty_like(weight) if asks_weight else None
        library().train_conv_backward(
            place(grad), place(x), place(weight), place(dx), place(dweight), *ctx.sizes
        )
        dbias = grad.sum((0, 2, 3), dtype=torch.float32) if asks_bias else None
        return dx, dweight, dbias, None


def filters(net: nn.Module, lanes: int = SHORTEST) -> list[nn.Conv2d]:
    """The convolutions of a network that the filtering is for.

    Args:
        net: as it is, or with `filter_minimally` done.
        lanes: floats in a vector, of which channels take whole ones; `library` knows how many there are here.
    """
    return [
        layer
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
        and type(layer) in (nn.Conv2d, WinogradConv2d)
        and layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and layer.padding in ((0, 0), (1, 1), (2, 2))
        and layer.in_channels % lanes == 0
        and layer.out_channels % lanes == 0
    ]


def filter_minimally(net: nn.Module) -> None:
    """Lets a network compute 3x3 convolutions of training steps by `library`.

    Where that does not fit (another device, type or layout, evaluation, small maps), layers do as torch's.

    Args:
        net: its layers are changed in place; it still saves, loads, prints and answers as before.
    """
    for layer in filters(net, library().train_lanes()):
        layer.__class__ = WinogradConv2d


WINOGRAD = Replacement(
    "winograd",
    "3x3 convolutions",
    "with a quarter of the products",
    filters,
    filter_minimally,
    lambda chans: nn.Conv2d(chans, chans, 3, padding=1, bias=False),
    ((64, 16, 28), (8, 64, 28), (16, 128, 14)),
)
