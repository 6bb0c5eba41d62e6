"""DenseNet against Huang et al. 2016."""

import math

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from convatlas import create_model
from convatlas.blocks.dense import frozen_statistics
from convatlas.weights import load_foreign
from counting import count_macs, meta_model

TABLE_1 = {
    # Layers in each block, and k.
    "densenet121": ((6, 12, 24, 16), 32),
    "densenet161": ((6, 12, 36, 24), 48),
    "densenet169": ((6, 12, 32, 32), 32),
    "densenet201": ((6, 12, 48, 32), 32),
    "densenet264": ((6, 12, 64, 48), 32),
}


def derive(
    depths: tuple[int, ...],
    growth: int,
    *,
    chans: int,
    size: int,
    bottleneck: bool = True,
    theta: float = 0.5,
    num_classes: int = 10,
) -> tuple[int, int]:
    """Parameters and MACs of all behind the stem, layer by layer, from Section 3 of the paper."""
    params = macs = 0
    for i, depth in enumerate(depths):
        if i > 0:
            kept = math.floor(chans * theta)
            params += 2 * chans + chans * kept
            macs += chans * kept * size**2
            chans, size = kept, size // 2
        for _ in range(depth):
            weights = chans * 4 * growth + 4 * growth * growth * 9 if bottleneck else chans * growth * 9
            params += 2 * chans + weights + (2 * 4 * growth if bottleneck else 0)
            macs += weights * size**2
            chans += growth
    return params + 2 * chans + (chans + 1) * num_classes, macs + chans * num_classes


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # As torchvision, timm and Keras count; nobody else has 264.
        pytest.param("densenet121", 7_978_856, 2_834_161_664, id="121"),
        pytest.param("densenet161", 28_681_000, 7_727_907_072, id="161"),
        pytest.param("densenet169", 14_149_480, 3_359_843_328, id="169"),
        pytest.param("densenet201", 20_013_928, 4_291_365_888, id="201"),
        pytest.param("densenet264", 33_337_704, 5_751_653_376, id="264"),
    ],
)
def test_size_on_imagenet(name: str, params: int, macs: int) -> None:
    depths, growth = TABLE_1[name]
    stem = 3 * 2 * growth * 49
    behind, macs_behind = derive(depths, growth, chans=2 * growth, size=56, num_classes=1000)
    assert (behind + stem + 2 * 2 * growth, macs_behind + stem * 112**2) == (params, macs)
    net = meta_model(name)
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net, 224) == macs


@pytest.mark.parametrize(
    ("name", "depth", "growth", "chans", "options", "params"),
    [
        pytest.param(
            "densenet40_12_cifar", 12, 12, 16, {"bottleneck": False, "theta": 1.0}, 1_019_722, id="40"
        ),
        pytest.param("densenet_bc100_12_cifar", 16, 12, 24, {}, 769_162, id="bc100"),
        # (250 - 4) / 6 and (190 - 4) / 6 layers; the paper prints 15.3M and 25.6M.
        pytest.param("densenet_bc250_24_cifar", 41, 24, 48, {}, 15_324_406, id="bc250"),
        pytest.param("densenet_bc190_40_cifar", 31, 40, 80, {}, 25_624_430, id="bc190"),
    ],
)
def test_size_on_cifar(
    name: str, depth: int, growth: int, chans: int, options: dict[str, float], params: int
) -> None:
    behind, macs = derive((depth,) * 3, growth, chans=chans, size=32, **options)
    net = meta_model(name)
    assert behind + 27 * chans == params
    assert sum(p.numel() for p in net.parameters()) == params
    assert count_macs(net, 32) == macs + 27 * chans * 32**2


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("densenet121", 121),
        ("densenet161", 161),
        ("densenet169", 169),
        ("densenet201", 201),
        # Two in each of 6 + 12 + 64 + 48 layers, and five more: one more than the name says.
        ("densenet264", 265),
        ("densenet40_12_cifar", 40),
        ("densenet_bc100_12_cifar", 100),
        ("densenet_bc250_24_cifar", 250),
        ("densenet_bc190_40_cifar", 190),
    ],
)
def test_name_counts_the_layers(name: str, layers: int) -> None:
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in meta_model(name).modules()) == layers


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        pytest.param(
            "densenet121",
            224,
            [(64, 112), (256, 56), (512, 28), (1024, 14), (1024, 7)],
            id="121",
        ),
        pytest.param(
            "densenet40_12_cifar", 32, [(16, 32), (160, 32), (304, 16), (448, 8)], id="40-keeps-all-channels"
        ),
    ],
)
def test_maps_of_table_one(name: str, size: int, shapes: list[tuple[int, int]]) -> None:
    maps = meta_model(name).forward_stages(torch.empty(1, 3, size, size, device="meta"))
    assert [tuple(m.shape) for m in maps] == [(1, c, s, s) for c, s in shapes]


