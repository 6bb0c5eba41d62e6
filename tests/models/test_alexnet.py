"""AlexNet against Krizhevsky et al. 2012, its form on two devices, and the network of 2014."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from convatlas import create_model
from convatlas.models.alexnet import join_towers, split_towers
from convatlas.models.network import Network
from convatlas.weights import load_foreign
from counting import MacCounter, meta_model

SIZE = 67  # px, the smallest: arithmetic stays cheap


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def grouped() -> Network:
    torch.manual_seed(0)
    net = create_model("alexnet", num_classes=10).eval()
    # Away from N(0, 0.01^2), where biases drown the image.
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return net


@pytest.fixture(scope="module")
def split(grouped: Network) -> Network:
    net = create_model("alexnet", num_classes=10, devices=("cpu", "cpu")).eval()
    net.load_state_dict(split_towers(grouped.state_dict()))
    return net


@pytest.mark.parametrize(
    ("name", "options", "size", "params", "macs"),
    [
        pytest.param("alexnet", {}, 227, 60_965_224, 665_784_864 + 58_621_952, id="alexnet"),
        pytest.param("alexnet", {"devices": ("cpu", "cpu")}, 227, 60_965_224, 724_406_816, id="split"),
        # Without towers, as pytorchcv counts it.
        pytest.param("alexnet", {"towers": 1}, 227, 62_378_344, None, id="one-tower"),
        pytest.param("alexnet_owt", {}, 224, 61_100_840, 714_188_480, id="owt"),
    ],
)
def test_size(name: str, options: dict[str, object], size: int, params: int, macs: int | None) -> None:
    net = meta_model(name, **options)
    assert count_params(net) == params
    if macs is not None:
        with MacCounter() as counter:
            net(torch.empty(1, 3, size, size, device="meta"))
        assert counter.macs == macs


def test_first_layer_and_maps() -> None:
    net = meta_model("alexnet")
    assert net.stem.conv1.conv.weight.numel() == 34_848
    maps = net.forward_stages(torch.empty(1, 3, 227, 227, device="meta"))
    assert maps[0].numel() == 55 * 55 * 96 == 290_400
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 55, 55), (256, 27, 27), (256, 13, 13), (256, 6, 6)]


def test_normalisation_follows_relu_and_precedes_pooling(grouped: Network) -> None:
    x = torch.randn(1, 3, SIZE, SIZE)
    a = grouped.stem.conv1.conv(x).clamp(min=0)
    # In each tower apart, with alpha of the paper (torch's own divides it by 5).
    halves = [nn.functional.local_response_norm(half, 5, 5e-4, 0.75, 2.0) for half in a.chunk(2, dim=1)]
    normed = torch.cat(halves, dim=1)
    torch.testing.assert_close(grouped.stem(x), normed)
    second = grouped.stages[0](nn.functional.max_pool2d(normed, 3, 2))
    torch.testing.assert_close(grouped.forward_stages(x)[1], second)


def test_local_norm_is_an_option() -> None:
    net = meta_model("alexnet", local_norm=False)
    assert isinstance(net.stem.norm, nn.Identity) and isinstance(net.stages[0].norm, nn.Identity)


def test_towers_meet_in_conv3_and_in_the_fully_connected_layers(grouped: Network) -> None:
    net = copy.deepcopy(grouped)
    x = torch.randn(2, 3, SIZE, SIZE)
    first, second, third, _ = net.forward_stages(x)

    def reach(output: torch.Tensor, weight: torch.Tensor) -> list[bool]:
        """Whether the first half of the outputs depends on each half of a layer's filters."""
        (grad,) = torch.autograd.grad(output.chunk(2, dim=1)[0].sum(), weight, retain_graph=True)
        return [bool(half.count_nonzero()) for half in grad.chunk(2)]

    conv1, conv2 = net.stem.conv1.conv.weight, net.stages[0].conv2.conv.weight
    assert reach(first, conv1) == [True, False]
    assert reach(second, conv1) == reach(second, conv2) == [True, False]
    assert reach(third, conv2) == [True, True]
    conv4, conv5 = net.stages[1].conv4.conv.weight, net.stages[1].conv5.conv.weight
    assert reach(third, conv4) == reach(third, conv5) == [True, False]
    hidden = net.forward_head(net.forward_features(x), pre_logits=True)
    assert reach(hidden, conv5) == [True, True]


def test_initialisation() -> None:
    torch.manual_seed(0)
    net = create_model("alexnet", num_classes=10)
    convs = {"conv1": net.stem.conv1.conv, "conv2": net.stages[0].conv2.conv}
    convs |= {name: net.stages[1].get_submodule(name).conv for name in ("conv3", "conv4", "conv5")}
    layers = convs | {"fc1": net.head.hidden.fc1, "fc2": net.head.hidden.fc2, "fc": net.head.fc}
    for layer in layers.values():
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.03)
    ones = {name for name, layer in layers.items() if bool((layer.bias == 1).all())}
    zeros = {name for name, layer in layers.items() if bool((layer.bias == 0).all())}
    assert ones == {"conv2", "conv4", "conv5", "fc1", "fc2"}
    assert zeros == {"conv1", "conv3", "fc"}
    nn.init.normal_(net.stages[0].conv2.conv.bias)
    net.init_weights(net.stages[0].conv2)
    assert (net.stages[0].conv2.conv.bias == 1).all()


