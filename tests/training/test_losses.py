import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from convatlas.models.network import AuxLogits
from convatlas.training.losses import aux_loss, balanced_weights, hinge_losses, make_loss
from convatlas.training.recipes.recipe import Recipe

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
LABELS = torch.tensor([0, 1])


def loss(class_weights: Tensor | None = None, **fields: Any) -> Any:
    return make_loss(Recipe(epochs=1, batch_size=1, lr=1.0, **fields), class_weights)


def test_softmax_by_hand() -> None:
    (a, b, c), (d, e, f) = LOGITS.tolist()
    first = math.log(math.exp(a) + math.exp(b) + math.exp(c)) - a
    second = math.log(math.exp(d) + math.exp(e) + math.exp(f)) - e
    assert loss()(LOGITS, LABELS).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_label_smoothing_spreads_a_share_over_all_classes() -> None:
    shares = torch.full((2, 3), 0.1 / 3) + 0.9 * F.one_hot(LABELS, 3)
    expected = -(shares * LOGITS.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss(label_smoothing=0.1)(LOGITS, LABELS), expected)


def test_smoothed_shares_equal_smoothed_classes() -> None:
    smooth, one_hot = loss(label_smoothing=0.1), F.one_hot(LABELS, 3).float()
    torch.testing.assert_close(smooth(LOGITS, one_hot), smooth(LOGITS, LABELS))


def test_a_mixture_has_the_mixture_of_the_losses() -> None:
    plain = loss()
    mixed = plain(LOGITS, 0.3 * F.one_hot(LABELS, 3).float() + 0.7 * F.one_hot(LABELS.flip(0), 3).float())
    torch.testing.assert_close(mixed, 0.3 * plain(LOGITS, LABELS) + 0.7 * plain(LOGITS, LABELS.flip(0)))


def test_hinge_of_the_courses_example() -> None:
    """Three images (columns) of a cat, a car and a frog: losses 2.9, 0 and 12.9, 5.27 on average."""
    logits = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
    labels = torch.tensor([0, 1, 2])
    torch.testing.assert_close(hinge_losses(logits, labels), torch.tensor([2.9, 0.0, 12.9]))
    assert loss(loss="hinge")(logits, labels).item() == pytest.approx(15.8 / 3)


def test_hinge_has_torchs_gradient() -> None:
    ours, theirs = (torch.randn(5, 4, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    labels = torch.tensor([0, 3, 1, 1, 2])
    loss(loss="hinge")(ours.requires_grad_(), labels).backward()
    (4 * F.multi_margin_loss(theirs.requires_grad_(), labels)).backward()  # torch divides by K
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_rbf_is_the_criterion_of_1998() -> None:
    """Equation 9 with j = 0.1: the distance to the right code, and log(e^-j + the sum of e^-distance)."""
    first = 1.0 + math.log(math.exp(-0.1) + math.exp(-1.0) + math.exp(-4.0))
    second = 2.0 + math.log(math.exp(-0.1) + math.exp(-9.0) + math.exp(-2.0))
    found = loss(loss="rbf")(-torch.tensor([[1.0, 4.0], [9.0, 2.0]]), torch.tensor([0, 1]))
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_balanced_weights_by_hand() -> None:
    weights = balanced_weights(torch.tensor([0, 0, 0, 2]), 3)
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 0.0, 2.0]))


@pytest.mark.parametrize("kind", ["softmax", "hinge"])
def test_class_weights_weigh_each_image(kind: str) -> None:
    weights = torch.tensor([0.5, 3.0, 1.0])
    single = [loss(loss=kind)(LOGITS[i : i + 1], LABELS[i : i + 1]) for i in (0, 1)]
    expected = (0.5 * single[0] + 3.0 * single[1]) / 2
    torch.testing.assert_close(loss(weights, loss=kind)(LOGITS, LABELS), expected)


def test_class_weights_of_a_mixture() -> None:
    weights = torch.tensor([0.5, 3.0, 1.0])
    shares = torch.tensor([[0.25, 0.75, 0.0]])
    expected = loss()(LOGITS[:1], shares) * (0.25 * 0.5 + 0.75 * 3.0)
    torch.testing.assert_close(loss(weights)(LOGITS[:1], shares), expected)


def test_auxiliary_losses_are_weighed_and_added() -> None:
    plain = loss()
    prediction = AuxLogits(LOGITS, (LOGITS.flip(1), LOGITS * 2))
    expected = plain(LOGITS, LABELS) + 0.3 * (plain(LOGITS.flip(1), LABELS) + plain(LOGITS * 2, LABELS))
    torch.testing.assert_close(aux_loss(plain, prediction, LABELS, 0.3), expected)
    assert aux_loss(plain, AuxLogits(LOGITS, ()), LABELS, 0.3) == plain(LOGITS, LABELS)
