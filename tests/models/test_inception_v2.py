"""BN-Inception against Ioffe and Szegedy 2015, and SE-BN-Inception against Hu et al. 2017."""

import pytest
import torch
from torch import nn

from convatlas import create_model
from convatlas.blocks.squeeze import SqueezeExcite
from counting import MacCounter, count_macs

# Figure 5: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool projection; and px of the output.
FIGURE_5 = [
    (64, 64, 64, 64, 96, 32, 28),
    (64, 64, 96, 64, 96, 64, 28),
    (0, 128, 160, 64, 96, 0, 14),
    (224, 64, 96, 96, 128, 128, 14),
    (192, 96, 128, 96, 128, 128, 14),
    (160, 128, 160, 128, 160, 128, 14),
    (96, 128, 192, 160, 192, 128, 14),
    (0, 128, 192, 192, 256, 0, 7),
    (352, 192, 320, 160, 224, 128, 7),
    (352, 192, 320, 192, 224, 128, 7),
]
MODULE_CHANS = [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]


def meta_model(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, **options).eval()


def count_params(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def derive() -> tuple[int, int]:
    """Convolutions' weights and channels, from the table, without the classifier."""
    weights = 49 * 3 * 64 + 64 * 64 + 9 * 64 * 192
    made = 64 + 64 + 192
    chans = 192
    for c1, r3, c3, rd, cd, project, _ in FIGURE_5:
        weights += chans * (c1 + r3 + rd + project) + 9 * (r3 * c3 + rd * cd + cd * cd)
        made += c1 + r3 + c3 + rd + 2 * cd + project
        chans = c1 + c3 + cd + (project or chans)
    return weights, made


def test_size_derived_from_figure_5() -> None:
    weights, made = derive()
    classifier = 1024 * 1000 + 1000
    assert made == 10_016  # The redundant biases of the public Caffe model.
    assert weights + 2 * made + classifier == 11_285_224
    assert count_params(meta_model("inception_v2", conv_bias=False)) == 11_285_224


def test_size_counted_elsewhere() -> None:
    # pytorchcv bninception = Cadene's, with biases in convolutions.
    net = meta_model("inception_v2")
    assert count_params(net) == 11_295_240
    assert count_macs(net) == 2_032_600_064


def test_tf_slim_widths_have_the_size_that_its_own_test_states() -> None:
    # inception_v2_test.py: 10,173,112 for the base, with shift, mean and variance for our scale and shift,
    # and a bias alone after the separable convolution.
    net = meta_model("inception_v2", conv_bias=False, separable_stem=True, tf_slim_widths=True)
    norms = [m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    ours = count_params(net) - count_params(net.head)
    assert ours + sum(norms) - 2 * 64 == 10_173_112
    assert net.feature_info.channels() == [64, 192, 320, 576, 1024]


def test_separable_stem_is_the_first_row_of_googlenets_table() -> None:
    # Printed there as 2.7K weights and 34M operations.
    stem = meta_model("inception_v2", conv_bias=False, separable_stem=True).stem
    weights = sum(m.weight.numel() for m in stem.modules() if isinstance(m, nn.Conv2d))
    assert weights == 7 * 7 * 3 * 8 + 24 * 64 == 2_712
    with MacCounter() as counter:
        stem(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.macs == 34_019_328


def test_gates_after_each_module() -> None:
    # SENet's Caffe model: C -> C / 16 -> C with biases, after all ten modules; no biases in convolutions.
    net = meta_model("se_inception_v2")
    gates = [m for m in net.modules() if isinstance(m, SqueezeExcite)]
    assert [g.expand.out_channels for g in gates] == MODULE_CHANS
    assert [g.reduce.out_channels for g in gates] == [16, 20, 36, 36, 36, 38, 38, 66, 64, 64]
    widths = [(c, c // 16) for c in MODULE_CHANS]
    assert count_params(net) == 11_285_224 + sum(2 * c * m + m + c for c, m in widths)
    assert count_macs(net) == 2_032_600_064 + sum(2 * c * m for c, m in widths)


@pytest.mark.parametrize("name", ["inception_v2", "se_inception_v2"])
def test_maps_of_figure_5(name: str) -> None:
    maps = meta_model(name).forward_stages(torch.empty(1, 3, 224, 224, device="meta"))
    shapes = [tuple(m.shape[1:]) for m in maps]
    assert shapes == [(64, 112, 112), (192, 56, 56), (320, 28, 28), (608, 14, 14), (1024, 7, 7)]


def test_pool_is_a_mean_except_in_5b() -> None:
    net = meta_model("inception_v2")
    pools = [
        type(block[0]["pool"][0])
        for stage in net.stages[1:]
        for block in stage
        if not isinstance(block, nn.MaxPool2d)
    ]
    passes = nn.Sequential
    mean = nn.AvgPool2d
    assert pools == [mean, mean, passes, mean, mean, mean, mean, passes, mean, nn.MaxPool2d]


def test_pool_that_strides_is_caffes_at_even_sizes_and_fits_at_odd_ones() -> None:
    pool = meta_model("inception_v2").stages[2][0][0]["pool"][0]
    x = torch.rand(2, 3, 28, 28)
    assert torch.equal(pool(x), nn.functional.max_pool2d(x, 3, stride=2, ceil_mode=True))
    assert pool(torch.rand(2, 3, 7, 9)).shape == (2, 3, 4, 5)


@pytest.mark.parametrize("size", [7, 15, 33, 50])
def test_odd_sizes_run(size: int) -> None:
    net = create_model("se_inception_v2", num_classes=3)
    assert net(torch.randn(2, 3, size, size)).shape == (2, 3)


def test_batch_norm_cancels_the_biases() -> None:
    net = create_model("inception_v2", num_classes=3, drop_rate=0.0).train()
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = net(x)
        net.stages[1][1][0]["conv3x3"][0].conv.bias.add_(1.0)
        assert torch.allclose(net(x), before, atol=1e-4)


def test_initial_weights() -> None:
    net = create_model("inception_v2")
    weight = net.stages[3][1][0]["conv3x3"][1].conv.weight  # 5a: 192 to 320 channels, 3x3
    assert weight.std().item() == pytest.approx((2 / (192 * 9)) ** 0.5, rel=0.02)
    assert net.head.fc.weight.std().item() == pytest.approx((2 / (1024 + 1000)) ** 0.5, rel=0.02)


def test_global_pool_max() -> None:
    net = create_model("inception_v2", num_classes=0, global_pool="max").eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x), net.forward_features(x).amax(dim=(2, 3)))


def test_refuses_a_negative_ratio() -> None:
    with pytest.raises(ValueError, match="`squeeze_ratio`=-1; expected a whole number of at least 0"):
        create_model("se_inception_v2", squeeze_ratio=-1)
