"""Depthwise convolutions of a training step on CPUs, whose outputs share what they read."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from convatlas.training.kernels import HALF, LAST, cast, is_layers_step, library, place
from convatlas.training.replacement import SHORTEST, Replacement

LEAST_WIDTH = 7  # outputs that are computed side by side
KERNELS = (3, 5)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that `library` computes in training steps on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves x (B, C, H, W)."""
        if not self.fits(input):
            return super().forward(input)
        window = (self.kernel_size[0], self.stride[0], int(self.padding[0]))
        y: Any = _Convolved.apply(cast(input), self.weight, self.bias, window)
        return y

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` does."""
        if not (is_layers_step(self, x) and self.weight.is_contiguous()):
            return False
        height, width = (
            _outputs(side, self.kernel_size[0], self.stride[0], int(self.padding[0])) for side in x.shape[2:]
        )
        return height >= 1 and width >= LEAST_WIDTH

    def _get_name(self) -> str:
        return nn.Conv2d.__name__


def _outputs(side: int, kernel: int, stride: int, pad: int) -> int:
    return (side + 2 * pad - kernel) // stride + 1


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: tuple[int, int, int]
    ) -> Tensor:
        images, chans, height, width = x.shape
        ctx.sizes = (x.dtype == HALF, images, height, width, chans, *window, torch.get_num_threads())
        shape = (images, chans, _outputs(height, *window), _outputs(width, *window))
        y = torch.empty(shape, dtype=x.dtype, memory_format=LAST)
        library().train_depthwise_forward(place(x), place(weight), place(bias), place(y), *ctx.sizes)
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
        library().train_depthwise_backward(
            place(grad), place(x), place(weight), place(dx), place(dweight), *ctx.sizes
        )
        dbias = grad.sum((0, 2, 3), dtype=torch.float32) if asks_bias else None
        return dx, dweight, dbias, None


def depthwise(
    net: nn.Module, lanes: int = SHORTEST, *, kernels: tuple[int, ...] = KERNELS
) -> list[nn.Conv2d]:
    """The convolutions of a network that these are for.

    Args:
        net: as it is, or with `compute_depthwise` done.
        lanes: floats in a vector, of which channels take whole ones; `library` knows how many there are here.
        kernels: sides of kernels, in px.
    """
    return [
        layer
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
        and type(layer) in (nn.Conv2d, DepthwiseConv2d)
        and layer.kernel_size in tuple((kernel, kernel) for kernel in kernels)
        and layer.stride in ((1, 1), (2, 2))
        and layer.dilation == (1, 1)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.padding_mode == "zeros"
        and layer.padding in tuple((pad, pad) for pad in range(layer.kernel_size[0]))
        and layer.in_channels % lanes == 0
    ]


def compute_depthwise(net: nn.Module, *, kernels: tuple[int, ...] = KERNELS) -> None:
    """Lets a network compute depthwise convolutions of training steps by `library`.

    Where that does not fit (another device, type or layout, evaluation, narrow maps), layers do as torch's.

    Args:
        net: its layers are changed in place; it still saves, loads, prints and answers as before.
        kernels: sides of kernels, in px.
    """
    for layer in depthwise(net, library().train_lanes(), kernels=kernels):
        layer.__class__ = DepthwiseConv2d


def _replacement(kernel: int) -> Replacement:
    return Replacement(
        f"depthwise{kernel}",
        f"depthwise {kernel}x{kernel} convolutions",
        "in C++ of ours",
        functools.partial(depthwise, kernels=(kernel,)),
        functools.partial(compute_depthwise, kernels=(kernel,)),
        lambda chans: nn.Conv2d(chans, chans, kernel, padding=kernel // 2, groups=chans, bias=False),
        ((8, 32, 56), (8, 144, 28), (16, 384, 14)),
    )


# Each size by itself: torch's own are good at 3x3, and slow at 5x5.
DEPTHWISE = tuple(_replacement(kernel) for kernel in KERNELS)
