"""Residual blocks: a branch of convolutions, added to a shortcut."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import Act, ConvNormAct, Norm, relu
from convatlas.blocks.drop import DropPath

ShortcutKind = Literal["A", "B", "C"]
"""A: no parameters, new channels are zeros. B: a projection where shapes differ. C: always a projection."""

StrideOn = Literal["1x1", "3x3"]
"""Which convolution of a bottleneck strides: the first 1x1 (v1, the paper), or the 3x3 (v1.5)."""

Squeeze = Callable[[int], nn.Module]
"""Makes a gate for a branch that ends in a number of channels, for example a `SqueezeExcite`."""


class PaddedShortcut(nn.Module):
    """Option A: the input at every `stride`-th px, with zeros for the new channels, behind the old ones.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output, at least as many.
        stride: px.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride).

    Source: He et al. 2015, "Deep Residual Learning", Section 3.3.
    """

    def __init__(self, in_chans: int, out_chans: int, stride: int) -> None:
        super().__init__()
        self.new_chans = out_chans - in_chans
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsamples x (B, in_chans, H, W) and adds empty channels."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_chans))

    def extra_repr(self) -> str:
        """Shows the shape's change in the printed network."""
        return f"new_chans={self.new_chans}, stride={self.stride}"


def make_shortcut(
    kind: ShortcutKind,
    in_chans: int,
    out_chans: int,
    stride: int = 1,
    *,
    kernel_size: int = 1,
    norm: Norm | None = nn.BatchNorm2d,
) -> nn.Module:
    """The path that a residual branch is added to.

    Args:
        kind: the paper's option.
        in_chans: channels of the input.
        out_chans: channels of the branch's output.
        stride: px of the branch.
        kernel_size: px of a projection, odd; the paper's are 1x1.
        norm: makes the normalisation that follows a projection; None for none, as in pre-activation nets.

    Raises:
        ValueError: `kind` is unknown.

    Source: He et al. 2015, Section 3.3, and Table 3 for the options.
    """
    check_shortcut(kind)
    same_shape = in_chans == out_chans and stride == 1
    if kind == "C" or (kind == "B" and not same_shape):
        return ConvNormAct(
            in_chans,
            out_chans,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            norm=norm,
            act=None,
            bias=False,
        )
    return nn.Identity() if same_shape else PaddedShortcut(in_chans, out_chans, stride)


def check_shortcut(kind: str) -> None:
    """Refuses an unknown option.

    Raises:
        ValueError: if a value is not as described above.
    """
    if kind not in ("A", "B", "C"):
        raise ValueError(
            f'`shortcut`={kind!r}; allowed are "A" (zeros for new channels), "B" (projections where shapes '
            'differ) and "C" (projections everywhere)'
        )


class PlainBlock(nn.Sequential):
    """Two 3x3 convolutions and no shortcut: what a `BasicBlock` is compared with.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        stride: px, of the first convolution.
        norm: makes each normalisation.
        act: makes each activation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride).

    Source: He et al. 2015, Figure 3, middle.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        *,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_chans, out_chans, 3, stride=stride, padding=1, norm=norm, act=act)
        self.conv2 = ConvNormAct(out_chans, out_chans, 3, padding=1, norm=norm, act=act)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to the shortcut, then the activation.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        shortcut: the other path, for example from `make_shortcut`.
        stride: px, of the first convolution.
        norm: makes each normalisation.
        act: makes each activation.
        squeeze: makes the gate at the branch's end; None for none.
        drop_path_rate: probability that a sample's branch is dropped while training.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride).

    Source: He et al. 2015, Figure 5, left.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        shortcut: nn.Module,
        *,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        squeeze: Squeeze | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_chans, out_chans, 3, stride=stride, padding=1, norm=norm, act=act)
        self.conv2 = ConvNormAct(out_chans, out_chans, 3, padding=1, norm=norm, act=None)
        self.squeeze = squeeze(out_chans) if squeeze is not None else None
        self.drop_path = DropPath(drop_path_rate)
        self.shortcut = shortcut
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        y = self.conv2(self.conv1(x))
        if self.squeeze is not None:
            y = self.squeeze(y)
        return self.act(self.drop_path(y) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to the shortcut, then the activation.

    Args:
        in_chans: channels of the input.
        mid_chans: channels that the 3x3 convolution makes.
        out_chans: channels of the output.
        shortcut: the other path, for example from `make_shortcut`.
        stride: px.
        stride_on: the convolution that strides.
        groups: G of the 3x3 convolution.
        reduced_chans: channels that the first convolution makes; None for `mid_chans`.
        norm: makes each normalisation.
        act: makes each activation.
        squeeze: makes the gate at the branch's end; None for none.
        drop_path_rate: probability that a sample's branch is dropped while training.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride).

    Raises:
        ValueError: `stride_on` is unknown.

    Source: He et al. 2015, Figure 5, right; groups: Xie et al. 2016, Figure 3(c).
    """

    def __init__(
        self,
        in_chans: int,
        mid_chans: int,
        out_chans: int,
        shortcut: nn.Module,
        *,
        stride: int = 1,
        stride_on: StrideOn = "3x3",
        groups: int = 1,
        reduced_chans: int | None = None,
        norm: Norm = nn.BatchNorm2d,
        act: Act = relu,
        squeeze: Squeeze | None = None,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        check_stride_on(stride_on)
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        reduced = mid_chans if reduced_chans is None else reduced_chans
        self.conv1 = ConvNormAct(in_chans, reduced, 1, stride=first, norm=norm, act=act)
        self.conv2 = ConvNormAct(
            reduced, mid_chans, 3, stride=second, padding=1, groups=groups, norm=norm, act=act
        )
        self.conv3 = ConvNormAct(mid_chans, out_chans, 1, norm=norm, act=None)
        self.squeeze = squeeze(out_chans) if squeeze is not None else None
        self.drop_path = DropPath(drop_path_rate)
        self.shortcut = shortcut
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Adds the branch of x (B, in_chans, H, W) to its shortcut."""
        y = self.conv3(self.conv2(self.conv1(x)))
        if self.squeeze is not None:
            y = self.squeeze(y)
        return self.act(self.drop_path(y) + self.shortcut(x))


def check_stride_on(stride_on: str, *, bottleneck: bool = True) -> None:
    """Refuses an unknown place for a block's stride, and a 1x1 convolution that blocks of two 3x3 have not.

    Raises:
        ValueError: if a value is not as described above.
    """
    if stride_on not in ("1x1", "3x3"):
        raise ValueError(
            f'`stride_on`={stride_on!r}; allowed are "1x1" (v1, the paper) and "3x3" (v1.5, most libraries)'
        )
    if stride_on == "1x1" and not bottleneck:
        raise ValueError('`stride_on`="1x1" needs `bottleneck`=True: a block of two 3x3 has no 1x1')


def zero_last_norms(root: nn.Module) -> None:
    """Sets to 0 the scale of the norm that ends each residual branch, so that a block begins as its shortcut.

    Source: Goyal et al. 2017, "Accurate, Large Minibatch SGD", Section 5.1.
    """
    for block in root.modules():
        if isinstance(block, BasicBlock):
            nn.init.zeros_(block.conv2.get_submodule("norm").get_parameter("weight"))
        elif isinstance(block, Bottleneck):
            nn.init.zeros_(block.conv3.get_submodule("norm").get_parameter("weight"))
