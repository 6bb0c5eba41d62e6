"""Receptive fields against the extent that gradients measure on random nets with positive weights."""

import itertools

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convatlas.sizing import ReceptiveField, size


class Branches(nn.Module):
    """Parallel paths whose results are added or concatenated."""

    def __init__(self, join: str, *paths: nn.Module) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        parts = [path(x) for path in self.paths]
        return sum(parts[1:], parts[0]) if self.join == "add" else torch.cat(parts, 1).mean(1, keepdim=True)


class Gate(nn.Module):
    """Squeeze and excite: a gate from the mean over all positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


def layer(kind: str, kernel: int, stride: int, dilation: int) -> nn.Module:
    pad = dilation * (kernel - 1) // 2
    if kind == "pool":
        return nn.AvgPool2d(kernel, stride, (kernel - 1) // 2)
    return nn.Conv2d(1, 1, kernel, stride, pad, dilation, bias=False)


kernels = st.sampled_from([1, 3, 5])
layers = st.builds(layer, st.sampled_from(["conv", "conv", "pool"]), kernels, st.just(1), st.integers(1, 2))
paths = st.lists(layers, max_size=2).map(lambda found: nn.Sequential(*found))


@st.composite
def blocks(draw: st.DrawFn) -> nn.Module:
    stride = draw(st.sampled_from([1, 1, 2]))
    if not draw(st.booleans()):
        return layer(draw(st.sampled_from(["conv", "pool"])), draw(kernels), stride, draw(st.integers(1, 2)))
    ways = [
        nn.Sequential(
            draw(paths), layer(draw(st.sampled_from(["conv", "pool"])), draw(kernels), stride, 1), draw(paths)
        )
        for _ in range(draw(st.integers(2, 3)))
    ]
    return Branches(draw(st.sampled_from(["add", "cat"])), *ways)


nets = st.lists(blocks(), min_size=1, max_size=4).map(lambda found: nn.Sequential(*found))


def measured(net: nn.Module, px: int) -> tuple[list[tuple[int, int]], list[int]]:
    """First and last px with a gradient, per axis, for the middle output; and that output's index."""
    net = net.double().eval()
    for p in net.parameters():
        nn.init.constant_(p, 1.0)
    x = torch.ones(1, 1, px, px, dtype=torch.float64, requires_grad=True)
    out = net(x)
    middle = [n // 2 for n in out.shape[2:]]
    (grad,) = torch.autograd.grad(out[0, 0, middle[0], middle[1]], x)
    spans: list[tuple[int, int]] = []
    for axis in (0, 1):
        hit = grad[0, 0].abs().sum(1 - axis).nonzero().flatten()
        spans.append((int(hit[0]), int(hit[-1])))
    return spans, middle


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=nets)
def test_random_branching_nets(net: nn.Sequential) -> None:
    found = size(net, 160).receptive_field
    assert found is not None
    spans, middle = measured(net, 160)
    for axis, (first, last) in enumerate(spans):
        extent, stride, start = found.size[axis], found.stride[axis], found.start[axis]
        assert extent is not None and stride is not None and start is not None
        low = int(start + stride * middle[axis])
        high = low + extent - 1
        # Where the field goes beyond the image, strided layers may not read the very last px.
        assert first == low if low >= 0 else 0 <= first < stride
        assert last == high if high <= 159 else 159 - stride < last <= 159


# Computed by hand or published (Araujo et al., 2019, for ResNet-50 v1.5, DenseNet-121 and Inception-v3's
# order).
@pytest.mark.parametrize(
    ("name", "path", "op", "extent", "stride"),
    [
        pytest.param("alexnet", "features.12", "max_pool2d", 195, 32, id="alexnet"),
        pytest.param("vgg16", "features.30", "max_pool2d", 212, 32, id="vgg16"),
        pytest.param("resnet50", "layer4.2.relu", "relu", 427, 32, id="resnet50 v1.5"),
        pytest.param("densenet121", "features.norm5", "batch_norm", 2071, 32, id="densenet121"),
        pytest.param("inception_v3", "Mixed_7c", "cat", 1311, 32, id="inception_v3"),
    ],
)
def test_known_nets(name: str, path: str, op: str, extent: int, stride: int) -> None:
    with torch.device("meta"):
        options = {"init_weights": False} if name == "inception_v3" else {}
        net = torchvision.models.get_model(name, **options)
    row = [r for r in size(net, 299).rows if (r.path, r.op) == (path, op)][-1]
    field = row.receptive_field
    assert field is not None
    assert field.size == (extent, extent)
    assert field.stride == (stride, stride)


