"""Residual blocks and their shortcuts."""

from functools import partial

import pytest
import torch
from torch import nn

from convatlas.blocks.residual import BasicBlock, Bottleneck, PlainBlock, make_shortcut, zero_last_norms
from convatlas.blocks.squeeze import SqueezeExcite
from peers import randomise_norms


@pytest.mark.parametrize("size", [6, 7], ids=["even", "odd"])
def test_option_a_subsamples_and_adds_zeros(size: int) -> None:
    shortcut = make_shortcut("A", 3, 8, 2)
    x = torch.randn(2, 3, size, size)
    y = shortcut(x)
    half = (size + 1) // 2
    assert y.shape == (2, 8, half, half)
    for row in range(half):
        torch.testing.assert_close(y[:, :3, row], x[:, :, 2 * row, ::2])
    assert y[:, 3:].count_nonzero() == 0
    assert not list(shortcut.parameters())


@pytest.mark.parametrize("kind", ["A", "B"])
def test_equal_shapes_pass_through(kind: str) -> None:
    x = torch.randn(1, 4, 3, 3)
    assert make_shortcut(kind, 4, 4)(x) is x


@pytest.mark.parametrize(
    ("kind", "in_chans", "out_chans", "stride", "weights"),
    [
        pytest.param("B", 4, 8, 1, 32, id="B-more-channels"),
        pytest.param("B", 4, 4, 2, 16, id="B-stride"),
        pytest.param("C", 4, 4, 1, 16, id="C-equal-shapes"),
        pytest.param("C", 4, 8, 2, 32, id="C-both"),
    ],
)
def test_projections(kind: str, in_chans: int, out_chans: int, stride: int, weights: int) -> None:
    shortcut = make_shortcut(kind, in_chans, out_chans, stride)
    assert sum(p.numel() for p in shortcut.parameters()) == weights + 2 * out_chans
    assert shortcut(torch.randn(2, in_chans, 6, 6)).shape == (2, out_chans, 6 // stride, 6 // stride)


def test_projection_without_norm_is_one_matrix() -> None:
    shortcut = make_shortcut("B", 4, 8, 2, norm=None)
    (weight,) = shortcut.parameters()
    x = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(shortcut(x)[0, :, 0, 0], weight.flatten(1) @ x[0, :, 0, 0])


@pytest.mark.parametrize("size", [6, 7], ids=["even", "odd"])
def test_wider_projection_keeps_the_size(size: int) -> None:
    x = torch.randn(1, 4, size, size)
    wide = make_shortcut("B", 4, 8, 2, kernel_size=3)
    assert wide(x).shape == make_shortcut("B", 4, 8, 2)(x).shape
    assert sum(p.numel() for p in wide.parameters()) == 9 * 32 + 16


def test_unknown_shortcut() -> None:
    with pytest.raises(ValueError, match=r'`shortcut`=\'D\'; allowed are "A" .* "B" .* "C"'):
        make_shortcut("D", 4, 4)


def test_basic_block_is_branch_plus_shortcut() -> None:
    torch.manual_seed(0)
    block = BasicBlock(
        4, 6, make_shortcut("B", 4, 6, 2), stride=2, squeeze=partial(SqueezeExcite, mid_chans=2)
    )
    randomise_norms(block)
    block.eval()
    x = torch.randn(2, 4, 7, 7)
    first = torch.relu(block.conv1.norm(block.conv1.conv(x)))
    branch = block.squeeze(block.conv2.norm(block.conv2.conv(first)))
    assert (branch < 0).any(), "the branch must end without an activation"
    torch.testing.assert_close(block(x), torch.relu(branch + block.shortcut.norm(block.shortcut.conv(x))))


@pytest.mark.parametrize(("stride_on", "strides"), [("1x1", (2, 1)), ("3x3", (1, 2))])
def test_bottleneck_strides_where_told(stride_on: str, strides: tuple[int, int]) -> None:
    block = Bottleneck(8, 4, 16, make_shortcut("B", 8, 16, 2), stride=2, stride_on=stride_on)
    assert (block.conv1.conv.stride[0], block.conv2.conv.stride[0]) == strides
    assert block(torch.randn(2, 8, 9, 9)).shape == (2, 16, 5, 5)


def test_bottleneck_is_branch_plus_shortcut() -> None:
    torch.manual_seed(0)
    block = Bottleneck(
        8,
        6,
        8,
        make_shortcut("B", 8, 8),
        groups=3,
        reduced_chans=3,
        squeeze=partial(SqueezeExcite, mid_chans=2),
    )
    randomise_norms(block)
    block.eval()
    assert block.conv2.conv.weight.shape == (6, 1, 3, 3)
    x = torch.randn(2, 8, 5, 5)
    y = torch.relu(block.conv1.norm(block.conv1.conv(x)))
    y = torch.relu(block.conv2.norm(block.conv2.conv(y)))
    y = block.squeeze(block.conv3.norm(block.conv3.conv(y)))
    torch.testing.assert_close(block(x), torch.relu(y + x))


def test_unknown_place_of_the_stride() -> None:
    with pytest.raises(ValueError, match=r'`stride_on`=\'2x2\'; allowed are "1x1" .* "3x3"'):
        Bottleneck(8, 4, 8, nn.Identity(), stride_on="2x2")


BLOCKS = {
    "basic": lambda rate: BasicBlock(4, 4, nn.Identity(), drop_path_rate=rate),
    "bottleneck": lambda rate: Bottleneck(4, 2, 4, nn.Identity(), drop_path_rate=rate),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_zeroed_last_norm_leaves_the_shortcut(kind: str) -> None:
    block = BLOCKS[kind](0.0)
    zero_last_norms(nn.Sequential(block))
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), torch.relu(x))


@pytest.mark.parametrize("kind", BLOCKS)
def test_dropped_samples_keep_the_shortcut_and_others_a_larger_branch(kind: str) -> None:
    torch.manual_seed(0)
    block, whole = BLOCKS[kind](0.75), BLOCKS[kind](0.0)
    whole.load_state_dict(block.state_dict())
    # The input is so positive that the last ReLU lets the branch be read off the output.
    x = torch.rand(64, 4, 5, 5) + 50.0
    branch = whole(x) - x
    change = block(x) - x
    dropped = change.flatten(1).abs().amax(dim=1) < 1e-4
    assert 30 < dropped.sum() < 62
    torch.testing.assert_close(change[~dropped], 4.0 * branch[~dropped], rtol=1e-3, atol=1e-3)
    block.eval(), whole.eval()
    assert torch.equal(block(x), whole(x))


def test_plain_block_has_no_shortcut() -> None:
    torch.manual_seed(0)
    block = PlainBlock(4, 6, stride=2).eval()
    x = torch.randn(2, 4, 7, 7)
    y = torch.relu(block.conv1.norm(block.conv1.conv(x)))
    torch.testing.assert_close(block(x), torch.relu(block.conv2.norm(block.conv2.conv(y))))
