"""Exact sizes of networks of cells and of inverted residuals, in closed form: no module is built.

The numbers are those that `convatlas.size` counts on the built network: parameters; multiply-adds of
convolutions and linear layers; and elements that operations write, in-place ones apart.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from convatlas.blocks.cell import Genotype
from convatlas.blocks.cell201 import EDGES, Genotype201
from convatlas.blocks.cell_ops import bottleneck_chans
from convatlas.blocks.genotype import CellGenotype
from convatlas.blocks.mobile_genotype import MobileGenotype


class Costs(NamedTuple):
    """What a network needs for one image.

    Attributes:
        params: parameters.
        macs: multiply-adds of convolutions and linear layers.
        activations: elements that its operations write.
    """

    params: int
    macs: int
    activations: int

    @property
    def activation_bytes(self) -> int:
        """Bytes of `activations` in float32."""
        return 4 * self.activations


Size = tuple[int, int]
"""Height and width in px."""

ZERO = Costs(0, 0, 0)


def total(*parts: Costs) -> Costs:
    """The sum."""
    return Costs(
        sum([part[0] for part in parts]), sum([part[1] for part in parts]), sum([part[2] for part in parts])
    )


def halved(size: Size) -> Size:
    """The size behind a stride of 2, rounded up."""
    return -(-size[0] // 2), -(-size[1] // 2)


def strided(size: Size, stride: int) -> Size:
    """The size behind a stride of 1 or 2."""
    return halved(size) if stride == 2 else size


def conv(in_chans: int, out_chans: int, taps: int, out: Size, groups: int = 1, bias: bool = False) -> Costs:
    """A convolution of `taps` px that makes a map of `out` px."""
    weights = in_chans // groups * out_chans * taps
    area = out[0] * out[1]
    return Costs(weights + (out_chans if bias else 0), weights * area, out_chans * area)


def norm(chans: int, size: Size) -> Costs:
    """Batch normalisation."""
    return Costs(2 * chans, 0, chans * size[0] * size[1])


def writes(chans: int, size: Size) -> Costs:
    """Anything without parameters and multiply-adds that writes a map."""
    return Costs(0, 0, chans * size[0] * size[1])


def same_padded(size: Size, kernel: int, stride: int) -> Size:
    """The size of the map after TensorFlow's "SAME" padding."""
    return tuple(px + kernel - stride + -px % stride for px in size)  # pyright: ignore[reportReturnType]


def act_conv_norm(in_chans: int, out_chans: int, kernel: int, stride: int, size: Size) -> Costs:
    """`ActConvNorm`."""
    out = strided(size, stride)
    parts = [writes(in_chans, size), conv(in_chans, out_chans, kernel**2, out), norm(out_chans, out)]
    if kernel > 1 and stride > 1:
        parts.append(writes(in_chans, same_padded(size, kernel, stride)))
    return total(*parts)


def separable(in_chans: int, out_chans: int, kernel: int, stride: int, size: Size) -> Costs:
    """`StackedSeparable`."""
    out = strided(size, stride)
    parts = [
        writes(in_chans, size),
        conv(in_chans, in_chans, kernel**2, out, groups=in_chans),
        conv(in_chans, out_chans, 1, out),
        norm(out_chans, out),
        conv(out_chans, out_chans, kernel**2, out, groups=out_chans),
        conv(out_chans, out_chans, 1, out),
        norm(out_chans, out),
    ]
    if stride > 1:
        parts.append(writes(in_chans, same_padded(size, kernel, stride)))
    return total(*parts)


def dilated_separable(in_chans: int, out_chans: int, kernel: int, stride: int, size: Size) -> Costs:
    """A ReLU, a dilated depthwise convolution, a 1x1 and a normalisation."""
    out = strided(size, stride)
    return total(
        writes(in_chans, size),
        conv(in_chans, in_chans, kernel**2, out, groups=in_chans),
        conv(in_chans, out_chans, 1, out),
        norm(out_chans, out),
    )


