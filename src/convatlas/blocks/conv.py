"""Convolution, normalisation and activation, in that order, as one word."""

from collections.abc import Callable
from functools import partial

from torch import nn

Norm = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of channels, for example `nn.BatchNorm2d`."""

Act = Callable[[], nn.Module]
"""Makes an activation layer, for example `relu`."""

relu: Act = partial(nn.ReLU, inplace=True)
relu6: Act = partial(nn.ReLU6, inplace=True)
silu: Act = partial(nn.SiLU, inplace=True)


class ConvNormAct(nn.Sequential):
    """A convolution, then a normalisation, then an activation; the last two may be absent.

    The children are named `conv`, `norm` and `act`. The convolution has a bias exactly when no
    normalisation follows, unless `bias` says otherwise.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel_size: px, or (height, width).
        stride: px.
        padding: px on each side, or (vertical, horizontal). Never guessed from the kernel.
        groups: G, groups of channels that do not see each other.
        norm: makes the normalisation from a number of channels; None for none.
        act: makes the activation; None for none.
        bias: whether the convolution has a bias; None for "when there is no normalisation".

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H', W').
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        norm: Norm | None = nn.BatchNorm2d,
        act: Act | None = relu,
        bias: bool | None = None,
    ) -> None:
        super().__init__()
        if bias is None:
            bias = norm is None
        self.conv = nn.Conv2d(
            in_chans, out_chans, kernel_size, stride=stride, padding=padding, groups=groups, bias=bias
        )
        if norm is not None:
            self.norm = norm(out_chans)
        if act is not None:
            self.act = act()
