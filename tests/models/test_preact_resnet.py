"""Pre-activation ResNet against He et al. 2016 and timm."""

import math
import re

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.weights import load_foreign
from counting import meta_model
from peers import randomise_norms

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def count_macs(net: nn.Module, px: int) -> int:
    """MACs from the shapes of a run; torch's own counter takes half a minute for a thousand layers."""
    macs: list[int] = []

    def see(layer: nn.Module, _: object, out: Tensor) -> None:
        macs.append(layer.weight.numel() * math.prod(out.shape[2:]))

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(see)
    with torch.no_grad():
        net(torch.zeros(1, 3, px, px, device=next(net.parameters()).device))
    return sum(macs)


def size_of(net: nn.Module, px: int) -> tuple[int, int]:
    return sum(p.numel() for p in net.parameters()), count_macs(net, px)


def unit_size(
    in_chans: int, width: int, px: int, in_px: int, *, bottleneck: bool, stride_on: str, project: bool
) -> tuple[int, int, int]:
    """Parameters, MACs and output channels of a unit: each convolution has the norm of its input."""
    if bottleneck:
        out = 4 * width
        first_px = px if stride_on == "1x1" else in_px
        layers = [(in_chans, width, 1, first_px), (width, width, 9, px), (width, out, 1, px)]
    else:
        out = width
        layers = [(in_chans, width, 9, px), (width, width, 9, px)]
    params = sum(2 * c + c * n * k for c, n, k, _ in layers)
    macs = sum(c * n * k * size**2 for c, n, k, size in layers)
    if project and in_chans != out:
        params, macs = params + in_chans * out, macs + in_chans * out * px**2
    return params, macs, out


def derived_size(
    depths: tuple[int, ...], widths: tuple[int, ...], px: int, num_classes: int, **unit: object
) -> tuple[int, int]:
    """Parameters and MACs of the stages, the last norm and the classifier."""
    params, macs, chans = 0, 0, widths[0]
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for j in range(depth):
            in_px = px
            px = px // 2 if i > 0 and j == 0 else px
            p, m, chans = unit_size(chans, width, px, in_px, **unit)
            params, macs = params + p, macs + m
    return params + 2 * chans + (chans + 1) * num_classes, macs + chans * num_classes


IMAGENET = {
    18: (11_687_848, 1_814_073_344),
    34: (21_796_008, 3_663_761_408),
    50: (25_549_480, 4_089_184_256),
    101: (44_541_608, 7_801_405_440),
    152: (60_185_256, 11_513_626_624),  # pytorchcv's preresnet152
    200: (64_666_280, 15_007_481_856),
}


@pytest.mark.parametrize("depth", IMAGENET)
def test_size_on_imagenet(depth: int) -> None:
    params, macs = derived_size(
        DEPTHS[depth],
        (64, 128, 256, 512),
        56,
        1000,
        bottleneck=depth >= 50,
        stride_on="3x3",
        project=True,
    )
    stem = 3 * 64 * 49
    derived = (params + stem + 2 * 64, macs + stem * 112**2)
    assert size_of(meta_model(f"preact_resnet{depth}"), 224) == derived == IMAGENET[depth]


def test_size_with_the_stride_on_the_first_convolution() -> None:
    assert size_of(meta_model("preact_resnet152", stride_on="1x1"), 224)[1] == 11_282_415_616


@pytest.mark.parametrize("first_act", ["stem", "unit"])
def test_size_with_one_first_activation(first_act: str) -> None:
    net = meta_model("preact_resnet152", first_act=first_act)
    assert sum(p.numel() for p in net.parameters()) == 60_185_128  # timm's resnetv2_152


CIFAR = {
    "preact_resnet110_cifar": (18, False, (1_727_962, 252_887_680)),
    "preact_resnet164_cifar": (18, True, (1_703_258, 244_500_992)),
    "preact_resnet1001_cifar": (111, True, (10_327_706, 1_487_849_984)),
}


@pytest.mark.parametrize("name", CIFAR)
def test_size_on_cifar(name: str) -> None:
    blocks, bottleneck, expected = CIFAR[name]
    params, macs = derived_size(
        (blocks,) * 3, (16, 32, 64), 32, 10, bottleneck=bottleneck, stride_on="1x1", project=bottleneck
    )
    # Not on meta, which is slower for a thousand small layers.
    assert size_of(create_model(name), 32) == (params + 432, macs + 432 * 32**2) == expected


