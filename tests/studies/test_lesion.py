"""Paths counted by hand, lesions that can be foretold, and the verdict on made-up networks of either kind."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas.blocks.residual import BasicBlock
from convatlas.models.registry import create_model
from convatlas.studies.residual.lesion import Lesions, facts
from convatlas.studies.residual.paths import (
    chain,
    disorder,
    gradient_shares,
    mean_length,
    parts_of,
    path_gradient,
    path_shares,
    swap,
    without,
)
from convatlas.studies.run import run_study
from convatlas.studies.verdict import Verdict


def lesions(
    residual: float, plain: float, noise: float, gradient: Sequence[float], slope: float = 5.0
) -> Lesions:
    """Errors after a lesion of networks with an error of 10 % before, of four parts each."""
    removed = tuple((k, 10.0 + slope * k + noise) for k in (1, 2, 3))
    return Lesions(
        before=(10.0, 10.0),
        single=((residual + noise,) * 4, (plain,) * 4),
        keeping=((True, True, False, True), (True, False, True, True)),
        removed=removed,
        swapped=tuple((k / 10.0, error) for k, error in removed),
        gradient=tuple(gradient),
    )


FADING = (1.0, 0.5, 0.2, 0.1, 0.05)


def test_a_part_that_strides_is_left_out_of_the_comparison() -> None:
    assert lesions(12.0, 85.0, 0.0, FADING).rises(0) == [2.0] * 3


def test_paths_are_counted_as_subsets_of_the_blocks() -> None:
    subsets = [sum(chosen) for chosen in itertools.product((0, 1), repeat=6)]
    assert path_shares(6) == [subsets.count(k) / 64 for k in range(7)]
    assert mean_length(path_shares(6)) == 3.0


def test_the_papers_share_of_short_paths() -> None:
    assert [fact.verdict for fact in facts()] == [Verdict.HOLDS] * 2


def test_gradient_shares_weigh_each_length_with_its_paths() -> None:
    # Two blocks: 1, 2 and 1 paths; gradients 4, 1 and 2.
    assert gradient_shares((4.0, 1.0, 2.0)) == pytest.approx((0.5, 0.25, 0.25))


@pytest.mark.parametrize(
    ("order", "expected"),
    [((0, 1, 2), 0.0), ((2, 1, 0), 1.0), ((1, 0, 2), 1 / 3)],
    ids=["same", "reversed", "two neighbours"],
)
def test_disorder(order: tuple[int, ...], expected: float) -> None:
    assert disorder(order) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "count", "striding"),
    [("resnet20_cifar", 9, {3, 6}), ("plain20_cifar", 18, {6, 12})],
    ids=["residual", "plain"],
)
def test_parts(name: str, count: int, striding: set[int]) -> None:
    net = create_model(name, in_chans=1).eval()
    parts = parts_of(net)
    x = torch.randn(2, 1, 8, 8)
    assert len(parts) == count
    assert {i for i, part in enumerate(parts) if not part.keeps_shape} == striding
    assert torch.equal(chain(net, [part.module for part in parts])(x), net(x))
    assert without(net, parts, range(count))(x).shape == (2, 10)


def test_a_removed_block_is_one_whose_branch_is_zero() -> None:
    net = create_model("resnet20_cifar", in_chans=1).eval()
    x, parts = torch.randn(2, 1, 8, 8), parts_of(net)
    found = without(net, parts, [1, 3])(x)
    for index in (1, 3):  # one that keeps the shape, one that strides
        nn.init.zeros_(parts[index].module.get_submodule("conv2.norm").get_parameter("weight"))
    assert torch.allclose(found, net(x), atol=1e-6)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected a network for CIFAR of blocks.*received a VGG"):
        parts_of(create_model("vgg11_bn"))


def test_swaps_stay_within_a_stage() -> None:
    parts = parts_of(create_model("resnet20_cifar", in_chans=1))
    order = swap(parts, 50, np.random.default_rng(0))
    assert sorted(order[:3]) == [0, 1, 2]
    assert [order[3], order[6]] == [3, 6]
    assert sorted(order[7:]) == [7, 8]
    assert order != sorted(order)


class Scale(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_the_gradient_of_a_path_is_the_product_of_its_branches() -> None:
    blocks: list[BasicBlock] = []
    for factor in (2.0, 3.0, 5.0):
        block = BasicBlock(1, 1, nn.Identity(), act=nn.Identity)
        block.conv1, block.conv2 = Scale(factor), Scale(1.0)  # type: ignore[assignment]
        blocks.append(block)
    net = nn.Module()
    net.stem, net.head = nn.Identity(), nn.Flatten()
    x, labels = torch.tensor([0.3, -0.2]).view(1, 2, 1, 1), torch.tensor([0])
    measure = path_gradient(net, blocks, x, labels)
    # Cross-entropy of the whole network's scores, (1 + 2)(1 + 3)(1 + 5) = 72 times the input.
    slope = (72.0 * x.flatten()).softmax(dim=0) - torch.tensor([1.0, 0.0])
    for chosen, product in (((), 1.0), ((0,), 2.0), ((1, 2), 15.0), ((0, 1, 2), 30.0)):
        assert measure(chosen) == pytest.approx(product * float(slope.norm()), rel=1e-5)


def test_two_networks_of_one_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`plain`='resnet20_cifar'; expected a plain network"):
        run_study(
            "lesion",
            out=tmp_path,
            data="digits",
            images=20,
            test_images=20,
            epochs=1,
            plain="resnet20_cifar",
            seeds=1,
        )
