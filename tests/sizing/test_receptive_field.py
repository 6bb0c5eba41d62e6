"""Receptive fields against the extent that gradients measure on random nets with positive weights."""

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


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
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