def test_size_of_known_variants_on_cifar() -> None:
    assert size_of(create_model("preact_resnet110_cifar", shortcut="B"), 32)[0] == 1_730_522  # pytorchcv
    assert size_of(create_model("preact_resnet164_cifar", num_classes=100), 32)[0] == 1_726_388
    assert size_of(create_model("preact_resnet164_cifar", stride_on="3x3"), 32)[1] == 247_646_720  # pytorchcv


@pytest.mark.parametrize("name", [*(f"preact_resnet{depth}" for depth in DEPTHS), *CIFAR])
def test_name_counts_the_layers_outside_shortcuts(name: str) -> None:
    layers = [
        path
        for path, layer in meta_model(name).named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and "shortcut" not in path
    ]
    assert len(layers) == int(re.findall(r"\d+", name)[0])


def test_projections_have_no_norm_and_nothing_follows_the_addition() -> None:
    net = meta_model("preact_resnet50")
    shortcuts = {key for key in net.state_dict() if ".shortcut." in key}
    assert shortcuts == {f"stages.{i}.0.shortcut.conv.weight" for i in range(4)}
    net = create_model("preact_resnet18").eval()
    maps = net.forward_stages(torch.randn(1, 3, 64, 64))
    assert maps[1].min() < 0 < maps[1].max()
    assert maps[4].min() == 0  # the last activation


