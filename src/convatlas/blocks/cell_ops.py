"""Operations of searched cells: what an edge of a genotype may name, and how each is built."""

import dataclasses
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import Norm
from convatlas.blocks.inverted import SamePad


class SeparableConv(nn.Sequential):
    """A depthwise and a pointwise convolution with nothing between them, then a normalisation.

    The children are named `pad` (where the padding is not symmetric), `depthwise`, `pointwise` and `norm`.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel_size: px, odd.
        stride: px, of the depthwise convolution; its padding is TensorFlow's "SAME".
        norm: makes the normalisation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride), rounded up.

    Source: Chollet 2016, "Xception", Section 1.2 and Figure 10.
    """

    def __init__(
        self, in_chans: int, out_chans: int, kernel_size: int, *, stride: int = 1, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        if stride > 1:
            self.pad = SamePad(kernel_size, stride)
        self.depthwise = nn.Conv2d(
            in_chans,
            in_chans,
            kernel_size,
            stride=stride,
            padding=0 if stride > 1 else kernel_size // 2,
            groups=in_chans,
            bias=False,
        )
        self.pointwise = nn.Conv2d(in_chans, out_chans, 1, bias=False)
        self.norm = norm(out_chans)


class ActConvNorm(nn.Sequential):
    """A ReLU, a convolution and a normalisation, in that order; the ReLU leaves its input as it is.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel_size: px, odd.
        stride: px; the padding is TensorFlow's "SAME".
        norm: makes the normalisation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride), rounded up.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.act = nn.ReLU()
        if kernel_size > 1 and stride > 1:
            self.pad = SamePad(kernel_size, stride)
        padding = 0 if stride > 1 else kernel_size // 2
        self.conv = nn.Conv2d(in_chans, out_chans, kernel_size, stride=stride, padding=padding, bias=False)
        self.norm = norm(out_chans)


class StackedSeparable(nn.Sequential):
    """A separable operation: ReLU, separable convolution, normalisation, all of it twice; the first strides.

    Source: Zoph et al. 2017, Appendix A.4 ("we apply each separable operation twice").
    """

    def __init__(self, in_chans: int, out_chans: int, kernel_size: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.act1 = nn.ReLU()
        self.conv1 = SeparableConv(in_chans, out_chans, kernel_size, stride=stride, norm=norm)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = SeparableConv(out_chans, out_chans, kernel_size, norm=norm)


class SamePool(nn.Module):
    """Mean or maximum over windows that may hang over the border, padded as TensorFlow's "SAME" is.

    Args:
        kind: "mean" or "max".
        kernel_size: px, odd.
        stride: px.
        counts_padding: whether a strided mean divides by px outside the image too.

    Shape: x (B, C, H, W) -> (B, C, H/stride, W/stride), rounded up.
    """

    def __init__(self, kind: str, kernel_size: int, stride: int, *, counts_padding: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.kernel_size = kernel_size
        self.stride = stride
        self.counts_padding = counts_padding

    def forward(self, x: Tensor) -> Tensor:
        """Pools x (B, C, H, W)."""
        size, stride = self.kernel_size, self.stride
        if stride == 1:
            if self.kind == "max":
                return F.max_pool2d(x, size, 1, size // 2)
            return F.avg_pool2d(x, size, 1, size // 2, count_include_pad=False)
        rows = size - stride + -x.shape[2] % stride
        columns = size - stride + -x.shape[3] % stride
        sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        if self.kind == "max":
            return F.max_pool2d(F.pad(x, sides, value=-torch.inf), size, stride)
        mean = F.avg_pool2d(F.pad(x, sides), size, stride)
        if self.counts_padding:
            return mean
        return mean / F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), sides), size, stride)

    def extra_repr(self) -> str:
        """Shows the kind and sizes in the printed network."""
        return f"{self.kind}, kernel_size={self.kernel_size}, stride={self.stride}"


class FactorizedReduction(nn.Module):
    """Halves a map without losing px: two 1x1 convolutions of stride 2, the second one px further on.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output, even.
        norm: makes the normalisation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/2, W/2), rounded up.

    Source: Zoph et al. 2017, Appendix A.4; the authors' code.
    """

    def __init__(self, in_chans: int, out_chans: int, norm: Norm) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.even = nn.Conv2d(in_chans, out_chans // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(in_chans, out_chans - out_chans // 2, 1, stride=2, bias=False)
        self.norm = norm(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Halves x (B, in_chans, H, W)."""
        x = self.act(x)
        shifted = F.pad(x, (-1, 1, -1, 1))
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


@dataclasses.dataclass(frozen=True)
class Site:
    """Where an operation stands.

    Attributes:
        in_chans: channels of what it is applied to.
        out_chans: channels that it must make.
        stride: px.
        norm: makes each normalisation.
        counts_padding: as `SamePool`.
    """

    in_chans: int
    out_chans: int
    stride: int
    norm: Norm
    counts_padding: bool


Operation = Callable[[Site], nn.Module]
"""Makes an operation for the place where it stands."""


