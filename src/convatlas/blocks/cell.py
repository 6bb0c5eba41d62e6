"""Cells of searched networks: a genotype says which operations meet where, and `Cell` builds what it says."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.blocks.conv import Norm
from convatlas.blocks.drop import DropPath
from convatlas.blocks.inverted import SamePad


class Edge(NamedTuple):
    """One operation of a cell.

    Attributes:
        op: a name of `OPERATIONS`.
        state: what it is applied to: 0 the input, 1 the previous cell's input, 2 + i the i-th node.
    """

    op: str
    state: int


@dataclasses.dataclass(frozen=True)
class Genotype:
    """A cell as data.

    Args:
        nodes: for each node the edges whose results it sums.
        concat: states whose concatenation is the output, in order.

    Raises:
        ValueError: an operation is unknown, or a state is not there yet.
    """

    nodes: tuple[tuple[Edge, ...], ...]
    concat: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks names and states."""
        for i, edges in enumerate(self.nodes):
            if not edges:
                raise ValueError(f"`nodes`[{i}] is empty; a node sums at least one operation")
            for op, state in edges:
                if op not in OPERATIONS:
                    raise ValueError(
                        f"`nodes`[{i}]: unknown operation {op!r}; allowed are {', '.join(OPERATIONS)}"
                    )
                if not 0 <= state < i + 2:
                    raise ValueError(f"`nodes`[{i}] reads state {state}; it may read 0 to {i + 1}")
        last = len(self.nodes) + 1
        if not self.concat or not all(0 <= state <= last for state in self.concat):
            raise ValueError(f"`concat`={self.concat!r}; expected at least one state of 0 to {last}")


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
    "separable3x3": _separable(3),
    "separable5x5": _separable(5),
    "separable7x7": _separable(7),
    "mean3x3": _pool("mean", 3),
    "max3x3": _pool("max", 3),
    "max5x5": _pool("max", 5),
    "max7x7": _pool("max", 7),
}
"""What an edge of a genotype may name."""


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


class Cell(nn.Module):
    """What a genotype says, on two inputs: the last cell's output and that of the one before.

    Each input is first brought to `chans` channels (and the second to the first one's size); then every
    node sums its operations. Operations on the inputs stride, those on nodes do not.

    Args:
        genotype: the cell.
        in_chans: channels of the input.
        prev_chans: channels of the previous input; None where there is none: state 1 is then the input as
            it is, and each operation on it makes `chans` channels itself.
        chans: channels of each node.
        stride: px.
        prev_stride: 2 where the previous input is twice as large as the input.
        norm: makes each normalisation.
        drop_path_rate: probability that a sample's operation is dropped while training; identities stay.
        counts_padding: as `SamePool`.

    Attributes:
        out_chans: channels of the output.
        drop_path: drops operations; a schedule sets its `drop_rate` to a share of `drop_path_rate`.

    Shape: x (B, in_chans, H, W), prev (B, prev_chans, H * prev_stride, W * prev_stride)
        -> (B, out_chans, H/stride, W/stride), rounded up.

    Source: Zoph et al. 2017, Section 3.1 and Appendix A.4.
    """

    def __init__(
        self,
        genotype: Genotype,
        in_chans: int,
        prev_chans: int | None,
        chans: int,
        *,
        stride: int = 1,
        prev_stride: int = 1,
        norm: Norm = nn.BatchNorm2d,
        drop_path_rate: float = 0.0,
        counts_padding: bool = False,
    ) -> None:
        super().__init__()
        self.genotype = genotype
        self.drop_path_rate = drop_path_rate
        self.out_chans = chans * len(genotype.concat)
        self.project = ActConvNorm(in_chans, chans, norm=norm)
        if prev_chans is None:
            self.project_prev: nn.Module = nn.Identity()
        elif prev_stride == 2:
            self.project_prev = FactorizedReduction(prev_chans, chans, norm)
        elif prev_chans != chans:
            self.project_prev = ActConvNorm(prev_chans, chans, norm=norm)
        else:
            self.project_prev = nn.Identity()
        state_chans = [chans, in_chans if prev_chans is None else chans, *[chans] * len(genotype.nodes)]
        nodes: list[nn.ModuleList] = []
        for edges in genotype.nodes:
            ops: list[nn.Module] = []
            for op, state in edges:
                site = Site(state_chans[state], chans, stride if state < 2 else 1, norm, counts_padding)
                ops.append(OPERATIONS[op](site))
            nodes.append(nn.ModuleList(ops))
        self.nodes = nn.ModuleList(nodes)
        self.drop_path = DropPath(drop_path_rate)
        # State 1 as a part of the output, where no convolution has brought it to `chans` channels.
        self.project_concat = (
            nn.Sequential(nn.Conv2d(in_chans, chans, 1, bias=False), norm(chans))
            if 1 in genotype.concat and state_chans[1] != chans
            else nn.Identity()
        )

    def forward(self, x: Tensor, prev: Tensor) -> Tensor:
        """Runs every node on x and the previous input."""
        states = [self.project(x), self.project_prev(prev)]
        for edges, ops in zip(self.genotype.nodes, self.nodes, strict=True):
            parts = [
                op(states[state]) if name == "identity" else self.drop_path(op(states[state]))
                for (name, state), op in zip(edges, ops.children(), strict=True)
            ]
            states.append(reduce(add, parts))
        states[1] = self.project_concat(states[1])
        return torch.cat([states[i] for i in self.genotype.concat], dim=1)