def test_three_3x3_see_7x7() -> None:
    net = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)))
    assert size(net, 32).receptive_field == ReceptiveField((7, 7), (1, 1), (-3, -3))


def test_axes_differ() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), nn.MaxPool2d((2, 1)), nn.Conv2d(4, 4, (3, 1))
    )
    assert size(net, 32).receptive_field == ReceptiveField((6, 7), (2, 1), (0, -3))


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(nn.AdaptiveAvgPool2d(1), id="global pooling"),
        pytest.param(Gate(), id="squeeze-excite"),
        pytest.param(nn.Sequential(nn.Flatten(), nn.Linear(4 * 256, 10)), id="linear over positions"),
    ],
)
def test_global(tail: nn.Module) -> None:
    field = size(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), tail), 16).receptive_field
    assert field is not None
    assert field.is_global
    assert str(field) == "global x global"


def test_crop_pad_and_shuffle() -> None:
    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(x[:, :, 4::2, 1:], (2, 0))

    field = size(Moves(), (1, 16, 16)).receptive_field
    assert field == ReceptiveField((1, 1), (2, 1), (4, -1))
    packed = size(nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 8, 3)), (1, 16, 16)).receptive_field
    assert packed == ReceptiveField((6, 6), (2, 2), (0, 0))


def test_permuted_and_back() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.mix = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            b, c, h, w = x.shape
            x = self.mix(x.flatten(2).transpose(1, 2))
            return x.transpose(1, 2).reshape(b, c, h, w)

    assert size(Turned(), 20).receptive_field == ReceptiveField((3, 3), (1, 1), (0, 0))


def test_unread_pixels() -> None:
    rows = size(nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), nn.Conv2d(4, 4, 3)), 224).rows
    assert rows[0].unread == (112, 112)
    assert rows[1].unread == ()