@pytest.mark.parametrize(
    ("name", "dropouts"),
    [
        pytest.param("alexnet", {"dropout2": 0.5, "dropout": 0.5}, id="2012-after"),
        pytest.param("alexnet_owt", {"dropout1": 0.5, "dropout2": 0.5, "dropout": 0.0}, id="2014-before"),
    ],
)
def test_order_of_dropout(name: str, dropouts: dict[str, float]) -> None:
    head = meta_model(name).head
    found = {path.split(".")[-1]: m.p for path, m in head.named_modules() if isinstance(m, nn.Dropout)}
    assert found == dropouts


def test_split_form_gives_the_same(grouped: Network, split: Network) -> None:
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected, got = grouped(x), split(x)
        assert expected.std() > 0.1
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
        for theirs, ours in zip(grouped.forward_stages(x), split.forward_stages(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_split_form_gives_the_same_gradients(grouped: Network, split: Network) -> None:
    x = torch.randn(1, 3, SIZE, SIZE)
    for net in (grouped, split):
        net(x).square().sum().backward()
    expected = split_towers({key: p.grad for key, p in grouped.named_parameters()})
    for key, parameter in split.named_parameters():
        limit = 1e-4 * expected[key].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-4, atol=limit)
    for net in (grouped, split):
        net.zero_grad()


def test_state_dicts_turn_into_each_other(grouped: Network, split: Network) -> None:
    back = join_towers(split.state_dict())
    assert list(back) == list(grouped.state_dict())
    assert all(torch.equal(back[key], value) for key, value in grouped.state_dict().items())


def test_feature_info_of_the_split_form_names_its_maps(split: Network) -> None:
    x = torch.randn(1, 3, SIZE, SIZE)
    seen: dict[str, torch.Tensor] = {}
    for feature in split.feature_info:
        module = split.get_submodule(feature.module)
        module.register_forward_hook(lambda _m, _a, out, name=feature.module: seen.update({name: out}))
    maps = split.forward_stages(x)
    assert [id(seen[feature.module]) for feature in split.feature_info] == [id(m) for m in maps]
    seen.clear()
    split(x)
    assert set(seen) == {"joined.3"}  # nobody looks, so the towers exchange nothing before conv3


@pytest.mark.parametrize("devices", [("cpu", "meta"), ("meta", "cpu"), ("meta", "meta")], ids="-".join)
def test_each_tower_lies_on_its_device(devices: tuple[str, str]) -> None:
    net = create_model("alexnet", num_classes=10, devices=devices)
    for i, device in enumerate(devices):
        parts = (net.towers[i], net.head.towers[i])
        assert {p.device.type for part in parts for p in part.parameters()} == {device}
    net.reset_classifier(7)
    assert net.head.fc.weight.device.type == devices[0]
    assert {p.device.type for p in net.head.towers[1].parameters()} == {devices[1]}


def test_split_form_on_meta() -> None:
    net = meta_model("alexnet", devices=("meta", "meta"))
    x = torch.empty(2, 3, 227, 227, device="meta")
    assert net(x).shape == (2, 1000)
    assert net.forward_head(net.forward_features(x), pre_logits=True).shape == (2, 4096)


def test_split_form_traces_and_exports(split: Network) -> None:
    x = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = split(x)
        torch.testing.assert_close(torch.fx.symbolic_trace(split)(x), expected)
        torch.testing.assert_close(torch.export.export(split, (x,)).module()(x), expected)


@pytest.mark.parametrize("drop_first", [False, True], ids=["after", "before"])
def test_split_form_drops_in_training(drop_first: bool) -> None:
    torch.manual_seed(0)
    net = create_model("alexnet", num_classes=10, devices=("cpu", "cpu"), drop_first=drop_first)
    x = torch.randn(1, 3, SIZE, SIZE)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("alexnet", {"devices": ("cpu",)}, r"`devices`=\('cpu',\); expected one device for each tower"),
        ("alexnet_owt", {"devices": ("cpu",)}, "this network has 1"),
        ("alexnet", {"devices": ("cpu", "tpu0")}, "`devices`: 'tpu0' is no device; expected such as"),
        ("alexnet", {"devices": ("cpu", "cuda:99")}, r"this machine has \d+ CUDA devices"),
        ("alexnet", {"towers": 5}, "`towers`=5; expected a divisor of"),
        ("alexnet", {"towers": 0}, "`towers`=0; expected a divisor of"),
    ],
    ids=["too-few", "one-tower", "no-device", "no-such-gpu", "five-towers", "no-tower"],
)
def test_refusals(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize("devices", [None, ("cpu", "cpu")], ids=["grouped", "split"])
def test_no_global_pool_to_choose(devices: tuple[str, str] | None) -> None:
    net = meta_model("alexnet", devices=devices)
    with pytest.raises(ValueError, match="`global_pool`='avg': this head flattens its map"):
        net.reset_classifier(5, "avg")


def test_owt_is_the_network_of_torchvision() -> None:
    torch.manual_seed(0)
    peer = torchvision.models.alexnet(num_classes=50).eval()
    for layer in peer.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    net = create_model("alexnet_owt", num_classes=50).eval()
    load_foreign(net, peer.state_dict(), source="torchvision")
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = peer(x)
        assert expected.std() > 0.1 and (expected[0] - expected[1]).std() > 0.1
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-4 * expected.abs().max().item())
        # The maps after conv1, conv2, conv5 and the last pooling.
        for end, ours in zip((2, 5, 12, 13), net.forward_stages(x), strict=True):
            theirs = peer.features[:end](x)
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * theirs.abs().max().item())
