"""Sizes against what others counted, and the analysis on made-up networks of either side."""

import statistics

import pytest

from convatlas.catalog.cards import find_card
from convatlas.studies.networks.atlas_chart import Point, chart, deal_out, explains, jackknife

GMAC = 1_000_000_000


def made(count: int = 24, *, wiggle: float = 0.0, curve: bool = True) -> list[Point]:
    """Networks whose time is their multiply-adds, but for a wiggle, and whose parameters alternate."""
    points: list[Point] = []
    for i in range(count):
        seconds = 0.01 * (i + 1) * (1.0 + wiggle * (-1.0) ** i)
        points.append(
            Point(
                name=f"net{i}",
                year=2015,
                top1=80.0 - 0.1 / seconds if curve else 50.0 + 40.0 * seconds,
                protocol="",
                params=10**6 * (1 + 7 * (i % 3)),
                macs=(i + 1) * GMAC,
                activations=10**6 * (1 + i % 5),
                seconds=seconds,
            )
        )
    return points


def test_pseudo_values_of_a_mean_are_the_means_of_the_groups() -> None:
    # Tukey 1958. The groups are of equal size, so that the mean of their means is the mean of all.
    points = made(12)
    values = jackknife(points, 4, 7)(lambda some: statistics.fmean(p.macs for p in some))
    assert statistics.fmean(values) == pytest.approx(6.5 * GMAC)
    groups = [statistics.fmean(p.macs for p in group) for group in deal_out(points, 4, 7)]
    assert values == pytest.approx(groups)


def test_one_group_gives_the_statistic_itself() -> None:
    assert jackknife(made(4), 1, 0)(len) == (4,)


def test_explained_share_by_hand() -> None:
    # Against 1, 2, 3, 4 the numbers 1, 3, 2, 4 have the correlation 0.8.
    points = [Point("", 0, top1, "", 1, macs, 1) for top1, macs in ((1, 1), (3, 2), (2, 3), (4, 4))]
    assert explains(points, lambda p: p.macs, lambda p: p.top1) == pytest.approx(0.64)


@pytest.mark.parametrize(
    ("name", "params", "macs", "top1"),
    [
        # torchvision's counts, without the side classifiers that only training uses.
        ("googlenet_tv", 6_624_904, 1_498_376_192, 69.778),
        ("alexnet", 60_965_224, None, 59.3),  # Krizhevsky et al. 2012, grouped; 40.7 % error of one network
    ],
)
def test_points_of_the_chart(name: str, params: int, macs: int | None, top1: float) -> None:
    (point,) = chart([name])
    assert point.params == params
    assert macs is None or point.macs == macs
    assert point.top1 == pytest.approx(top1)
    assert point.density == pytest.approx(top1 / (params / 1e6))
    assert point.year == find_card(name).paper.year


def test_networks_without_a_published_accuracy() -> None:
    with pytest.raises(ValueError, match="none has a published ImageNet accuracy"):
        chart(["lenet5", "resnet20_cifar"])
