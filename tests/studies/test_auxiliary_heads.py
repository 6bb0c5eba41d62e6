"""The gradient against one worked by hand, and the verdict on made-up results of either side."""

import pytest
import torch
from torch import nn

from convatlas.studies.modules.auxiliary_heads import SideNet, gradients
from convatlas.studies.run import run_study


def net(*, norm: bool = False, depth: int = 9) -> SideNet:
    torch.manual_seed(0)
    return SideNet(depth=depth, width=4, norm=norm, in_chans=1, num_classes=3)


def test_gradient_is_the_slope_of_the_loss() -> None:
    # Against a difference quotient of main loss + 0.3 (aux + aux), along the gradient of the first layer.
    images, labels = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    made = net().double()
    slope = gradients(made, images, labels, 0.3)[0]
    weight = made.convolutions[0].weight

    def loss() -> torch.Tensor:
        answer = made.forward_aux(images)
        parts = [nn.functional.cross_entropy(scores, labels) for scores in (answer.main, *answer.aux)]
        return parts[0] + 0.3 * (parts[1] + parts[2])

    (direction,) = torch.autograd.grad(loss(), [weight])
    step = 1e-5 * direction / direction.norm()
    with torch.no_grad():
        weight += step
        above = loss()
        weight -= 2.0 * step
        below = loss()
    assert slope == pytest.approx(float((above - below) / 2e-5) / weight.numel() ** 0.5, rel=1e-4)


def test_without_weight_the_side_classifiers_do_not_count() -> None:
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    made = net()
    (slopes,) = torch.autograd.grad(
        nn.functional.cross_entropy(made(images), labels), [made.convolutions[0].weight]
    )
    expected = float(slopes.square().mean().sqrt())
    assert gradients(net(), images, labels, 0.0)[0] == pytest.approx(expected, rel=1e-4)


def test_the_last_part_hears_only_the_main_loss() -> None:
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
    without, with_ = (gradients(net(), images, labels, weight) for weight in (0.0, 0.3))
    assert with_[6:] == pytest.approx(without[6:])
    assert all(a > b for a, b in zip(with_[:6], without[:6], strict=True))


def test_side_classifiers_score_all_classes() -> None:
    answer = net(norm=True).forward_aux(torch.randn(2, 1, 14, 14))
    assert [tuple(scores.shape) for scores in (answer.main, *answer.aux)] == [(2, 3)] * 3


@pytest.mark.parametrize("depth", [0, 10])
def test_a_depth_that_has_no_thirds(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"`depth`={depth}; expected a multiple of 3"):
        run_study("auxiliary-heads", out="unused", depth=depth)
