"""FractalNet against Larsson et al. 2016 and its authors' generator."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas import create_model
from convatlas.blocks.fractal import FractalJoin
from counting import MacCounter, meta_model

WIDTHS = (64, 128, 256, 512, 512)
SMALL = {"widths": (4, 6, 8, 8, 8)}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def derived_size(columns: int, num_classes: int, per_layer: int, widths: tuple[int, ...]) -> tuple[int, int]:
    """Parameters and MACs by the recursion of Eq. 1 to 3; a layer has `per_layer` more for each channel."""

    def weights(c: int, in_chans: int, out_chans: int) -> int:
        one = 9 * in_chans * out_chans
        return (
            one
            if c == 1
            else one + weights(c - 1, in_chans, out_chans) + weights(c - 1, out_chans, out_chans)
        )

    params, macs = 0, 0
    for (in_chans, out_chans), px in zip(itertools.pairwise((3, *widths)), (32, 16, 8, 4, 2), strict=True):
        block = weights(columns, in_chans, out_chans)
        params += block + (2**columns - 1) * per_layer * out_chans
        macs += block * px * px
    return params + (widths[-1] + 1) * num_classes, macs + widths[-1] * num_classes


@pytest.mark.parametrize(
    ("name", "options", "params", "macs"),
    [
        # The authors' generator, executed: biases, no affine norms.
        pytest.param("fractalnet20_cifar", {}, 33_714_314, 845_222_912, id="20"),
        pytest.param("fractalnet20_cifar", {"num_classes": 100}, 33_760_484, 845_268_992, id="20-cifar100"),
        pytest.param("fractalnet40_cifar", {}, 76_084_554, 2_036_077_568, id="40"),
        # Affine norms, no biases; the first is pytorchcv's.
        pytest.param("fractalnet20_cifar", {"norm_affine": True}, 33_724_618, 845_222_912, id="20-affine"),
        pytest.param("fractalnet40_cifar", {"norm_affine": True}, 76_106_634, 2_036_077_568, id="40-affine"),
        pytest.param(
            "fractalnet40_cifar",
            {"norm_affine": True, "widths": (16, 32, 64, 128, 128)},
            4_767_210,
            128_582_912,
            id="40-narrow",
        ),
    ],
)
def test_size(name: str, options: dict[str, object], params: int, macs: int) -> None:
    net = meta_model(name, **options).eval()
    with MacCounter() as counter:
        net(torch.empty(1, 3, 32, 32, device="meta"))
    config = net.config
    per_layer = 2 if config.norm_affine else 1
    derived = derived_size(config.num_columns, config.num_classes, per_layer, config.widths)
    assert (count(net), counter.macs) == derived == (params, macs)


@pytest.mark.parametrize(("name", "columns"), [("fractalnet20_cifar", 3), ("fractalnet40_cifar", 4)])
def test_layers_of_each_column(name: str, columns: int) -> None:
    net = meta_model(name)
    convs = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convs) == 5 * (2**columns - 1)
    depths = [sum(isinstance(layer, nn.Conv2d) for layer in net.column(i).modules()) for i in range(columns)]
    assert depths == [5 * 2**i for i in range(columns)]  # the deepest has 20 or 40
    maps = net.forward_stages(torch.empty(2, 3, 32, 32, device="meta"))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, px, px) for c, px in zip(WIDTHS, (16, 8, 4, 2, 1), strict=True)
    ]


def set_norms(net: nn.Module) -> nn.Module:
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
        elif isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias, std=0.2)
    return net.eval()


def conv(state: dict[str, Tensor], path: str, x: Tensor) -> Tensor:
    """A convolution with bias, a norm without scale and bias, ReLU."""
    x = F.conv2d(x, state[f"{path}.conv.weight"], state[f"{path}.conv.bias"], padding=1)
    mean, var = (state[f"{path}.norm.{key}"][:, None, None] for key in ("running_mean", "running_var"))
    return ((x - mean) / torch.sqrt(var + 1e-5)).clamp(min=0)


def fractal_paths(state: dict[str, Tensor], layers: list[Iterator[str]], c: int, x: Tensor) -> list[Tensor]:
    """What meets in the last join of f_c, shallow to deep; `layers[0]` names the deepest column's layers."""
    if c == 1:
        return [conv(state, next(layers[0]), x)]
    halfway = fractal_paths(state, layers, c - 1, x)
    deep = fractal_paths(state, layers, c - 1, sum(halfway) / len(halfway))
    return [conv(state, next(layers[c - 1]), x), *deep]


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_every_map_equals_the_recursion(columns: int) -> None:
    torch.manual_seed(0)
    net = set_norms(create_model("fractalnet20_cifar", num_columns=columns, **SMALL))
    state = net.state_dict()
    x = torch.randn(2, 3, 32, 32)
    expected, y = [], x
    for i in range(5):
        layers = [
            iter([f"stages.{i}.columns.{c}.{j}" for j in range(2**c)]) for c in reversed(range(columns))
        ]
        pooled = [F.max_pool2d(path, 2) for path in fractal_paths(state, layers, columns, y)]
        y = sum(pooled) / columns
        assert all(next(column, None) is None for column in layers)
        expected.append(y)
    expected.append(y[:, :, 0, 0] @ state["head.fc.weight"].T + state["head.fc.bias"])
    for ours, theirs in zip([*net.forward_stages(x), net(x)], expected, strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_order_of_a_layer_is_convolution_dropout_norm_relu() -> None:
    net = meta_model("fractalnet20_cifar")
    layer = net.stages[3].columns[1][0]
    assert [type(part) for part in layer] == [nn.Conv2d, nn.Dropout, nn.BatchNorm2d, nn.ReLU]
    rates = [[d.p for d in stage.modules() if isinstance(d, nn.Dropout)] for stage in net.stages]
    assert rates == [[rate] * 7 for rate in (0.0, 0.1, 0.2, 0.3, 0.4)]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_column_is_a_plain_network_of_the_same_weights(index: int) -> None:
    torch.manual_seed(0)
    net = set_norms(create_model("fractalnet20_cifar", **SMALL))
    column, state = net.column(index), net.state_dict()
    x = y = torch.randn(2, 3, 32, 32)
    maps = column.forward_stages(x)
    for i in range(5):
        for j in range(2**index):
            y = conv(state, f"stages.{i}.columns.{index}.{j}", y)
        y = F.max_pool2d(y, 2)
        torch.testing.assert_close(maps[i], y, rtol=1e-4, atol=1e-5)
    assert {id(p) for p in column.parameters()} < {id(p) for p in net.parameters()}
    assert torch.equal(column(x), column.forward_head(maps[-1]))
    assert column.name == f"fractalnet20_cifar.column({index})"
    torch.export.export(column, (x,))


def test_training_a_column_trains_the_network() -> None:
    net = create_model("fractalnet20_cifar", **SMALL)
    column = net.column(-1)
    assert column.training
    column(torch.randn(2, 3, 32, 32)).sum().backward()
    trained = {path for path, p in net.named_parameters() if p.grad is not None}
    assert trained == {path for path, _ in net.named_parameters() if ".columns.2." in path or "head" in path}
    column.reset_classifier(7)
    assert net(torch.randn(2, 3, 32, 32)).shape == column(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("columns", [range(1, 3), range(3), range(4)], ids=["2", "3", "4"])
def test_local_drop_path_keeps_at_least_one_and_the_mean_of_the_rest(columns: range) -> None:
    torch.manual_seed(0)
    rate, batch, num = 0.6, 40_000, len(columns)
    join = FractalJoin(columns, rate)
    weights = join.sample(torch.empty(batch, 1), torch.full((batch,), -1))
    kept = weights > 0
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(batch))
    assert kept.any(dim=0).all()
    torch.testing.assert_close(weights, kept / kept.sum(dim=0))
    # Kept by its own draw, or the chosen survivor of a sample that lost all.
    expected = (1 - rate) + rate**num / num
    assert kept.float().mean(dim=1).tolist() == pytest.approx([expected] * num, abs=0.01)
    alone = (kept.sum(dim=0) == 1).float().mean().item()
    assert alone == pytest.approx(num * (1 - rate) * rate ** (num - 1) + rate**num, abs=0.01)


def test_join_weighs_the_paths_as_drawn() -> None:
    join = FractalJoin(range(1, 3), 0.0)
    a, b = torch.randn(2, 3, 4, 5, 5)
    out = join([a, b], torch.tensor([-1, 1, 2]))
    torch.testing.assert_close(out, torch.stack([(a[0] + b[0]) / 2, a[1], b[2]]))


def test_global_drop_path_leaves_one_column_of_the_whole_network() -> None:
    torch.manual_seed(0)
    net = set_norms(create_model("fractalnet40_cifar", **SMALL))
    x = torch.randn(4, 3, 32, 32)
    y = x
    for stage in net.stages:
        y = stage(y, torch.tensor([2, 0, 3, 1]))
    expected = torch.cat([net.column(c).forward_features(x[i : i + 1]) for i, c in enumerate([2, 0, 3, 1])])
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_share_of_samples_with_global_drop_path(share: float) -> None:
    torch.manual_seed(0)
    net = create_model("fractalnet20_cifar", global_share=share, **SMALL)
    chosen = net.choose_columns(torch.empty(30_000, 1))
    shares = [(chosen == c).float().mean().item() for c in (-1, 0, 1, 2)]
    assert shares == pytest.approx([1 - share, share / 3, share / 3, share / 3], abs=0.01)


def test_drop_path_is_for_training_only_and_can_be_left_out() -> None:
    torch.manual_seed(0)
    no_dropout = {"block_drop_rates": (0.0,) * 5}
    x = torch.randn(4, 3, 32, 32)
    net = create_model("fractalnet20_cifar", drop_path_rate=0.3, **SMALL, **no_dropout)
    assert {join.drop_rate for join in net.modules() if isinstance(join, FractalJoin)} == {0.3}
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    whole = create_model("fractalnet20_cifar", drop_path_rate=0.0, **SMALL, **no_dropout)
    assert torch.equal(whole(x), whole(x))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_drop_path_leaves_the_network_traceable(training: bool) -> None:
    torch.manual_seed(0)
    net = create_model("fractalnet20_cifar", **SMALL).train(training)
    x = torch.randn(2, 3, 32, 32)
    traced = torch.fx.symbolic_trace(net)
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = net(x)
        torch.manual_seed(seed)
        torch.testing.assert_close(traced(x), expected)


def test_layer_by_layer_initialisation_is_caffes_xavier() -> None:
    torch.manual_seed(0)
    net = create_model("fractalnet20_cifar")
    for path, fan_in in {"stages.1.columns.2.0": 64 * 9, "stages.1.columns.2.1": 128 * 9}.items():
        layer = net.get_submodule(path).conv
        assert layer.weight.abs().max().item() == pytest.approx(math.sqrt(3 / fan_in), rel=0.01)
        assert layer.weight.std().item() == pytest.approx(math.sqrt(1 / fan_in), rel=0.01)
        assert layer.bias.count_nonzero() == 0
    assert net.head.fc.weight.abs().max().item() == pytest.approx(math.sqrt(3 / 512), rel=0.01)


def test_pooling_can_be_chosen_for_larger_images() -> None:
    net = create_model("fractalnet20_cifar", global_pool="max", **SMALL).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(
        net.forward_head(net.forward_features(x), pre_logits=True), net.forward_features(x).amax((2, 3))
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param(
            {"num_columns": 0}, "`num_columns`=0; expected a whole number of at least 1", id="columns"
        ),
        pytest.param({"widths": (8, 8)}, r"`widths`=\(8, 8\); expected a tuple of 5", id="blocks"),
        pytest.param({"widths": (8, 8, 8, 8, 0)}, "`widths`=0; expected a whole number", id="width"),
        pytest.param(
            {"block_drop_rates": 0.5}, "`block_drop_rates`=0.5; expected a tuple of 5", id="dropouts"
        ),
        pytest.param(
            {"block_drop_rates": (0, 0, 0, 0, 1)}, "`block_drop_rates`=1; expected a rate", id="dropout"
        ),
        pytest.param({"global_share": 1.5}, "`global_share`=1.5; expected a number from 0 to 1", id="share"),
    ],
)
def test_bad_options_are_refused(option: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        meta_model("fractalnet20_cifar", **option)


def test_column_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`index`=3; expected a column in -3..2"):
        meta_model("fractalnet20_cifar").column(3)