def bottlenecked(
    in_chans: int, out_chans: int, kernels: tuple[Size, ...], share: float, stride: int, size: Size
) -> Costs:
    """`Bottlenecked`."""
    inner = bottleneck_chans(out_chans, share)
    parts = [act_conv_norm(in_chans, inner, 1, 1, size)] if inner else []
    chans, mid_chans = (inner, inner) if inner else (in_chans, out_chans)
    for rows, columns in kernels:
        out = (
            strided(size, stride if rows > 1 else 1)[0],
            strided(size, stride if columns > 1 else 1)[1],
        )
        parts += [writes(chans, size), conv(chans, mid_chans, rows * columns, out), norm(mid_chans, out)]
        chans, size = mid_chans, out
    if inner:
        parts.append(act_conv_norm(inner, out_chans, 1, 1, size))
    return total(*parts)


def factorized_reduction(in_chans: int, out_chans: int, size: Size) -> Costs:
    """`FactorizedReduction`."""
    out = halved(size)
    return total(
        writes(in_chans, size),
        writes(in_chans, size),  # The shifted map.
        conv(in_chans, out_chans, 1, out),
        writes(out_chans, out),  # The concatenation.
        norm(out_chans, out),
    )


def pool(kind: str, kernel: int, in_chans: int, out_chans: int, stride: int, size: Size) -> Costs:
    """`SamePool`, and a 1x1 where the channels change."""
    out = strided(size, stride)
    parts = [writes(in_chans, out)]
    if stride > 1:
        padded = same_padded(size, kernel, stride)
        parts.append(writes(in_chans, padded))
        if kind == "mean":  # The px that are there are counted, and the sum is divided by them.
            parts += [writes(1, size), writes(1, padded), writes(1, out), writes(in_chans, out)]
    if in_chans != out_chans:
        parts += [conv(in_chans, out_chans, 1, out), norm(out_chans, out)]
    return total(*parts)


@lru_cache(maxsize=100_000)
def operation(name: str, in_chans: int, out_chans: int, stride: int, size: Size) -> Costs:
    """An operation of `OPERATIONS` at a place."""
    if name in ("identity", "skip"):
        if stride == 1 and in_chans == out_chans:
            return ZERO
        if name == "skip" and stride == 2:
            return factorized_reduction(in_chans, out_chans, size)
        return act_conv_norm(in_chans, out_chans, 1, stride, size)
    if name.startswith("separable"):
        return separable(in_chans, out_chans, int(name[-1]), stride, size)
    if name.startswith("dilated_separable"):
        return dilated_separable(in_chans, out_chans, int(name[-1]), stride, size)
    if name.startswith(("mean", "max")):
        return pool(name[:-3], int(name[-1]), in_chans, out_chans, stride, size)
    if name == "dilated3x3":
        return bottlenecked(in_chans, out_chans, ((3, 3),), 1 / 4, stride, size)
    if name == "conv1x3_3x1":
        return bottlenecked(in_chans, out_chans, ((1, 3), (3, 1)), 3 / 8, stride, size)
    if name == "conv1x7_7x1":
        return bottlenecked(in_chans, out_chans, ((1, 7), (7, 1)), 1 / 4, stride, size)
    return act_conv_norm(in_chans, out_chans, int(name[-1]), stride, size)


