"""Convolutions that torch gets wrong in bfloat16 on CPUs, done in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convatlas.training.cpu.library import HALF


class Bf16SafeConv2d(nn.Conv2d):
    """A convolution whose gradients are right in bfloat16 too.

    With a stride, and a map hardly larger than the kernel, some weights meet nothing but padding. torch 2.15
    (oneDNN) leaves the gradient of these as memory was before, in bfloat16: any number, or none.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolves x (B, C, H, W)."""
        is_half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == HALF
        if not (is_half and input.device.type == "cpu" and self._is_hardly_larger(input)):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float()).to(HALF)

    def _is_hardly_larger(self, x: Tensor) -> bool:
        return max(self.stride) > 1 and min(x.shape[-2:]) <= max(self.kernel_size)

    def _get_name(self) -> str:
        return nn.Conv2d.__name__


def make_bf16_safe(net: nn.Module) -> None:
    """Keeps the convolutions of a network from what torch does wrong in bfloat16 on CPUs.

    Args:
        net: its layers are changed in place; our own convolutions compute like that already.
    """
    for layer in net.modules():
        if type(layer) is nn.Conv2d and max(layer.stride) > 1 and max(layer.kernel_size) > 1:
            layer.__class__ = Bf16SafeConv2d
