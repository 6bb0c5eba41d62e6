"""Totals and columns against numbers computed by hand or published."""

import pytest
import torch
import torchvision
from torch import nn

from convatlas.sizing import Sheet, size


def vgg16(**kwargs: object) -> Sheet:
    with torch.device("meta"):
        return size(torchvision.models.vgg16(), 224, **kwargs)


def test_vgg16() -> None:
    sheet = vgg16()
    assert sheet.params == 138_357_544
    assert sheet.macs == 15_470_264_320
    convs_and_pools = [
        row for row in sheet.rows if row.kind in ("conv", "pool", "linear") and "ada" not in row.op
    ]
    # With the input, as the course counts them.
    assert 150_528 + sum(row.output_elements for row in convs_and_pools) == 15_237_608


@pytest.mark.parametrize(
    ("layer", "shape", "out", "formula", "params"),
    [
        pytest.param(nn.Conv2d(3, 96, 11, 4), (3, 227, 227), (96, 55, 55), "(227 - 11 + 2*0)/4 + 1 = 55",
        34_944,
                     id="alexnet conv1"),
        pytest.param(nn.MaxPool2d(3, 2), (96, 55, 55), (96, 27, 27), "(55 - 3 + 2*0)/2 + 1 = 27", 0,
        id="pool1"),
        pytest.param(nn.Conv2d(3, 64, 7, 2, 3), (3, 224, 224), (64, 112, 112),
                     "floor((224 - 7 + 2*3)/2 + 1) = 112", 9_472, id="floor"),
        pytest.param(nn.MaxPool2d(3, 2, ceil_mode=True), (8, 112, 112), (8, 56, 56),
                     "ceil((112 - 3 + 2*0)/2 + 1) = 56", 0, id="ceil"),
        pytest.param(nn.Conv2d(8, 8, 3, padding=2, dilation=2), (8, 9, 9), (8, 9, 9),
                     "(9 - (2*(3 - 1) + 1) + 2*2)/1 + 1 = 9", 584, id="dilated"),
        pytest.param(nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), (8, 7, 7), (4, 14, 14),
                     "(7 - 1)*2 - 2*1 + 3 + 1 = 14", 292, id="transposed"),
        pytest.param(nn.Linear(10, 5), (10,), (5,), "10 * 5 + 5 = 55 parameters", 55, id="linear"),
    ],
)  # fmt: skip
def test_formulas(
    layer: nn.Module, shape: tuple[int, ...], out: tuple[int, ...], formula: str, params: int
) -> None:
    (row,) = size(layer, shape).rows
    assert row.output_shape == (1, *out)
    assert row.formulas[0] == formula
    assert row.params == params
    assert row.macs == 0 or row.formulas[-1].endswith(f"= {row.macs:,} MACs")


class Inception(nn.Module):
    """The naive module of the course: 128 1x1, 192 3x3, 96 5x5 and a pooling, on 28x28x256."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            [nn.Conv2d(256, 128, 1), nn.Conv2d(256, 192, 3, padding=1), nn.Conv2d(256, 96, 5, padding=2)]
        )
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([*(path(x) for path in self.paths), self.pool(x)], 1)


def test_naive_inception() -> None:
    sheet = size(Inception(), (256, 28, 28))
    assert sheet.output == (1, 672, 28, 28)
    assert sheet.macs == 854_196_224


def test_depthwise_separable() -> None:
    plain = size(nn.Conv2d(15, 16, 3, bias=False), (15, 5, 5))
    separable = size(
        nn.Sequential(nn.Conv2d(15, 15, 3, groups=15, bias=False), nn.Conv2d(15, 16, 1, bias=False)),
        (15, 5, 5),
    )
    assert plain.params == 15 * 16 * 9
    assert separable.params == 15 * 9 + 15 * 16
    assert separable.macs == 9 * separable.params


def test_resnet50_flops_by_kind() -> None:
    with torch.device("meta"):
        sheet = size(torchvision.models.resnet50(), 224)
    kinds = sheet.flops_by_kind
    assert sheet.macs == 4_089_184_256
    assert kinds["conv"] + kinds["linear"] == 2 * sheet.macs
    assert kinds["bias"] == 1000
    # 16 residual additions of the stages' outputs.
    assert kinds["elementwise"] == 3 * 256 * 56**2 + 4 * 512 * 28**2 + 6 * 1024 * 14**2 + 3 * 2048 * 7**2
    assert sum(kinds.values()) == sheet.flops
    assert len(sheet.rows) == 175
    assert not sheet.not_counted


def test_stages_add_up() -> None:
    with torch.device("meta"):
        sheet = size(torchvision.models.resnet18(), 224)
    stages = sheet.stages()
    assert [s.path for s in stages][:3] == ["conv1", "bn1", "relu"]
    assert sum(s.macs for s in stages) == sheet.macs
    assert sum(s.params for s in stages) == sheet.params
    assert sum(s.flops for s in stages) == sheet.flops
    by_path = {s.path: s for s in stages}
    assert by_path["layer4"].output_shape == (1, 512, 7, 7)
    assert "layer4.1" in {s.path for s in sheet.stages(depth=2)}
    with pytest.raises(ValueError, match="`depth`=0"):
        sheet.stages(0)


def test_batch_and_dtype() -> None:
    one, many = vgg16(), vgg16(batch_size=4, dtype=torch.bfloat16)
    assert many.macs == 4 * one.macs
    assert many.params == one.params
    assert many.activation_bytes == 2 * one.activation_bytes
    conv = many.rows[0]
    assert conv.bytes_read == 2 * (4 * 3 * 224 * 224 + 3 * 64 * 9 + 64)
    assert conv.bytes_written == 2 * 4 * 64 * 224 * 224
    assert conv.dtype == torch.bfloat16


def test_views_move_no_bytes() -> None:
    row = size(nn.Flatten(), (8, 4, 4)).rows[0]
    assert (row.kind, row.bytes_read, row.bytes_written) == ("view", 0, 0)


def test_buffers_are_apart() -> None:
    sheet = size(nn.BatchNorm2d(8), (8, 4, 4))
    assert (sheet.params, sheet.buffers) == (16, 17)
    assert sheet.rows[0].constants == 32


@pytest.mark.parametrize(
    ("name", "smallest"),
    [pytest.param("vgg11", 32, id="vgg11"), pytest.param("alexnet", 63, id="alexnet"),
     pytest.param("resnet18", 1, id="resnet18")],
)  # fmt: skip
def test_min_input_size(name: str, smallest: int) -> None:
    net = torchvision.models.get_model(name).eval()
    assert size(net, 224).min_input_size == smallest
    net(torch.zeros(1, 3, smallest, smallest))
    if smallest > 1:
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 3, smallest - 1, smallest - 1))


def test_graph_edges() -> None:
    with torch.device("meta"):
        sheet = size(torchvision.models.resnet18(), 64)
    adds = [row for row in sheet.rows if row.op == "add"]
    assert len(adds) == 8
    assert all(len(row.inputs) == 2 for row in adds)
    pool = next(row for row in sheet.rows if row.op == "max_pool2d")
    assert pool.index in adds[0].inputs


def test_huge_sizes_stay_exact() -> None:
    (row,) = size(nn.Conv2d(3, 64, 3, padding=1, bias=False), (3, 10**6, 10**6)).rows
    assert row.macs == 27 * 64 * 10**12