def test_a_layer_sees_every_map_before_it() -> None:
    torch.manual_seed(0)
    block = create_model("densenet_bc100_12_cifar").eval().stages[0].block
    x = torch.randn(1, 24, 4, 4)
    y = block(x)
    torch.testing.assert_close(y[:, :24], x)
    fourth = block["layer4"]([y[:, : 24 + 3 * 12]])
    torch.testing.assert_close(y[:, 24 + 36 : 24 + 48], fourth)


def test_weights_follow_he() -> None:
    torch.manual_seed(0)
    net = create_model("densenet121")
    for path, fan_in in {
        "stem.conv": 147,
        "stages.1.block.layer2.conv2": 128 * 9,
        "stages.3.transition.conv": 1024,
    }.items():
        assert net.get_submodule(path).weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.03)
    assert net.head.fc.bias.count_nonzero() == 0


SMALL = {"depths": (2, 2, 3), "num_classes": 5}


def train_step(name: str, memory_efficient: bool, layer_drop_rate: float) -> tuple[nn.Module, Tensor]:
    """A network after one step's backward, and the gradient at its input."""
    torch.manual_seed(0)
    net = create_model(name, memory_efficient=memory_efficient, layer_drop_rate=layer_drop_rate, **SMALL)
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    torch.manual_seed(1)
    net(x).square().sum().backward()
    assert x.grad is not None
    return net, x.grad


