"""What every network of the atlas promises, tried on every network of the registry.

Shapes, connectivity and errors are tried on the meta device, where nothing is computed; arithmetic is
tried on one network of each family, the smallest.
"""

import dataclasses
import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from convatlas import create_model, find_card, list_models
from convatlas.models.network import AuxLogits, Network, check_input
from convatlas.models.registry import find_config

NAMES = list_models()
# A pass through a thousand layers takes seconds even where nothing is computed: of these two the logits and
# the gradients are looked at, of the shallower networks of their class all.
MOST_LAYERS = {"resnet1202_cifar", "preact_resnet1001_cifar"}
SHALLOWER = [name for name in NAMES if name not in MOST_LAYERS]


def build(name: str, **options: Any) -> Network[Any]:
    """The network on the meta device."""
    with torch.device("meta"):
        return create_model(name, **options)


@pytest.fixture(autouse=True)
def _norms_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch normalisation that computes shapes and gradients' connections only.

    PyTorch's own for the meta device is written in Python and takes four fifths of a network's pass there.
    """
    computes = nn.functional.batch_norm

    def batch_norm(
        x: Tensor,
        mean: Tensor | None,
        var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not x.is_meta:
            return computes(x, mean, var, weight, bias, training, momentum, eps)
        if training and x[:, 0].numel() == 1:
            raise ValueError(f"expected more than one value for each channel; received {tuple(x.shape)}")
        for vector in (mean, var, weight, bias):
            if vector is not None:
                assert vector.is_meta and vector.shape == x.shape[1:2]
                x = x + vector[:, None, None]
        return x

    monkeypatch.setattr(nn.functional, "batch_norm", batch_norm)


def count(name: str) -> int:
    return sum(p.numel() for p in build(name).parameters())


def smallest_of_each_family() -> list[str]:
    cards = sorted(map(find_card, NAMES), key=lambda card: card.exact.params if card.exact else 0)
    return list({card.module: card.name for card in reversed(cards)}.values())


FAMILIES = smallest_of_each_family()


def images(net: Network[Any], size: int | tuple[int, int], batch: int = 2, device: str = "meta") -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, net.config.in_chans, height, width, generator=generator)
    return x.to(device)


def usual_size(name: str) -> int:
    return find_card(name).input_size[1]


@pytest.mark.parametrize("name", NAMES)
def test_logits_have_one_column_for_each_class(name: str) -> None:
    net = build(name)
    card = find_card(name)
    assert isinstance(net, Network)
    assert net.name == name
    assert net.config.in_chans == card.input_size[0]
    assert net.num_classes == card.num_classes
    for mode in (True, False):
        logits = net.train(mode)(images(net, card.input_size[1:]))
        assert isinstance(logits, Tensor)
        assert logits.shape == (2, card.num_classes)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = build(name)
    answer = net.forward_aux(images(net, usual_size(name)))
    assert isinstance(answer, AuxLogits)
    assert answer.main.shape == (2, net.num_classes)
    assert all(aux.shape == (2, net.num_classes) for aux in answer.aux)
    sum((logits.sum() for logits in answer.aux), answer.main.sum()).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", SHALLOWER)
def test_class_count_and_channels_are_free(name: str) -> None:
    headless = build(name, num_classes=0, in_chans=4).eval()
    assert headless(images(headless, usual_size(name))).shape == (2, headless.head_hidden_size)
    net = build(name, num_classes=7, in_chans=1).eval()
    features = net.forward_features(images(net, usual_size(name)))
    assert features.shape[:2] == (2, net.num_features)
    assert net.forward_head(features).shape == (2, 7)
    assert net.forward_head(features, pre_logits=True).shape == (2, net.head_hidden_size)
    net.to(torch.float64).reset_classifier(5)
    answer = net.forward_aux(images(net, usual_size(name)).double())
    assert answer.main.dtype == torch.float64
    assert [logits.shape for logits in (answer.main, *answer.aux)] == [(2, 5)] * (1 + len(answer.aux))
    net.reset_classifier(0)
    assert isinstance(net.get_classifier(), nn.Identity)


def works_unchecked(net: Network[Any], size: int) -> bool:
    """Whether a batch of this size would go through in training, were it not refused beforehand."""
    try:
        return net.train().forward_head(net.features(images(net, size))).numel() > 0
    except (RuntimeError, ValueError):
        return False


@pytest.mark.parametrize("name", SHALLOWER)
def test_smallest_input(name: str) -> None:
    net = build(name)
    least = net.min_input_size
    assert 1 <= least <= usual_size(name)
    assert net.train()(images(net, least)).shape == (2, net.num_classes)
    assert net.eval()(images(net, (least, least + 13))).shape == (2, net.num_classes)
    for size in ((least - 1, least), (least, least - 1)):
        message = (
            rf"{name}: the input is {size[0]}x{size[1]} px; the smallest size that works is {least}x{least}"
        )
        with pytest.raises(ValueError, match=message):
            net(images(net, size))
    assert not works_unchecked(net, least - 1), "the limit is the check's alone, not the network's"
    with pytest.raises(ValueError, match=rf"{name}: expected {net.config.in_chans} channels; received 6"):
        net(torch.zeros(1, 6, usual_size(name), usual_size(name), device="meta"))
    with pytest.raises(ValueError, match=rf"{name}: expected images of shape"):
        net(torch.zeros(3, 32, 32, device="meta"))


@pytest.mark.parametrize("name", SHALLOWER)
def test_features_have_the_stated_channels_and_strides(name: str) -> None:
    net = build(name).eval()
    size = usual_size(name)
    maps = net.forward_stages(images(net, size))
    info = net.feature_info
    assert [m.shape[1] for m in maps] == info.channels()
    assert len(info) == len(maps) >= 1
    for feature_map, stride in zip(maps, info.reduction(), strict=True):
        # "valid" padding loses some px at the rim, up to a stage's receptive field.
        assert abs(feature_map.shape[2] * stride - size) <= max(stride * 4, 0.15 * size)
    assert info.reduction() == sorted(info.reduction())
    for path in info.module_name():
        net.get_submodule(path)
    backbone = build(name, features_only=True, out_indices=(-1, 0))
    last, first = backbone.train()(images(net, size))
    assert (last.shape, first.shape) == (maps[-1].shape, maps[0].shape)
    last.sum().backward()
    assert [key for key, p in backbone.named_parameters() if p.grad is None] == []
    assert backbone.feature_info.channels() == [info.channels()[-1], info.channels()[0]]
    with pytest.raises(
        ValueError, match=rf"`out_indices`=\[{len(info)}\]: {name} has {len(info)} feature maps"
    ):
        build(name, features_only=True, out_indices=[len(info)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["drop_rate", "drop_path_rate", "global_pool", "no_such"])
def test_an_option_is_taken_or_refused_in_one_way(name: str, option: str) -> None:
    value = "max" if option == "global_pool" else 0.3
    if option in {field.name for field in dataclasses.fields(find_config(name, {}))}:
        net = build(name, **{option: value})
        assert getattr(net.config, option) == value
        if option == "drop_rate":
            assert any(isinstance(m, nn.Dropout) and m.p == value for m in net.modules())
    else:
        with pytest.raises(
            ValueError, match=rf"{name} has no option `{option}` \(received .*\); nearest: .*; it has "
        ):
            build(name, **{option: value})


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_counted_elsewhere(name: str) -> None:
    exact = find_card(name).exact
    assert exact is not None
    assert count(name) == exact.params, exact.basis


@pytest.mark.parametrize("name", SHALLOWER)
def test_fx_traces_it(name: str) -> None:
    net = build(name).eval()
    traced = torch.fx.symbolic_trace(net)
    assert traced(images(net, usual_size(name))).shape == (2, net.num_classes)


@pytest.mark.parametrize("name", NAMES)
def test_card_is_complete(name: str) -> None:
    card = find_card(name)
    assert card.summary
    assert card.tags
    assert len(card.mean) == len(card.std) == card.input_size[0]
    assert all(figure.place for figure in card.published)
    assert 1998 <= card.paper.year <= 2020
    assert re.match(r"(arXiv:|doi:|https://)", card.paper.identifier)
    assert card.paper.new.endswith(".")


SHAPE_LINE = re.compile(r"self\.(\w+)(?:\[(\d+)\])?\(.*#\s*\(B, (\w+), ([\w/]+), ([\w/]+)\)")


def commented_stages(net: Network[Any]) -> dict[str, tuple[str, str, str]]:
    """Module path of each line of `features` that states a shape, with C, H and W as written."""
    source = inspect.getsource(type(net).features)
    found = [SHAPE_LINE.search(line) for line in source.splitlines()]
    return {
        match[1] + (f".{match[2]}" if match[2] else ""): (match[3], match[4], match[5])
        for match in found
        if match
    }


@pytest.mark.parametrize("name", NAMES)
def test_shape_comments_are_true(name: str) -> None:
    net = build(name).eval()
    stated = re.search(r"Shapes in comments: (\w+)", inspect.getdoc(type(net)) or "")
    if stated and stated[1] != name:
        pytest.skip(f"the comments are those of {stated[1]}")
    lines = commented_stages(net)
    assert lines, "no line of `features` states a shape"
    size = usual_size(name)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in lines:

        def keep(module: nn.Module, args: object, out: Tensor, path: str = path) -> None:
            shapes[path] = tuple(out.shape[1:])

        net.get_submodule(path).register_forward_hook(keep)
    net(images(net, size))
    assert {path: tuple(resolve(part, size) for part in parts) for path, parts in lines.items()} == shapes


def resolve(part: str, size: int) -> int:
    """A number, or H or W over a stride: a stride-2 layer with "same" padding rounds up."""
    letter, _, stride = part.partition("/")
    return -(-size // int(stride or 1)) if letter in ("H", "W") else int(part)


@pytest.mark.parametrize("name", FAMILIES)
def test_initialisation_reaches_every_number(name: str) -> None:
    net = create_model(name)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.fill_(torch.nan if tensor.is_floating_point() else -77)
        net.init_weights(net)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    assert [key for key, value in state.items() if not value.isfinite().all() or (value == -77).any()] == []


@pytest.mark.parametrize("name", FAMILIES)
def test_arithmetic(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(name, num_classes=11)
    size = max(net.min_input_size, 64 if usual_size(name) > 64 else usual_size(name))
    x = images(net, size, batch=4, device="cpu")
    net.train()(x).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        net.eval()
        plain = net(x)
        assert plain.isfinite().all()
        assert plain.std() > 0
        # A sample's answer does not depend on the batch it is in.
        torch.testing.assert_close(net(x[:1]), plain[:1], rtol=1e-3, atol=1e-4 * plain.abs().max().item())
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())
        copy = create_model(name, num_classes=11).eval()
        copy.load_state_dict(net.state_dict())
        torch.testing.assert_close(copy(x), plain, rtol=1e-3, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_torch_export_takes_it(name: str) -> None:
    torch.manual_seed(0)
    net = create_model(name).eval()
    x = images(net, max(net.min_input_size, min(usual_size(name), 64)), device="cpu")
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    more = torch.cat([x, x])
    with torch.no_grad():
        expected = net(more)
        torch.testing.assert_close(
            program.module()(more), expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item()
        )


def test_the_check_stays_out_of_traces() -> None:
    net = build("lenet5")
    graph = torch.fx.symbolic_trace(net).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"].count(check_input) == 1
