"""Operations and cells of searched networks."""

import pytest
import torch
from torch import nn

from convatlas.blocks.cell import Cell, Edge, Genotype
from convatlas.blocks.cell_ops import OPERATIONS, FactorizedReduction, SamePool, Site


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("chans", [(4, 4), (4, 6)], ids=["same", "more"])
@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_makes_the_channels_and_halves_rounding_up(
    op: str, chans: tuple[int, int], stride: int
) -> None:
    module = OPERATIONS[op](Site(*chans, stride, nn.BatchNorm2d, False))
    for size in (8, 9):
        out = module(torch.randn(2, chans[0], size, size))
        assert out.shape == (2, chans[1], -(-size // stride), -(-size // stride))


@pytest.mark.parametrize("op", OPERATIONS)
def test_no_operation_changes_its_input(op: str) -> None:
    x = torch.randn(2, 4, 6, 6)
    before = x.clone()
    OPERATIONS[op](Site(4, 4, 1, nn.BatchNorm2d, False))(x)
    assert torch.equal(x, before)


def pool_by_hand(x: torch.Tensor, kind: str, size: int, stride: int) -> list[list[float]]:
    """TensorFlow's "SAME": windows that leave the odd px at the end, and only px of the image in them."""
    height = x.shape[0]
    outputs = -(-height // stride)
    before = max((outputs - 1) * stride + size - height, 0) // 2
    rows = []
    for i in range(outputs):
        row = []
        for j in range(outputs):
            top, left = i * stride - before, j * stride - before
            window = x[max(top, 0) : top + size, max(left, 0) : left + size]
            row.append(float(window.mean() if kind == "mean" else window.max()))
        rows.append(row)
    return rows


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kind", "kernel"), [("mean", 3), ("max", 3), ("max", 5), ("max", 7)])
def test_pools_against_windows_by_hand(kind: str, kernel: int, stride: int, size: int) -> None:
    x = torch.randn(size, size) - 3.0  # Negative, so that a padding of zeros would win a maximum.
    out = SamePool(kind, kernel, stride)(x[None, None])[0, 0]
    assert torch.allclose(out, torch.tensor(pool_by_hand(x, kind, kernel, stride)), atol=1e-6)


def test_counted_padding_shrinks_the_mean_at_the_border() -> None:
    ones = torch.ones(1, 1, 4, 4)
    out = SamePool("mean", 3, 2, counts_padding=True)(ones)[0, 0]
    assert torch.allclose(out, torch.tensor([[1.0, 6 / 9], [6 / 9, 4 / 9]]))


@pytest.mark.parametrize("size", [4, 5])
def test_factorised_reduction_sees_every_px(size: int) -> None:
    layer = FactorizedReduction(1, 2, lambda _: nn.Identity())
    nn.init.ones_(layer.even.weight)
    nn.init.ones_(layer.odd.weight)
    x = torch.arange(1.0, size * size + 1).reshape(1, 1, size, size)
    out = layer(x)
    assert torch.equal(out[0, 0], x[0, 0, ::2, ::2])
    shifted = torch.zeros(-(-size // 2), -(-size // 2))
    odd = x[0, 0, 1::2, 1::2]
    shifted[: odd.shape[0], : odd.shape[1]] = odd
    assert torch.equal(out[0, 1], shifted)


def test_a_cell_sums_and_concatenates_as_its_genotype_says() -> None:
    genotype = Genotype(
        nodes=((Edge("identity", 0), Edge("identity", 1)), (Edge("identity", 2), Edge("identity", 0))),
        concat=(1, 3),
    )
    cell = Cell(genotype, 2, 2, 2)
    cell.project, cell.project_prev = nn.Identity(), nn.Identity()
    x, prev = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    assert cell.out_chans == 4
    assert torch.allclose(cell(x, prev), torch.cat([prev, x + prev + x], dim=1))


@pytest.mark.parametrize(
    ("nodes", "concat", "message"),
    [
        (((Edge("sep3", 0),),), (2,), "`nodes`.0.: unknown operation 'sep3'; allowed are identity, conv1x1"),
        (((Edge("identity", 2),),), (2,), "`nodes`.0. reads state 2; it may read 0 to 1"),
        (((),), (2,), "`nodes`.0. is empty"),
        (((Edge("identity", 0),),), (3,), r"`concat`=\(3,\); expected at least one state of 0 to 2"),
        (((Edge("identity", 0),),), (), r"`concat`=\(\); expected at least one state"),
    ],
    ids=["operation", "state", "empty node", "concat", "empty concat"],
)
def test_wrong_genotypes(nodes: tuple[tuple[Edge, ...], ...], concat: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Genotype(nodes=nodes, concat=concat)
