import re

import pytest
import torch
from torch import nn

from convatlas.sizing import Sheet, size
from convatlas.sizing.expression import ExpressionError, build, is_expression

VGG16 = ", pool 2x2, ".join(
    ", ".join([f"conv {chans} 3x3 same, relu"] * depth)
    for chans, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
)


def sized(expression: str, *shape: int) -> Sheet:
    return size(build(expression, shape), shape)


def test_first_layers_of_alexnet() -> None:
    sheet = sized("conv 96 11x11 /4, relu, pool 3x3 /2", 3, 227, 227)
    conv, _, pool = sheet.rows
    assert conv.output_shape == (1, 96, 55, 55)
    assert sheet.params == 34_944
    assert pool.output_shape == (1, 96, 27, 27)
    assert [row.path for row in sheet.rows] == ["conv1", "relu1", "pool1"]


def test_without_biases() -> None:
    assert sized("conv 96 11x11 /4 nobias", 3, 227, 227).params == 34_848


def test_naive_inception() -> None:
    sheet = sized(
        "[conv 128 1x1 | conv 192 3x3 same | conv 96 5x5 same | pool 3x3 same]",
        256,
        28,
        28,
    )
    assert sheet.output == (1, 672, 28, 28)
    assert sheet.macs == 854_196_224


def test_inception_with_bottlenecks() -> None:
    sheet = sized(
        "[conv 128 1x1 | conv 64 1x1, conv 192 3x3 same | conv 64 1x1, conv 96 5x5 same "
        "| pool 3x3 same, conv 64 1x1]",
        256,
        28,
        28,
    )
    assert sheet.output == (1, 480, 28, 28)
    assert sheet.macs == 271_351_808
    # The slides print 358M: the 3x3 branch counted twice.
    three = next(row for row in sheet.rows if row.output_shape[1] == 192)
    assert sheet.macs + three.macs == 358_055_936


@pytest.mark.parametrize(
    ("expression", "macs"),
    [
        pytest.param("conv 32 5x5 same", 120_422_400, id="direct"),
        pytest.param("conv 16 1x1, conv 32 5x5 same", 12_443_648, id="bottleneck"),
    ],
)
def test_bottleneck_before_5x5(expression: str, macs: int) -> None:
    sheet = sized(expression, 192, 28, 28)
    assert sheet.output == (1, 32, 28, 28)
    assert sheet.macs == macs


@pytest.mark.parametrize(
    ("expression", "macs"),
    [
        pytest.param("conv 5 3x3", [2160], id="normal"),
        pytest.param("dw 3x3, conv 5 1x1", [432, 240], id="separable"),
    ],
)
def test_depthwise_separable(expression: str, macs: list[int]) -> None:
    sheet = sized(expression, 3, 6, 6)
    assert [row.macs for row in sheet.rows] == macs
    assert sheet.output == (1, 5, 4, 4)


def test_vgg16() -> None:
    sheet = sized(f"{VGG16}, pool 2x2, fc 4096, relu, fc 4096, relu, fc 1000", 3, 224, 224)
    assert sheet.params == 138_357_544
    assert sheet.output == (1, 1000)


def test_three_3x3_see_7x7() -> None:
    field = sized("conv 8 3x3, conv 8 3x3, conv 8 3x3", 3, 32, 32).receptive_field
    assert field is not None
    assert field.size == (7, 7)


