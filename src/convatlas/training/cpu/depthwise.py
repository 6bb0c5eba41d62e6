"""Depthwise convolutions of a training step on CPUs, whose outputs share what they read."""

from __future__ import annotations

from torch import Tensor, nn

from convatlas.training.cpu.replacement import Call, ReplacedConv2d, Replacement

LEAST_WIDTH = 7  # outputs that are computed side by side
KERNELS = (3, 5)


class DepthwiseConv2d(ReplacedConv2d):
    """A depthwise convolution in our C++."""

    def fits(self, x: Tensor) -> bool:
        """Whether x is of a training step that `library` does."""
        if not (super().fits(x) and self.weight.is_contiguous()):
            return False
        height, width = self.outputs(x)
        return height >= 1 and width >= LEAST_WIDTH

    def call(self, x: Tensor) -> Call:
        """What is to be computed of x, which fits."""
        images, chans, *sides = x.shape
        window = (self.kernel_size[0], self.stride[0], int(self.padding[0]))
        return Call("depthwise", (images, *sides, chans, *window), (images, chans, *self.outputs(x)))


def _replacement(kernel: int) -> Replacement:
    def suits(layer: nn.Conv2d, lanes: int) -> bool:
        return (
            layer.kernel_size == (kernel, kernel)
            and layer.stride in ((1, 1), (2, 2))
            and layer.groups == layer.in_channels == layer.out_channels
            and layer.padding in tuple((pad, pad) for pad in range(kernel))
            and layer.in_channels % lanes == 0
        )

    return Replacement(
        f"depthwise{kernel}",
        f"depthwise {kernel}x{kernel} convolutions",
        "in our C++",
        DepthwiseConv2d,
        suits,
        lambda chans: nn.Conv2d(chans, chans, kernel, padding=kernel // 2, groups=chans, bias=False),
        ((8, 32, 56), (8, 144, 28), (16, 384, 14)),
    )


# Each size by itself: torch's own are good at 3x3, and slow at 5x5.
DEPTHWISE = tuple(_replacement(kernel) for kernel in KERNELS)