def _identity(site: Site) -> nn.Module:
    if site.stride == 1 and site.in_chans == site.out_chans:
        return nn.Identity()
    return ActConvNorm(site.in_chans, site.out_chans, stride=site.stride, norm=site.norm)


def _separable(kernel_size: int) -> Operation:
    return lambda at: StackedSeparable(at.in_chans, at.out_chans, kernel_size, at.stride, at.norm)


def _conv(kernel_size: int) -> Operation:
    return lambda at: ActConvNorm(at.in_chans, at.out_chans, kernel_size, stride=at.stride, norm=at.norm)


def _skip(site: Site) -> nn.Module:
    if site.stride == 2:
        return FactorizedReduction(site.in_chans, site.out_chans, site.norm)
    return _identity(site)


def bottleneck_chans(out_chans: int, share: float) -> int:
    """Channels inside a bottlenecked operation: a share of those that it makes, rounded down."""
    return int(share * out_chans)


class Bottlenecked(nn.Sequential):
    """A ReLU, a convolution and a normalisation, repeatedly: 1x1 to fewer channels, the kernels, a 1x1.

    Where there would be less than one channel inside, the kernels alone.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernels: (height, width) in px of each convolution in the middle; two share one stride between axes.
        stride: px.
        share: channels inside, as a share of `out_chans`.
        dilation: px between the taps of the kernels.
        norm: makes each normalisation.

    Shape: x (B, in_chans, H, W) -> (B, out_chans, H/stride, W/stride), rounded up.

    Source: the authors' code of AmoebaNet; the papers name the kernels alone.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernels: tuple[tuple[int, int], ...],
        *,
        stride: int,
        share: float,
        norm: Norm,
        dilation: int = 1,
    ) -> None:
        inner = bottleneck_chans(out_chans, share)
        layers: list[nn.Module] = []
        chans, mid_chans = (inner, inner) if inner else (in_chans, out_chans)
        if inner:
            layers += [ActConvNorm(in_chans, inner, norm=norm)]
        for rows, columns in kernels:
            strides = (stride if rows > 1 else 1, stride if columns > 1 else 1)
            padding = (dilation * (rows - 1) // 2, dilation * (columns - 1) // 2)
            conv = nn.Conv2d(
                chans, mid_chans, (rows, columns), strides, padding, dilation=dilation, bias=False
            )
            layers += [nn.Sequential(nn.ReLU(), conv, norm(mid_chans))]
            chans = mid_chans
        if inner:
            layers += [ActConvNorm(inner, out_chans, norm=norm)]
        super().__init__(*layers)


def _bottlenecked(kernels: tuple[tuple[int, int], ...], share: float, dilation: int = 1) -> Operation:
    return lambda at: Bottlenecked(
        at.in_chans,
        at.out_chans,
        kernels,
        stride=at.stride,
        share=share,
        norm=at.norm,
        dilation=dilation,
    )


def _dilated_separable(kernel_size: int) -> Operation:
    """A ReLU, a depthwise convolution with a px between its taps, a 1x1 and a normalisation."""

    def make(at: Site) -> nn.Module:
        depthwise = nn.Conv2d(
            at.in_chans,
            at.in_chans,
            kernel_size,
            at.stride,
            kernel_size - 1,
            dilation=2,
            groups=at.in_chans,
            bias=False,
        )
        pointwise = nn.Conv2d(at.in_chans, at.out_chans, 1, bias=False)
        return nn.Sequential(nn.ReLU(), depthwise, pointwise, at.norm(at.out_chans))

    return make


def _pool(kind: str, kernel_size: int) -> Operation:
    def make(at: Site) -> nn.Module:
        pool = SamePool(kind, kernel_size, at.stride, counts_padding=at.counts_padding)
        if at.in_chans == at.out_chans:
            return pool
        return nn.Sequential(pool, nn.Conv2d(at.in_chans, at.out_chans, 1, bias=False), at.norm(at.out_chans))

    return make


OPERATIONS: Mapping[str, Operation] = {
    "identity": _identity,
    "conv1x1": _conv(1),
    "conv3x3": _conv(3),
    "conv1x3_3x1": _bottlenecked(((1, 3), (3, 1)), 3 / 8),
    "conv1x7_7x1": _bottlenecked(((1, 7), (7, 1)), 1 / 4),
    "dilated3x3": _bottlenecked(((3, 3),), 1 / 4, dilation=2),
    "dilated_separable3x3": _dilated_separable(3),
    "dilated_separable5x5": _dilated_separable(5),
    "separable3x3": _separable(3),
    "separable5x5": _separable(5),
    "separable7x7": _separable(7),
    "mean3x3": _pool("mean", 3),
    "max3x3": _pool("max", 3),
    "max5x5": _pool("max", 5),
    "max7x7": _pool("max", 7),
    "skip": _skip,
}
"""What an edge of a genotype may name. At stride 2, `identity` is a 1x1 convolution, `skip` halves by two."""