class Reference:
    """The network by functions on bare tensors, as the authors' Lua code orders them."""

    def __init__(self, net: nn.Module, stride_on: str) -> None:
        self.state = net.state_dict()
        self.stride_on = stride_on

    def conv(self, x: Tensor, path: str, stride: int = 1) -> Tensor:
        weight = self.state[f"{path}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def act(self, x: Tensor, path: str) -> Tensor:
        mean, var, scale, bias = (
            self.state[f"{path}.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * scale + bias).clamp(min=0)

    def unit(self, x: Tensor, path: str, stride: int, *, first: bool) -> Tensor:
        """`first` units of a stage share the activation between their paths."""
        pre = self.act(x, f"{path}.preact1.norm") if f"{path}.preact1.norm.weight" in self.state else x
        shortcut = pre if first else x
        if f"{path}.shortcut.conv.weight" in self.state:
            shortcut = self.conv(shortcut, f"{path}.shortcut.conv", stride)
        elif stride == 2:
            shortcut = shortcut[:, :, ::2, ::2]
            shortcut = torch.cat([shortcut, torch.zeros_like(shortcut)], dim=1)
        bottleneck = f"{path}.conv3.weight" in self.state
        strides = (1, stride) if bottleneck and self.stride_on == "3x3" else (stride, 1)
        y = self.conv(pre, f"{path}.conv1", strides[0])
        y = self.conv(self.act(y, f"{path}.preact2.norm"), f"{path}.conv2", strides[1])
        if bottleneck:
            y = self.conv(self.act(y, f"{path}.preact3.norm"), f"{path}.conv3")
        return y + shortcut

    def run(self, x: Tensor, depths: tuple[int, ...], *, imagenet: bool) -> list[Tensor]:
        if imagenet:
            x = F.conv2d(x, self.state["stem.conv.weight"], stride=2, padding=3)
            if "stem.norm.weight" in self.state:
                x = self.act(x, "stem.norm")
        else:
            x = self.conv(x, "stem.conv")
        maps = [x]
        if imagenet:
            x = F.max_pool2d(x, 3, 2, 1)
        for i, depth in enumerate(depths):
            for j in range(depth):
                x = self.unit(x, f"stages.{i}.{j}", 2 if i > 0 and j == 0 else 1, first=j == 0)
            maps.append(x)
        maps[-1] = self.act(x, "norm.norm")
        pooled = maps[-1].flatten(2).mean(dim=2)
        return [*maps, pooled @ self.state["head.fc.weight"].T + self.state["head.fc.bias"]]


@pytest.mark.parametrize(
    ("name", "options", "depths"),
    [
        pytest.param("preact_resnet110_cifar", {"blocks_per_stage": 2}, (2, 2, 2), id="110-cifar"),
        pytest.param("preact_resnet164_cifar", {"blocks_per_stage": 2}, (2, 2, 2), id="164-cifar"),
        pytest.param("preact_resnet18", {}, (2, 2, 2, 2), id="18"),
        pytest.param("preact_resnet18", {"first_act": "stem"}, (2, 2, 2, 2), id="18-stem"),
        pytest.param("preact_resnet50", {"depths": (1, 2, 1, 1)}, (1, 2, 1, 1), id="50"),
        pytest.param(
            "preact_resnet50", {"depths": (1, 1, 1, 1), "stride_on": "1x1"}, (1, 1, 1, 1), id="50-1x1"
        ),
    ],
)
def test_every_map_equals_a_computation_apart(
    name: str, options: dict[str, object], depths: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    net = create_model(name, **options).eval()
    randomise_norms(net)
    imagenet = not name.endswith("_cifar")
    x = torch.randn(2, 3, *((96, 96) if imagenet else (32, 32)))
    with torch.no_grad():
        expected = Reference(net, getattr(net.config, "stride_on", "3x3")).run(x, depths, imagenet=imagenet)
        for ours, theirs in zip([*net.forward_stages(x), net(x)], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_weights_from_timm_give_equal_maps(depth: int) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(f"resnetv2_{depth}").eval()
    randomise_norms(theirs)
    ours = create_model(f"preact_resnet{depth}", first_act="unit").eval()
    load_foreign(ours, theirs.state_dict(), source="timm")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = ours.forward_stages(x)
        final, expected = theirs.forward_intermediates(x, norm=True)
        pairs = [*zip(maps[1:], expected[1:], strict=True), (maps[-1], final), (ours(x), theirs(x))]
    for mine, other in pairs:
        assert other.abs().max() > 1e-2
        assert ((mine - other).abs().max() / other.abs().max()).item() < 1e-4


def test_weights_follow_he_over_the_outputs() -> None:
    torch.manual_seed(0)
    net = create_model("preact_resnet18")
    for path, fan_out in {"stages.1.0.conv1": 128 * 9, "stages.3.0.shortcut.conv": 512}.items():
        weight = net.get_submodule(path).weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
    assert net.head.fc.bias.count_nonzero() == 0
    assert (net.stages[0][0].preact1.norm.weight == 1).all()


@pytest.mark.parametrize("name", ["preact_resnet110_cifar", "preact_resnet164_cifar"])
def test_zero_init_makes_every_unit_its_shortcut(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(name, blocks_per_stage=2, shortcut="A", zero_init_last=True).eval()
    maps = net.forward_stages(torch.randn(1, 3, 32, 32))
    activated = torch.relu(maps[0] / math.sqrt(1 + 1e-5))  # the first unit's activation is shared
    torch.testing.assert_close(maps[1][:, :16], activated)
    assert maps[1][:, 16:].count_nonzero() == 0


def test_drop_path_rises_with_depth_and_pooling_can_be_chosen() -> None:
    net = meta_model("preact_resnet18", drop_path_rate=0.7, global_pool="max")
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(8)])
    assert net.head.global_pool == "max"


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        pytest.param("preact_resnet50", {"first_act": "pool"}, "`first_act`='pool'; allowed are", id="act"),
        pytest.param("preact_resnet50", {"stride_on": "7x7"}, "`stride_on`='7x7'; allowed are", id="stride"),
        pytest.param("preact_resnet18", {"stride_on": "1x1"}, "needs `bottleneck`=True", id="no-1x1"),
        pytest.param(
            "preact_resnet50", {"depths": (1, 2)}, r"`depths`=\(1, 2\); expected a tuple", id="depths"
        ),
        pytest.param("preact_resnet50", {"shortcut": "D"}, "`shortcut`='D'; allowed are", id="shortcut"),
        pytest.param(
            "preact_resnet164_cifar", {"blocks_per_stage": 0}, "`blocks_per_stage`=0; expected", id="blocks"
        ),
    ],
)
def test_bad_options_are_refused(name: str, option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model(name, **option)