@pytest.mark.parametrize(
    ("expression", "out"),
    [
        pytest.param("conv 4 3x3", (4, 30, 28), id="valid"),
        pytest.param("conv 4 3 pad 1", (4, 32, 30), id="one-number"),
        pytest.param("conv 4 3x5 pad 1x2", (4, 32, 30), id="by-axis"),
        pytest.param("conv 4 3x3 /2x1 same", (4, 16, 30), id="stride-by-axis"),
        pytest.param("conv 4 3x3 same /2", (4, 16, 15), id="same-strided"),
        pytest.param("conv 4 3x3 dilate 2 same", (4, 32, 30), id="same-dilated"),
        pytest.param("conv 8 3x3 groups 4", (8, 30, 28), id="groups"),
        pytest.param("dw 3x3 /2 pad 1 nobias", (4, 16, 15), id="depthwise"),
        pytest.param("pool 2x2", (4, 16, 15), id="pool-stride-is-window"),
        pytest.param("pool avg 3x3 /2", (4, 15, 14), id="average"),
        pytest.param("pool 3x3 /2 ceil", (4, 16, 15), id="ceil"),
        pytest.param("pool 3x3 same avg", (4, 32, 30), id="pool-same"),
        pytest.param("gap", (4, 1, 1), id="gap"),
        pytest.param("flatten", (3840,), id="flatten"),
        pytest.param("relu; relu -> fc 7 nobias", (7,), id="separators"),
        pytest.param("relu->fc 7,", (7,), id="tight-and-trailing"),
        pytest.param("[relu | [relu | relu], conv 2 1x1]", (6, 32, 30), id="nested"),
    ],
)
def test_options_match_a_real_forward(expression: str, out: tuple[int, ...]) -> None:
    net = build(expression, (4, 32, 30))
    assert tuple(net(torch.zeros(2, 4, 32, 30)).shape) == (2, *out)
    assert size(net, (4, 32, 30)).output == (1, *out)


def test_average_and_maximum_differ() -> None:
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert build("pool avg 1x2", (1, 1, 2))(x).item() == 2.0
    assert build("pool 1x2", (1, 1, 2))(x).item() == 4.0


def test_follows_the_default_device() -> None:
    with torch.device("meta"):
        assert build("conv 4 3x3", (3, 8, 8))[0].weight.is_meta
    weight = build("conv 4 3x3", (3, 8, 8))[0].weight
    assert weight.device.type == "cpu"
    assert 0 < weight.abs().max() < 1


def test_name_is_the_expression() -> None:
    assert build("fc  3", (3, 8, 8)).name == "fc 3"
    assert isinstance(build("fc 3", (3, 8, 8))[0], nn.Flatten)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        pytest.param("", "at its end: expected a layer: conv, dw", id="empty"),
        pytest.param("conf 3", "'conf', character 1: expected a layer.*nearest: conv", id="layer"),
        pytest.param(
            "relu, conv", "at its end: expected the number of filters, such as `conv 64`", id="filters"
        ),
        pytest.param("conv 96", "at its end: expected the window, such as 3x3", id="window"),
        pytest.param("conv 9 3x", "'3x', character 8: expected the window", id="half-window"),
        pytest.param("conv 0 3x3", "'0', character 6: .* a whole number from 1", id="zero"),
        pytest.param("conv 99999999 3x3", "'99999999', character 6: .* to 1,000,000", id="huge"),
        pytest.param("conv 9 3x3 pud 1", "'pud', character 12: conv takes /S, pad P, same", id="option"),
        pytest.param("conv 9 3x3 /0", "'/0', character 12: expected a stride: .* at least 1", id="stride"),
        pytest.param("conv 9 3x3 pad", "at its end: expected the padding", id="padding"),
        pytest.param(
            "conv 9 2x2 same", "'same', character 12: a window of 2x2 has no middle", id="even-same"
        ),
        pytest.param("relu max", "'max', character 6: relu takes no options", id="no-options"),
        pytest.param("conv 9 3x3 relu", "'relu', character 12: .* separated by `,`", id="no-comma"),
        pytest.param(
            "relu [relu | relu]", r"'\[', character 6: layers are separated by `,`", id="no-comma-bracket"
        ),
        pytest.param("relu | relu", r"'\|', character 6: `\|` parts branches inside", id="bar-outside"),
        pytest.param("relu]", r"'\]', character 5: no bracket is open", id="not-open"),
        pytest.param("[relu | relu", "at its end: the bracket at character 1 is not closed", id="not-closed"),
        pytest.param("[" * 30 + "relu", "nested more than 20 deep", id="deep"),
        pytest.param("[conv 3 3x3 | relu]", r"'\[', character 1: branches .* 3x30x30, 3x32x32", id="join"),
        pytest.param(
            "conv 4 33x33",
            "'conv', character 1: .* 33 does not fit 32 .*3x32x32 reaches it; .* that works is 3x33x33",
            id="small",
        ),
        pytest.param(
            "fc 4, conv 4 1x1", "'conv', character 7: conv needs C x H x W, but 4 reaches it", id="flat"
        ),
        pytest.param(
            "conv 4 1x1 groups 2", "3 channels in and 4 out do not split into 2 groups", id="groups"
        ),
        pytest.param(
            "pool 3x3 pad 2", "'pool', character 1: .*padding 2 is more than half", id="pool-padding"
        ),
        pytest.param("conv 1000000 999999x999999 pad 999999", "its weights would be too many", id="overflow"),
    ],
)
def test_errors_point_at_the_word(expression: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        build(expression, (3, 32, 32))
    assert "\n" not in str(caught.value)


def test_input_must_be_an_image() -> None:
    with pytest.raises(ExpressionError, match="input 3,224 of an expression; expected C,H,W"):
        build("relu", (3, 224))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        pytest.param("conv 3 3x3", True, id="layers"),
        pytest.param("gap", True, id="one-word"),
        pytest.param("[relu|relu]", True, id="bracket"),
        pytest.param("conf 3", True, id="misspelt"),
        pytest.param("resnet50", False, id="network"),
        pytest.param("", False, id="empty"),
    ],
)
def test_is_expression(text: str, meant: bool) -> None:
    assert is_expression(text) is meant


