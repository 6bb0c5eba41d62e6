"""LeNet-5 against LeCun et al. 1998, Section II.B."""

import math

import pytest
import torch

from convatlas import create_model
from convatlas.models.lenet import C3_INPUTS, RbfOutput, Subsampling, TableConv, class_codes, rbf_loss
from counting import MacCounter


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_of_the_printed_layers() -> None:
    net = create_model("lenet5_1998")
    (c1, s2), (c3, s4) = net.stages
    counts = [count(part) for part in (c1, s2, c3, s4, net.head.c5, net.head.f6)]
    assert counts == [156, 12, 1_516, 32, 48_120, 10_164]  # Section II.B, layer by layer
    assert count(net) == 60_000


def test_parameters_of_the_taught_network() -> None:
    expected = 6 * 26 + 16 * (6 * 25 + 1) + 120 * (16 * 25 + 1) + 84 * 121 + 10 * 85
    assert count(create_model("lenet5")) == expected == 61_706


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        pytest.param("lenet5", 28 * 28 * 6 * 25 + 100 * 16 * 150 + 120 * 400 + 84 * 120 + 840, id="taught"),
        pytest.param("lenet5_1998", 325_680, id="1998"),
    ],
)
def test_macs(name: str, macs: int) -> None:
    with MacCounter() as counter:
        create_model(name)(torch.zeros(1, 1, 32, 32))
    assert counter.macs == macs


def test_connection_table_is_table_one() -> None:
    flat = [inputs for group in C3_INPUTS for inputs in group]
    # Table I as printed: for each row (map of S2), the columns (maps of C3) that are marked.
    rows = [
        {0, 4, 5, 6, 9, 10, 11, 12, 14, 15},
        {0, 1, 5, 6, 7, 10, 11, 12, 13, 15},
        {0, 1, 2, 6, 7, 8, 11, 13, 14, 15},
        {1, 2, 3, 6, 7, 8, 9, 12, 14, 15},
        {2, 3, 4, 7, 8, 9, 10, 12, 13, 15},
        {3, 4, 5, 8, 9, 10, 11, 13, 14, 15},
    ]
    assert [{c for c, inputs in enumerate(flat) if s in inputs} for s in range(6)] == rows
    assert sum(len(inputs) for inputs in flat) == 60


def test_table_convolution_sees_only_its_maps() -> None:
    layer = TableConv()
    x = torch.randn(1, 6, 14, 14)
    before = layer(x)
    changed = x.clone()
    changed[:, 3] += 1.0  # row 3 of Table I
    moved = (layer(changed) - before).abs().amax(dim=(0, 2, 3)) > 1e-4
    assert set(moved.nonzero().flatten().tolist()) == {1, 2, 3, 6, 7, 8, 9, 12, 14, 15}


def test_subsampling_is_sum_times_coefficient_plus_bias() -> None:
    layer = Subsampling(1)
    torch.nn.init.constant_(layer.coefficient, 0.5)
    torch.nn.init.constant_(layer.bias, 0.2)
    x = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    assert layer(x).item() == pytest.approx(1.7159 * math.tanh(2 / 3 * (0.5 * 1.0 + 0.2)), abs=1e-6)


def test_squashing_fixes_plus_and_minus_one() -> None:
    act = create_model("lenet5_1998").head.act
    assert act(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([1.0, -1.0], abs=1e-4)


def test_codes_are_distinct_bitmaps_of_ones_and_minus_ones() -> None:
    codes = class_codes(10)
    assert codes.shape == (10, 84)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    assert len(codes.unique(dim=0)) == 10


def test_rbf_output_is_negated_squared_distance() -> None:
    layer = RbfOutput(10)
    layer.reset_parameters()
    x = torch.randn(3, 84)
    expected = [
        [-sum((a - b) ** 2 for a, b in zip(row, code, strict=True)) for code in class_codes(10).tolist()]
        for row in x.tolist()
    ]
    torch.testing.assert_close(layer(x), torch.tensor(expected), rtol=1e-4, atol=1e-4)
    assert layer(class_codes(10)).argmax(dim=1).tolist() == list(range(10))


def test_rbf_loss_is_equation_nine() -> None:
    distances = [[1.0, 2.0, 3.0], [0.5, 4.0, 0.2]]
    target = [0, 2]
    expected = (
        sum(
            y[t] + math.log(math.exp(-0.3) + sum(math.exp(-d) for d in y))
            for y, t in zip(distances, target, strict=True)
        )
        / 2
    )
    loss = rbf_loss(-torch.tensor(distances), torch.tensor(target), rubbish_distance=0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_codes_for_other_class_counts_do_not_change() -> None:
    first, second = (create_model("lenet5_1998", num_classes=26) for _ in range(2))
    assert torch.equal(first.head.fc.codes, second.head.fc.codes)
    assert len(first.head.fc.codes.unique(dim=0)) == 26


def test_initial_weights_follow_appendix_a() -> None:
    net = create_model("lenet5_1998")
    assert net.head.f6.weight.abs().max().item() == pytest.approx(2.4 / 120, rel=0.01)
    assert net.head.c5.conv.weight.abs().max().item() == pytest.approx(2.4 / 400, rel=0.01)
    assert net.head.f6.bias.abs().max().item() == 0.0


def test_larger_images_are_seen_at_several_places() -> None:
    net = create_model("lenet5").eval()
    x = torch.randn(1, 1, 36, 36)
    assert net.forward_features(x).shape == (1, 16, 6, 6)
    assert net(x).shape == (1, 10)


def test_dropout_is_before_the_output_layer() -> None:
    net = create_model("lenet5", drop_rate=0.5)
    x = torch.randn(1, 1, 32, 32)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_global_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="lenet5 has no option `global_pool`"):
        create_model("lenet5", global_pool="avg")
    with pytest.raises(ValueError, match="LeNet-5 has no global pooling"):
        create_model("lenet5").reset_classifier(5, global_pool="max")
