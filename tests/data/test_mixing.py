from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from convatlas.data.augment import Augment
from convatlas.data.counter_random import uniform
from convatlas.data.mixing import beta, mix

KINDS = {
    "mixup": Augment(mixup=0.4),
    "cutmix": Augment(cutmix=1.0),
    "both": Augment(mixup=0.2, cutmix=1.0),
}


def flat_images(count: int, side: int = 8) -> Tensor:
    """The image of place i is i everywhere: (count, 2, side, side)."""
    return (
        torch.arange(count, dtype=torch.float32)[:, None, None, None]
        .expand(count, 2, side, side)
        .contiguous()
    )


def run(
    kind: str, images: Tensor, labels: Tensor, samples: np.ndarray, num_classes: int = 5
) -> tuple[Tensor, Tensor]:
    return mix(images, labels, samples, augment=KINDS[kind], seed=1, epoch=2, num_classes=num_classes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "cuts", [[0, 3, 11], [0, 1, 2, 11], list(range(12))], ids=["3+8", "1+1+9", "singles"]
)
def test_a_batch_may_be_cut_anywhere(kind: str, cuts: list[int]) -> None:
    images, labels = torch.randn(12, 3, 6, 5), torch.arange(12) % 5
    samples = np.random.default_rng(0).permutation(100)[:12]
    whole = run(kind, images, labels, samples)
    parts = [run(kind, images[a : b + 1], labels[a : b + 1], samples[a : b + 1]) for a, b in pairwise(cuts)]
    for i in range(2):
        assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


def test_mixup_blends_image_and_target_by_one_share() -> None:
    images, labels = flat_images(9), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2, 3])
    x, targets = run("mixup", images, labels, np.arange(9))
    # Between the images i and i + 1 of values i and i + 1 lies i + (1 - share).
    shares = 1.0 - (x[:, 0, 0, 0] - torch.arange(8))
    assert ((shares > 0.0) & (shares < 1.0)).all()
    assert len(shares.unique()) == 8
    assert (x.std(dim=(1, 2, 3)) < 1e-6).all()
    for i in range(8):
        expected = torch.zeros(5)
        expected[labels[i]] += shares[i]
        expected[labels[i + 1]] += 1.0 - shares[i]
        torch.testing.assert_close(targets[i], expected, rtol=0, atol=1e-5)


def test_cutmix_pastes_a_box_and_weighs_the_target_by_its_area() -> None:
    count, side = 300, 16
    images, labels = flat_images(count + 1, side), torch.arange(count + 1) % 5
    x, targets = run("cutmix", images, labels, np.arange(count + 1))
    pasted = x[:, 0] - torch.arange(count)[:, None, None]
    assert set(pasted.unique().tolist()) == {0.0, 1.0}
    heights, widths = pasted.any(dim=2).sum(dim=1), pasted.any(dim=1).sum(dim=1)
    area = pasted.sum(dim=(1, 2))
    assert torch.equal(area, (heights * widths).float())
    torch.testing.assert_close(
        targets[torch.arange(count), labels[:-1]], 1.0 - area / side**2, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(count))
    # A box that nothing cuts off is a square, since the image is one.
    inside = (pasted[:, 0].sum(dim=1) + pasted[:, -1].sum(dim=1) + pasted[:, :, [0, -1]].sum(dim=(1, 2))) == 0
    assert inside.any()
    assert torch.equal(heights[inside], widths[inside])


def test_with_both_half_of_the_images_get_each() -> None:
    count = 4000
    x, _ = run(
        "both", flat_images(count + 1, 4), torch.zeros(count + 1, dtype=torch.int64), np.arange(count + 1)
    )
    shares = (x[:, 0] - torch.arange(count)[:, None, None]).flatten(1)
    # Mixup gives one share to all px; cutmix 0 or 1 to each.
    is_mixup = ((shares > 1e-3) & (shares < 1 - 1e-3)).any(dim=1)
    # A share of Beta(0.2, 0.2) lies within 0.001 of 0 or 1 with a probability of 24 %: like cutmix.
    assert 0.34 < is_mixup.double().mean() < 0.42


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    ours = np.sort(beta(uniform(0, 0, np.arange(20_000), "beta", 128), alpha))
    theirs = np.sort(np.random.default_rng(0).beta(alpha, alpha, 200_000))
    places = np.linspace(0.0, 1.0, 101)
    difference = np.searchsorted(ours, places) / len(ours) - np.searchsorted(theirs, places) / len(theirs)
    assert np.abs(difference).max() < 0.0145  # 1.95 sqrt(1 / 20,000 + 1 / 200,000): 99.9 % of Kolmogorov's


def test_no_mixing_keeps_all() -> None:
    assert beta(np.full((3, 128), 0.5), 0.0).tolist() == [1.0, 1.0, 1.0]