def test_a_residual_sum_has_the_shape_of_its_branches():
    net = build("[conv 8 3x3 same, bn, relu, conv 8 3x3 same, bn + identity], relu", (8, 12, 12))
    # Two convolutions with biases, 2 (9 * 8 * 8 + 8), and two norms of 2 * 8.
    assert sum(p.numel() for p in net.parameters()) == 2 * (9 * 8 * 8 + 8) + 2 * 16
    x = torch.randn(2, 8, 12, 12)
    before = x.clone()
    assert net.eval()(x).shape == (2, 8, 12, 12)
    assert torch.equal(x, before)


def test_a_first_relu_of_a_branch_leaves_the_other_branches_input():
    net = build("[relu + identity]", (4, 5, 5)).eval()
    x = torch.tensor([-1.0, 2.0, -3.0, 4.0]).reshape(1, 4, 1, 1).expand(1, 4, 5, 5).clone()
    assert net(x)[0, :, 0, 0].tolist() == [-1.0, 4.0, -3.0, 8.0]


@pytest.mark.parametrize(
    "one, other",
    [
        ("CONV 8 3X3 /2, ReLU", "conv 8 3x3 stride 2, relu"),
        ("conv 8 3x3 valid", "conv 8 3x3"),
        ("avgpool 2x2", "pool avg 2x2"),
        ("maxpool 3x3 /2", "pool max 3x3 /2"),
        ("conv 8 3×3", "conv 8 3x3"),
    ],
)
def test_other_spellings_mean_the_same(one, other):
    assert str(build(one, (3, 16, 16))) == str(build(other, (3, 16, 16)))


@pytest.mark.parametrize(
    "expression, message",
    [
        (
            "[conv 8 3x3 same + conv 9 3x3 same]",
            "branches cannot be added, their outputs differ: 8x16x16, 9x16x16",
        ),
        ("[relu | tanh + identity]", "a bracket has `|` or `+` between its branches, not both"),
        ("relu + tanh", "`+` parts branches inside [ ]"),
        ("lrn 5", "lrn takes no options"),
    ],
)
def test_sums_say_what_is_wrong(expression, message):
    with pytest.raises(ExpressionError, match=re.escape(message)):
        build(expression, (3, 16, 16))