def spans_of(net: nn.Module, px: int, axes: int) -> list[tuple[int, int] | None]:
    """First and last px with a gradient along the last axis, for outputs in the middle; None for none."""
    net = net.double().eval()
    for name, p in net.named_parameters():
        nn.init.constant_(p, 0.0 if name.endswith("bias") else 1.0)
    x = torch.rand(1, 1, *(px,) * axes, dtype=torch.float64, requires_grad=True)
    out = net(x)
    middle = tuple(n // 2 for n in out.shape[2:-1])
    spans: list[tuple[int, int] | None] = []
    many = min(STRETCH[axes], out.shape[-1] // 2)
    first = (out.shape[-1] - many) // 2
    for o in range(first, first + many):
        (grad,) = torch.autograd.grad(out[(0, 0, *middle, o)], x, retain_graph=True)
        hit = grad[0, 0].reshape(-1, px).abs().sum(0).nonzero().flatten()
        spans.append((int(hit[0]), int(hit[-1])) if len(hit) else None)
    return spans


STRETCH = {1: 120, 2: 24}
"""Outputs that are looked at, by the number of axes: more than any period of the nets below."""


def check_every_phase(net: nn.Module, px: int, axes: int) -> None:
    found = size(net, (1, *(px,) * axes)).receptive_field
    assert found is not None
    spans = spans_of(net, px, axes)
    known = [span for span in spans if span is not None]
    assert found.size[-1] == max(last - first + 1 for first, last in known)
    moves = {None if a is None or b is None else (b[0] - a[0], b[1] - a[1])
             for a, b in itertools.pairwise(spans)}  # fmt: skip
    step = moves.pop() if len(moves) == 1 else None
    assert found.stride[-1] == (step[0] if step is not None and step[0] == step[1] else None)


def up(kind: str, kernel: int, stride: int, dilation: int) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose1d(1, 1, kernel, stride, kernel // 2, min(1, stride - 1), dilation=dilation)
    if kind == "pad":
        return nn.Sequential(nn.ReflectionPad1d(kernel // 2), nn.Conv1d(1, 1, kernel, stride))
    if kind in ("nearest", "linear", "nearest-exact"):
        return nn.Upsample(scale_factor=stride + 1, mode=kind)
    if kind == "area":
        return nn.AdaptiveAvgPool1d(72)
    if kind == "pool":
        return nn.AvgPool1d(kernel, stride, kernel // 2)
    return nn.Conv1d(1, 1, kernel, stride, kernel // 2, dilation)


moving = st.builds(
    up,
    st.sampled_from(["transposed", "transposed", "nearest", "linear", "nearest-exact", "pad", "pool", "conv",
                     "area"]),
    st.integers(1, 4), st.integers(1, 2), st.just(1),
)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(net=st.lists(moving, min_size=1, max_size=4).map(lambda found: nn.Sequential(*found)))
def test_every_phase_of_random_nets(net: nn.Sequential) -> None:
    check_every_phase(net, 192, 1)


class Do(nn.Module):
    def __init__(self, do: object) -> None:
        super().__init__()
        self.do = do

    def forward(self, x: Tensor) -> Tensor:
        return self.do(x)  # type: ignore[operator]


def resized(**options: object) -> nn.Module:
    return Do(lambda x: nn.functional.interpolate(x, **options))


@pytest.mark.parametrize(
    ("net", "extent", "stride"),
    [
        # Two positions of a 3x3 at stride 2 meet under each odd position of its transpose.
        pytest.param([nn.Conv2d(1, 1, 3, 2, 1), nn.ConvTranspose2d(1, 1, 3, 2, 1)], 5, None, id="back"),
        pytest.param([nn.ConvTranspose2d(1, 1, 3, 2, 1)], 2, None, id="transposed"),
        pytest.param([nn.Conv2d(1, 1, 4, 2, 1), nn.Conv2d(1, 1, 4, 2, 1), nn.ConvTranspose2d(1, 1, 4, 2, 1),
                      nn.ConvTranspose2d(1, 1, 4, 2, 1)], 18, None, id="twice down and up"),
        pytest.param([resized(scale_factor=0.25, mode="area")], 4, 4, id="area"),
        pytest.param([resized(size=72, mode="bilinear", antialias=True)], 3, None, id="antialiased"),
        pytest.param([resized(size=48, mode="bicubic")], 4, 2, id="bicubic"),
        pytest.param([resized(size=191, mode="bilinear", align_corners=True)], 2, None, id="corners"),
        pytest.param([nn.ReflectionPad2d(2)], 1, 1, id="reflect"),
        pytest.param([nn.ReplicationPad2d(2)], 1, 1, id="replicate"),
        pytest.param([nn.CircularPad2d(2), nn.Conv2d(1, 1, 5)], 5, 1, id="circular"),
        pytest.param([nn.Conv2d(1, 4, 3), nn.PixelShuffle(2)], 3, None, id="shuffle"),
        pytest.param([nn.Conv2d(1, 4, 3), nn.PixelShuffle(2), nn.Conv2d(1, 1, 3)], 4, None, id="shuffled"),
        pytest.param([nn.PixelUnshuffle(2), nn.Conv2d(4, 1, 3)], 6, 2, id="unshuffle, conv"),
        pytest.param([Do(lambda x: x.unfold(3, 4, 2).sum(-1))], 4, 2, id="windows"),
        pytest.param([Do(lambda x: x.repeat_interleave(3, 3)), nn.Conv2d(1, 1, 2)], 2, None, id="repeated"),
        pytest.param([nn.Upsample(scale_factor=2), Do(lambda x: x[..., 1::2])], 1, 1, id="up and sliced"),
    ],
)  # fmt: skip
def test_operators_that_move_positions(net: list[nn.Module], extent: int, stride: int | None) -> None:
    whole = nn.Sequential(*net)
    field = size(whole, (1, 96, 96)).receptive_field
    assert field is not None
    assert (field.size[-1], field.stride[-1]) == (extent, stride)
    check_every_phase(whole, 96, 2)


def test_flipped_and_added_is_global() -> None:
    assert str(size(Do(lambda x: x.flip(3)), (1, 8, 8)).receptive_field) == "1 x 1"
    assert str(size(Do(lambda x: x + x.flip(3)), (1, 8, 8)).receptive_field) == "1 x global"
