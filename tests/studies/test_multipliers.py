"""MobileNet's multipliers: the paper's costs, the laws, the verdict on made-up errors, and a tiny run."""

from typing import Any

import pytest

from convatlas.studies.modules.multipliers import (
    MultipliersKnobs,
    compare_with_law,
    count,
    count_exactly,
    sheet_of,
    split,
)
from convatlas.studies.verdict import Verdict


@pytest.mark.parametrize(
    ("alpha", "px", "macs"),
    [(1.0, 224, 568_740_352), (0.5, 224, 149_497_088), (0.25, 224, 41_030_272), (0.5, 160, 76_524_800)],
    ids=["full", "half as wide", "a quarter", "half as wide at 160 px"],
)
def test_exact_costs(alpha: float, px: int, macs: int) -> None:
    assert sheet_of(alpha, px).macs == macs


def test_the_share_of_pointwise_convolutions() -> None:
    # The paper's Table 2: 94.86 % of the multiply-adds are in 1x1 convolutions.
    pointwise, rest = split(224)
    assert 100.0 * pointwise / (pointwise + rest) == pytest.approx(94.86, abs=0.005)


def test_all_facts_hold() -> None:
    assert {fact.verdict for fact in (*count(), *count_exactly(), *compare_with_law())} == {Verdict.HOLDS}


def test_the_law_of_alpha_is_rougher_than_that_of_rho() -> None:
    off = {fact.name.partition(":")[0]: abs(fact.value / fact.claimed - 1.0) for fact in compare_with_law()}
    assert off["alpha 0.25, 224 px"] > 0.1
    assert off["alpha 1, 128 px"] < 0.01


@pytest.mark.parametrize(
    "knobs", [{"alpha": 1.0}, {"rho": 1.5}, {"rho": 0.0}], ids=["one", "above one", "zero"]
)
def test_bad_multipliers(knobs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected a share between 0 and 1"):
        MultipliersKnobs(**knobs)