@lru_cache(maxsize=100_000)
def cell_costs(
    cell: Genotype,
    in_chans: int,
    prev_chans: int | None,
    chans: int,
    stride: int,
    prev_stride: int,
    projects_prev: bool,
    size: Size,
    prev_size: Size,
) -> Costs:
    """`Cell`, on an input of `size` px and a previous one of `prev_size` px."""
    out = strided(size, stride)
    parts = [act_conv_norm(in_chans, chans, 1, 1, size)]
    if prev_chans is not None:
        if prev_stride == 2:
            parts.append(factorized_reduction(prev_chans, chans, prev_size))
        elif projects_prev or prev_chans != chans:
            parts.append(act_conv_norm(prev_chans, chans, 1, 1, size))
    second = in_chans if prev_chans is None else chans
    node = writes(chans, out)
    for edges in cell.nodes:
        for op, state in edges:
            source = second if state == 1 else chans
            if state < 2:
                parts.append(operation(op, source, chans, stride, size))
            else:
                parts.append(operation(op, chans, chans, 1, out))
        parts += [node] * (len(edges) - 1)
    if 1 in cell.concat and second != chans:
        parts += [conv(second, chans, 1, size), norm(chans, size)]
    if stride == 2:
        parts += [factorized_reduction(chans, chans, size)] * len({0, 1} & set(cell.concat))
    parts.append(writes(chans * len(cell.concat), out))
    return total(*parts)


class _Place(NamedTuple):
    chans: int
    stride: int
    size: Size