def count_kept_bytes(net: nn.Module) -> int:
    """Bytes that a forward keeps for backward, apart from the network's own."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = net(torch.randn(2, 3, 16, 16))
    assert logits.requires_grad
    own = {tensor.data_ptr() for tensor in net.state_dict().values()}
    return sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)


@pytest.mark.parametrize("layer_drop_rate", [0.0, 0.2])
@pytest.mark.parametrize("name", ["densenet40_12_cifar", "densenet_bc100_12_cifar"])
def test_memory_efficient_training_has_equal_gradients_and_statistics(
    name: str, layer_drop_rate: float
) -> None:
    plain, x_grad = train_step(name, False, layer_drop_rate)
    frugal, frugal_x_grad = train_step(name, True, layer_drop_rate)
    assert torch.equal(x_grad, frugal_x_grad)
    for (key, expected), grad in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert expected.grad is not None and torch.equal(expected.grad, grad.grad), key
    for (key, expected), buffer in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        assert torch.equal(expected, buffer), key


@pytest.mark.parametrize(
    ("name", "share"), [("densenet40_12_cifar", 0.25), ("densenet_bc100_12_cifar", 0.5)], ids=["40", "bc100"]
)
def test_memory_efficient_training_keeps_fewer_bytes(name: str, share: float) -> None:
    frugal, plain = (count_kept_bytes(create_model(name, memory_efficient=m)) for m in (True, False))
    assert 0 < frugal < share * plain


@pytest.mark.parametrize(("memory_efficient", "bend"), [(True, 1.0), (False, 1.4)])
def test_bytes_kept_grow_linearly_with_depth_only_where_memory_efficient(
    memory_efficient: bool, bend: float
) -> None:
    # Each layer keeps its own maps; a plain one also joins and normalises all maps before it: a square.
    few, some, many = (
        count_kept_bytes(
            create_model("densenet_bc100_12_cifar", depths=(depth, 1, 1), memory_efficient=memory_efficient)
        )
        for depth in (8, 16, 24)
    )
    assert (many - some) / (some - few) == pytest.approx(bend, abs=0.12)


def test_statistics_are_frozen_only_inside_and_only_in_training() -> None:
    norm = nn.BatchNorm2d(2)
    with frozen_statistics(norm):
        norm(torch.randn(4, 2, 3, 3))
    assert norm.num_batches_tracked == 0 and norm.running_mean.count_nonzero() == 0
    norm(torch.randn(4, 2, 3, 3))
    assert norm.num_batches_tracked == 1
    norm.eval()
    x = torch.randn(4, 2, 3, 3)
    with frozen_statistics(norm):
        inside = norm(x)
    assert torch.equal(inside, norm(x))


def test_memory_efficient_network_in_evaluation_is_the_plain_one() -> None:
    torch.manual_seed(0)
    net = create_model("densenet_bc100_12_cifar", memory_efficient=True, **SMALL).eval()
    plain = create_model("densenet_bc100_12_cifar", **SMALL).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(net(x), plain(x))


def test_memory_efficient_network_can_be_traced_and_compiled() -> None:
    torch.manual_seed(0)
    net = create_model("densenet_bc100_12_cifar", memory_efficient=True, **SMALL).eval()
    x = torch.randn(2, 3, 16, 16)
    expected = net(x)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), expected)
    torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), expected)


def test_layer_drop_rate_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = create_model("densenet40_12_cifar", layer_drop_rate=0.2, **SMALL)
    x = torch.randn(2, 3, 16, 16)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_options_reach_the_layers() -> None:
    net = meta_model("densenet121", compression=0.25, growth=8, stem_chans=16, bottleneck=False)
    assert net.stages[1].transition.conv.weight.shape == (16, 64, 1, 1)
    assert net.stages[0].block["layer1"].conv1.weight.shape == (8, 16, 3, 3)


@pytest.mark.parametrize("global_pool", ["avg", "max"])
def test_global_pool(global_pool: str) -> None:
    net = create_model("densenet40_12_cifar", depths=(1, 1, 1), num_classes=0, global_pool=global_pool).eval()
    x = torch.randn(1, 3, 16, 16)
    maps = net.forward_features(x)
    torch.testing.assert_close(net(x), maps.mean((2, 3)) if global_pool == "avg" else maps.amax((2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"depths": (6, 12)}, r"`depths`=\(6, 12\); expected a tuple of 4", id="two-blocks"),
        pytest.param({"depths": (6, 0, 1, 1)}, "`depths`=0; expected a whole number", id="empty-block"),
        pytest.param({"growth": 0}, "`growth`=0; expected a whole number of at least 1", id="growth"),
        pytest.param({"stem_chans": 1.5}, "`stem_chans`=1.5; expected a whole number", id="stem"),
        pytest.param({"compression": 1.5}, "`compression`=1.5; expected a share", id="compression"),
        pytest.param({"compression": 0.001}, "at least 1/64 and at most 1", id="nothing-left"),
        pytest.param({"layer_drop_rate": 1.0}, "`layer_drop_rate`=1.0; expected a rate", id="drop"),
        pytest.param(
            {"drop_path_rate": 0.1}, "densenet121 has no option `drop_path_rate`", id="no-droppable-paths"
        ),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model("densenet121", **options)


def randomise(peer: nn.Module) -> nn.Module:
    """Gives every norm other statistics and scales than a fresh one has."""
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.3, 0.9)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return peer.eval()


@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_equal_to_public_implementations(source: str, name: str) -> None:
    torch.manual_seed(0)
    make = torchvision.models.get_model if source == "torchvision" else timm.create_model
    peer = randomise(make(name))
    net = create_model(name).eval()
    load_foreign(net, peer.state_dict(), source=source)
    x = torch.randn(1, 3, 64, 64)
    expected: list[Tensor] = []
    stem = "relu0" if source == "torchvision" else "norm0"
    for path in [stem, "denseblock1", "denseblock2", "denseblock3", "norm5"]:
        layer = peer.get_submodule(f"features.{path}")
        layer.register_forward_hook(lambda _m, _x, y: expected.append(y.clone().relu()))
    with torch.no_grad():
        expected.append(peer(x))
        outputs = [*net.forward_stages(x), net(x)]
    # Blocks end without an activation; to compare them with one does no harm to what follows.
    outputs = [y.relu() for y in outputs[:-1]] + outputs[-1:]
    for ours, theirs in zip(outputs, expected, strict=True):
        assert theirs.std() > 1e-3
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
