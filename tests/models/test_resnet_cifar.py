"""ResNet and plain networks on CIFAR against He et al. 2015, Section 4.2."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from convatlas.models.registry import UnknownNameError
from counting import meta_model
from peers import randomise_norms

BLOCKS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18, 1202: 200}
PARAMS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}
MACS = {20: 40_551_040, 32: 68_862_592, 44: 97_174_144, 56: 125_485_696, 110: 252_887_680}
PARAMS_B = {20: 272_474, 32: 466_906, 44: 661_338, 56: 855_770, 110: 1_730_714}
NAMES = [*(f"resnet{depth}_cifar" for depth in BLOCKS), *(f"plain{depth}_cifar" for depth in MACS)]


def depth_of(name: str) -> int:
    return int(name.removeprefix("resnet").removeprefix("plain").removesuffix("_cifar"))


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def count_macs(net: nn.Module, px: int = 32) -> int:
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


def derived_size(blocks: int, shortcut: str = "A", num_classes: int = 10) -> tuple[int, int]:
    """Parameters and MACs, from the table of Section 4.2."""
    params, macs, in_chans = 27 * 16 + 2 * 16, 27 * 16 * 32 * 32, 16
    for chans, px in ((16, 32), (32, 16), (64, 8)):
        for _ in range(blocks):
            weights = 9 * in_chans * chans + 9 * chans * chans
            norms = 2
            if shortcut == "C" or (shortcut == "B" and in_chans != chans):
                weights, norms = weights + in_chans * chans, 3
            params += weights + norms * 2 * chans
            macs += weights * px * px
            in_chans = chans
    return params + 64 * num_classes + num_classes, macs + 64 * num_classes


@pytest.mark.parametrize("name", NAMES)
def test_size(name: str) -> None:
    depth = depth_of(name)
    net = create_model(name)  # not on meta, which is slower for a thousand small layers
    assert count(net) == PARAMS[depth] == derived_size(BLOCKS[depth])[0]
    assert count_macs(net) == derived_size(BLOCKS[depth])[1] == MACS.get(depth, 2_829_238_912)


@pytest.mark.parametrize("depth", PARAMS_B)
def test_size_with_projections(depth: int) -> None:
    net = create_model(f"resnet{depth}_cifar", shortcut="B")
    assert (count(net), count_macs(net)) == derived_size(BLOCKS[depth], "B")
    assert count(net) == PARAMS_B[depth]  # pytorchcv's resnet*_cifar10


def test_size_with_projections_everywhere() -> None:
    net = meta_model("resnet20_cifar", shortcut="C")
    assert (count(net), count_macs(net)) == derived_size(3, "C")


def test_size_for_cifar100() -> None:
    assert count(meta_model("resnet20_cifar", num_classes=100)) == 275_572
    assert count(meta_model("resnet110_cifar", num_classes=100, shortcut="B")) == 1_736_564


@pytest.mark.parametrize("name", NAMES)
def test_name_counts_the_layers(name: str) -> None:
    layers = [layer for layer in meta_model(name).modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth_of(name)


def test_maps_of_the_paper() -> None:
    maps = meta_model("resnet56_cifar").forward_stages(torch.empty(2, 3, 32, 32, device="meta"))
    expected = [(2, 16, 32, 32), (2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]
    assert [tuple(m.shape) for m in maps] == expected


def reference(state: dict[str, Tensor], x: Tensor, blocks: int, shortcut: str | None) -> list[Tensor]:
    """The stem's and the stages' maps and the logits, by functions on bare tensors."""

    def conv_norm(x: Tensor, path: str, stride: int = 1) -> Tensor:
        weight = state[f"{path}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var, scale, bias = (
            state[f"{path}.norm.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + bias

    x = conv_norm(x, "stem").clamp(min=0)
    maps = [x]
    for i in range(3):
        for j in range(blocks):
            path, stride = f"stages.{i}.{j}", 2 if i > 0 and j == 0 else 1
            y = conv_norm(conv_norm(x, f"{path}.conv1", stride).clamp(min=0), f"{path}.conv2")
            if shortcut is not None:
                if shortcut == "C" or (shortcut == "B" and stride == 2):
                    x = conv_norm(x, f"{path}.shortcut", stride)
                elif stride == 2:
                    x = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], dim=1)
                y = y + x
            x = y.clamp(min=0)
        maps.append(x)
    pooled = x.flatten(2).sum(dim=2) / (x.shape[2] * x.shape[3])
    return [*maps, pooled @ state["head.fc.weight"].T + state["head.fc.bias"]]


@pytest.mark.parametrize("shortcut", ["A", "B", "C", None], ids=["A", "B", "C", "plain"])
def test_every_map_equals_a_computation_apart(shortcut: str | None) -> None:
    torch.manual_seed(0)
    if shortcut is None:
        net = create_model("plain20_cifar").eval()
    else:
        net = create_model("resnet20_cifar", shortcut=shortcut).eval()
    randomise_norms(net)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference(net.state_dict(), x, 3, shortcut)
        for ours, theirs in zip([*net.forward_stages(x), net(x)], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_plain_network_has_no_option_of_a_shortcut() -> None:
    with pytest.raises(UnknownNameError, match="plain20_cifar has no option `shortcut`"):
        meta_model("plain20_cifar", shortcut="B")
    with pytest.raises(UnknownNameError, match="plain56_cifar has no option `drop_path_rate`"):
        meta_model("plain56_cifar", drop_path_rate=0.1)


def test_weights_follow_he_and_norms_start_as_identity() -> None:
    torch.manual_seed(0)
    net = create_model("resnet20_cifar")
    for path, fan_in in {"stages.0.0.conv1": 16 * 9, "stages.2.0.conv1": 32 * 9}.items():
        weight = net.get_submodule(path).conv.weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert net.head.fc.bias.count_nonzero() == 0
    assert net.head.fc.weight.abs().max().item() == pytest.approx(1 / 8, rel=0.02)
    assert (net.stages[1][0].conv2.norm.weight == 1).all()


def test_zero_init_makes_every_block_its_shortcut() -> None:
    net = create_model("resnet20_cifar", zero_init_last=True).eval()
    maps = net.forward_stages(torch.randn(1, 3, 32, 32))
    assert torch.equal(maps[1], maps[0])
    assert torch.equal(maps[2][:, :16], maps[0][:, :, ::2, ::2])
    assert maps[2][:, 16:].count_nonzero() == 0


def test_drop_path_rises_with_depth_and_pooling_can_be_chosen() -> None:
    net = meta_model("resnet20_cifar", drop_path_rate=0.4, global_pool="max")
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.4 * i / 8 for i in range(9)])
    assert net.head.global_pool == "max"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param({"shortcut": "D"}, "`shortcut`='D'; allowed are", id="shortcut"),
        pytest.param({"blocks_per_stage": 0}, "`blocks_per_stage`=0; expected a whole number", id="depth"),
    ],
)
def test_bad_options_are_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model("resnet20_cifar", **option)