def _stem(
    genotype: CellGenotype, stem_chans: int, in_chans: int, imagenet: bool, size: Size
) -> tuple[Costs, list[_Place]]:
    if not imagenet:
        cost = total(conv(in_chans, stem_chans, 9, size), norm(stem_chans, size))
        return cost, [_Place(stem_chans, 1, size)]
    if genotype.stem == "nasnet":
        out = ((size[0] - 3) // 2 + 1, (size[1] - 3) // 2 + 1)
        cost = total(conv(in_chans, stem_chans, 9, out), norm(stem_chans, out))
        return cost, [_Place(stem_chans, 2, out)]
    half = max(1, stem_chans // 2)
    one = halved(size)
    two, three = halved(one), halved(halved(one))
    cost = total(
        conv(in_chans, half, 9, one),
        norm(half, one),
        conv(half, stem_chans, 9, two),
        norm(stem_chans, two),
        writes(stem_chans, two),
        conv(stem_chans, stem_chans, 9, three),
        norm(stem_chans, three),
    )
    return cost, [_Place(stem_chans, 4, two), _Place(stem_chans, 8, three)]


def cell_network_costs(
    genotype: CellGenotype,
    cells: int,
    chans: int,
    stem_chans: int,
    *,
    imagenet_stem: bool = False,
    in_chans: int = 3,
    size: Size = (32, 32),
    num_classes: int = 10,
) -> Costs:
    """`cell_cifar` or `cell_imagenet` for one image of `size` px."""
    darts = genotype.stem == "darts"
    cost, places = _stem(genotype, stem_chans, in_chans, imagenet_stem, size)
    parts = [cost]
    deep = imagenet_stem and not darts
    plan = [(chans // 4, True, 2), (chans // 2, True, 2)] if deep else []
    plan += [(chans, False, 2)] * cells
    for factor in (2, 4):
        plan.append((factor * chans, True, 2))
        for i in range(cells - genotype.counts_reduction):
            plan.append((factor * chans, False, 3 if i == 0 and genotype.skip_reduction else 2))
    for width, reduces, back in plan:
        last = places[-1]
        prev = places[-back] if len(places) >= back else last if darts else None
        parts.append(
            cell_costs(
                genotype.halving if reduces else genotype.normal,
                last.chans,
                prev.chans if prev is not None else None,
                width,
                2 if reduces else 1,
                last.stride // prev.stride if prev is not None else 1,
                darts,
                last.size,
                prev.size if prev is not None else last.size,
            )
        )
        made = width * len((genotype.halving if reduces else genotype.normal).concat)
        places.append(
            _Place(made, last.stride * (2 if reduces else 1), strided(last.size, 2 if reduces else 1))
        )
    end = places[-1]
    act = ZERO if darts else writes(end.chans, end.size)
    return total(*parts, act, classifier(end.chans, num_classes))


def classifier(chans: int, num_classes: int) -> Costs:
    """A mean over the map and a linear layer."""
    weights = chans * num_classes
    return Costs(weights + num_classes, weights, chans + num_classes)


@lru_cache(maxsize=20_000)
def _cell201(ops: tuple[str, ...], chans: int, size: Size) -> Costs:
    parts: list[Costs] = []
    there = [True, False, False, False]
    zeros = writes(chans, size)
    for (target, source), op in zip(EDGES, ops, strict=True):
        if op == "none":
            continue
        if not there[source]:
            parts.append(zeros)
        if op == "avg_pool_3x3":
            parts.append(writes(chans, size))
        elif op != "skip_connect":
            parts.append(act_conv_norm(chans, chans, int(op[-1]), 1, size))
        if there[target]:
            parts.append(writes(chans, size))
        there[target] = True
    if not there[3]:
        parts.append(zeros)
    return total(*parts)


def network_201_costs(
    genotype: Genotype201,
    cells: int,
    chans: int,
    stem_chans: int,
    *,
    in_chans: int = 3,
    size: Size = (32, 32),
    num_classes: int = 10,
) -> Costs:
    """The network of NAS-Bench-201 for one image of `size` px."""
    parts = [conv(in_chans, stem_chans, 9, size), norm(stem_chans, size)]
    width = stem_chans
    for i in range(3):
        if i:
            wider, out = chans * 2**i, halved(size)
            parts += [
                act_conv_norm(width, wider, 3, 1, out)._replace(activations=0),
                writes(width, size),
                Costs(0, 0, 2 * wider * out[0] * out[1]),
                act_conv_norm(wider, wider, 3, 1, out),
                writes(width, out),
                conv(width, wider, 1, out),
                writes(wider, out),
            ]
            width, size = wider, out
        one = _cell201(genotype.ops, width, size)
        parts.append(Costs(cells * one.params, cells * one.macs, cells * one.activations))
    return total(*parts, norm(width, size), classifier(width, num_classes))


@lru_cache(maxsize=20_000)
def _inverted(
    chans: int, out_chans: int, kernel: int, stride: int, expansion: int, squeeze: bool, size: Size
) -> Costs:
    mid, out = chans * expansion, strided(size, stride)
    parts: list[Costs] = []
    if expansion != 1:
        parts += [conv(chans, mid, 1, size), norm(mid, size)]
    parts += [conv(mid, mid, kernel**2, out, groups=mid), norm(mid, out)]
    if squeeze:
        gate = max(1, chans // 4)
        one = (1, 1)
        parts += [
            writes(mid, one),
            conv(mid, gate, 1, one, bias=True),
            conv(gate, mid, 1, one, bias=True),
            writes(mid, one),
            writes(mid, out),
        ]
    parts += [conv(mid, out_chans, 1, out), norm(out_chans, out)]
    if stride == 1 and chans == out_chans:
        parts.append(writes(out_chans, out))
    return total(*parts)


def mobile_costs(
    genotype: MobileGenotype, *, in_chans: int = 3, size: Size = (224, 224), num_classes: int = 1000
) -> Costs:
    """`mobile_net` for one image of `size` px."""
    chans, size = genotype.stem_chans, strided(size, genotype.stem_stride)
    parts = [conv(in_chans, chans, 9, size), norm(chans, size)]
    for stage, first in zip(genotype.stages, genotype.strides, strict=False):
        for j in range(stage.depth):
            stride = first if j == 0 else 1
            parts.append(
                _inverted(
                    chans,
                    stage.chans,
                    stage.kernel_size,
                    stride,
                    stage.expansion,
                    stage.squeeze,
                    size,
                )
            )
            chans, size = stage.chans, strided(size, stride)
    parts += [conv(chans, genotype.last_chans, 1, size), norm(genotype.last_chans, size)]
    return total(*parts, classifier(genotype.last_chans, num_classes))
