"""The gradient against one worked by hand, and the verdict on made-up results of either side."""

from pathlib import Path

import pytest
import torch
from torch import nn

from convatlas.studies.auxiliary_heads import Pair, SideNet, find, gradients
from convatlas.studies.context import run_study
from convatlas.studies.verdict import Verdict, conclude


def net(*, norm: bool = False, depth: int = 9) -> SideNet:
    torch.manual_seed(0)
    return SideNet(depth=depth, width=4, norm=norm, in_chans=1, num_classes=3)


def pairs(boost: float, gain: float) -> dict[bool, list[Pair]]:
    """Three seeds with a little noise: the first layer's gradient by a power of 2, points of error gained."""
    of_seeds = [
        Pair(((1.0, 1.0), (2.0 ** (boost + noise), 1.0)), (50.0, 50.0 - gain - noise))
        for noise in (-0.1, 0.0, 0.1)
    ]
    without_effect = [Pair(((1.0, 1.0), (1.0, 1.0)), (20.0, 20.0 + noise)) for noise in (-0.1, 0.0, 0.1)]
    return {False: of_seeds, True: without_effect}


@pytest.mark.parametrize(
    ("boost", "gain", "verdict"),
    [
        (5.0, 10.0, Verdict.HOLDS),
        (5.0, 0.05, Verdict.OPEN),
        (5.0, -10.0, Verdict.FAILS),
        (0.2, 10.0, Verdict.FAILS),
    ],
    ids=["both", "no gain in accuracy", "a loss of accuracy", "no larger gradient"],
)
def test_verdict(boost: float, gain: float, verdict: Verdict) -> None:
    found = find(pairs(boost, gain))
    assert conclude(found) is verdict
    assert [effect.decides for effect in found] == [True, True, False, False]


def test_effects_are_paired_by_seed() -> None:
    boost, gain = find(pairs(5.0, 10.0))[:2]
    assert boost.values == pytest.approx((4.9, 5.0, 5.1))
    assert gain.values == pytest.approx((9.9, 10.0, 10.1))


def test_gradient_is_the_slope_of_the_loss() -> None:
    # Against a difference quotient of main loss + 0.3 (aux + aux), along the gradient of the first layer.
    images, labels = torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6) % 3
    made = net().double()
    slope = gradients(made, images, labels, 0.3)[0]
    weight = made.convolutions[0].weight

    def loss() -> torch.Tensor:
        prediction = made.forward_aux(images)
        parts = [nn.functional.cross_entropy(logits, labels) for logits in (prediction.main, *prediction.aux)]
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
    prediction = net(norm=True).forward_aux(torch.randn(2, 1, 14, 14))
    assert [tuple(logits.shape) for logits in (prediction.main, *prediction.aux)] == [(2, 3)] * 3


@pytest.mark.parametrize("depth", [0, 10])
def test_a_depth_that_has_no_thirds(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"`depth`={depth}; expected a multiple of 3"):
        run_study("auxiliary-heads", out="unused", depth=depth)


def test_the_whole_study_on_a_few_digits(tmp_path: Path) -> None:
    small = {"data": "digits", "images": 60, "test_images": 40, "px": 8, "depth": 3, "width": 4}
    folder, record = run_study("auxiliary-heads", out=tmp_path, seeds=2, epochs=1, **small)
    assert [len(entry["values"]) for entry in record["findings"]] == [2] * 4
    assert (folder / "auxiliary-heads.png").stat().st_size > 0
