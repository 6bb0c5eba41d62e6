"""Wide ResNet on CIFAR against Zagoruyko and Komodakis 2016 and its authors' code."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas import create_model
from convatlas.blocks.drop import DropPath
from counting import MacCounter, meta_model

# n blocks a stage, width k, parameters and MACs. 16-4, 16-8 and 28-10: the authors' model, rebuilt.
SIZES = {
    "wide_resnet16_4_cifar": (2, 4, 2_748_890, 392_612_352),
    "wide_resnet16_8_cifar": (2, 8, 10_961_370, 1_548_145_664),
    "wide_resnet28_10_cifar": (4, 10, 36_479_194, 5_243_328_768),
    "wide_resnet40_4_cifar": (6, 4, 8_949_210, 1_298_582_016),
}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def derived_size(blocks: int, k: int) -> tuple[int, int]:
    """Parameters and MACs, from Table 1: each convolution has the norm of its input."""
    params, macs, in_chans = 27 * 16, 27 * 16 * 32 * 32, 16
    for chans, px in ((16 * k, 32), (32 * k, 16), (64 * k, 8)):
        for _ in range(blocks):
            weights = 9 * in_chans * chans + 9 * chans * chans
            weights += in_chans * chans if in_chans != chans else 0
            params, macs = params + weights + 2 * in_chans + 2 * chans, macs + weights * px * px
            in_chans = chans
    return params + 2 * in_chans + 10 * in_chans + 10, macs + 10 * in_chans


@pytest.mark.parametrize("name", SIZES)
def test_size(name: str) -> None:
    blocks, k, params, macs = SIZES[name]
    net = meta_model(name)
    with MacCounter() as counter:
        net(torch.empty(1, 3, 32, 32, device="meta"))
    assert (count(net), counter.macs) == derived_size(blocks, k) == (params, macs)


@pytest.mark.parametrize(
    ("name", "options", "params"),
    [
        pytest.param("wide_resnet16_8_cifar", {"num_classes": 100}, 11_007_540, id="16-8-cifar100"),
        pytest.param("wide_resnet28_10_cifar", {"num_classes": 100}, 36_536_884, id="28-10-cifar100"),
        pytest.param("wide_resnet40_4_cifar", {"width_mult": 1}, 563_930, id="40-1"),
        pytest.param("wide_resnet40_4_cifar", {"width_mult": 2}, 2_243_546, id="40-2"),
        pytest.param("wide_resnet40_4_cifar", {"width_mult": 10}, 55_841_754, id="40-10"),
        pytest.param("wide_resnet28_10_cifar", {"width_mult": 12}, 52_517_850, id="28-12"),
        pytest.param("wide_resnet16_8_cifar", {"blocks_per_stage": 3}, 17_158_106, id="22-8"),
    ],
)
def test_other_sizes_that_the_paper_tries(name: str, options: dict[str, int], params: int) -> None:
    assert count(meta_model(name, **options)) == params


@pytest.mark.parametrize("name", SIZES)
def test_name_counts_the_convolutions(name: str) -> None:
    convs = [layer for layer in meta_model(name).modules() if isinstance(layer, nn.Conv2d)]
    assert len(convs) == int(name.removeprefix("wide_resnet").split("_")[0])  # 6n + 4, projections too


def reference(state: dict[str, Tensor], x: Tensor, blocks: int) -> list[Tensor]:
    """The stem's and the stages' maps and the logits, by functions on bare tensors."""

    def act(x: Tensor, path: str) -> Tensor:
        mean, var, scale, bias = (
            state[f"{path}.norm.{key}"][:, None, None]
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * scale + bias).clamp(min=0)

    x = F.conv2d(x, state["stem.conv.weight"], padding=1)
    maps = [x]
    for i in range(3):
        for j in range(blocks):
            path, stride = f"stages.{i}.{j}", 2 if i > 0 and j == 0 else 1
            pre = act(x, f"{path}.preact1")
            if j == 0:
                x = F.conv2d(pre, state[f"{path}.shortcut.conv.weight"], stride=stride)
            y = F.conv2d(pre, state[f"{path}.conv1.weight"], stride=stride, padding=1)
            x = x + F.conv2d(act(y, f"{path}.preact2"), state[f"{path}.conv2.weight"], padding=1)
        maps.append(x)
    maps[-1] = act(x, "norm")
    pooled = maps[-1].flatten(2).mean(dim=2)
    return [*maps, pooled @ state["head.fc.weight"].T + state["head.fc.bias"]]


def test_every_map_equals_a_computation_apart() -> None:
    torch.manual_seed(0)
    net = create_model("wide_resnet16_4_cifar").eval()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = reference(net.state_dict(), x, 2)
        for ours, theirs in zip([*net.forward_stages(x), net(x)], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


def test_dropout_is_between_the_convolutions_of_a_block() -> None:
    torch.manual_seed(0)
    block = create_model("wide_resnet16_4_cifar", block_drop_rate=0.3).stages[1][1]
    seen: list[Tensor] = []
    block.conv2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x = torch.randn(4, 128, 8, 8)
    block(x)
    block.eval()(x)
    dropped, whole = seen
    assert (whole > 0).float().mean().item() == pytest.approx(0.5, abs=0.02)  # behind norm and ReLU
    assert (dropped > 0).float().mean().item() == pytest.approx(0.5 * 0.7, abs=0.02)


def test_zero_init_makes_every_later_block_its_shortcut() -> None:
    net = create_model("wide_resnet16_4_cifar", zero_init_last=True)
    x = torch.randn(2, 64, 8, 8)
    assert torch.equal(net.stages[0][1](x), x)


def test_weights_follow_he_over_the_outputs() -> None:
    torch.manual_seed(0)
    net = create_model("wide_resnet16_4_cifar")
    for path, fan_out in {"stages.1.0.conv1": 128 * 9, "stages.2.0.shortcut.conv": 256}.items():
        weight = net.get_submodule(path).weight
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)


def test_options_of_the_shortcut_the_paths_and_the_pooling() -> None:
    net = meta_model("wide_resnet40_4_cifar", shortcut="A", drop_path_rate=0.17, global_pool="max")
    assert not any("shortcut" in key for key in net.state_dict())
    rates = [layer.drop_rate for layer in net.modules() if isinstance(layer, DropPath)]
    assert rates == pytest.approx([0.01 * i for i in range(18)])
    assert net.head.global_pool == "max"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param({"width_mult": 0}, "`width_mult`=0; expected a number above 0", id="width"),
        pytest.param({"blocks_per_stage": 0}, "`blocks_per_stage`=0; expected a whole number", id="depth"),
        pytest.param({"block_drop_rate": 1.0}, "`block_drop_rate`=1.0; expected a rate", id="dropout"),
    ],
)
def test_bad_options_are_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model("wide_resnet16_4_cifar", **option)
