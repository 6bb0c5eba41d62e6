"""MobileNet's multipliers: the paper's costs, the laws, the verdict on made-up errors, and a tiny run."""

from pathlib import Path
from typing import Any

import pytest

from convatlas.studies.context import run_study
from convatlas.studies.multipliers import (
    MultipliersKnobs,
    Results,
    compare_with_law,
    count,
    count_exactly,
    find,
    sheet_of,
    split,
)
from convatlas.studies.verdict import Verdict, conclude


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
    ("narrow", "small", "verdict"),
    [
        (15.0, 12.0, Verdict.HOLDS),
        (9.0, 12.0, Verdict.FAILS),
        (15.0, 10.0, Verdict.OPEN),
    ],
    ids=["both cost", "narrower is better", "resolution within noise"],
)
def test_verdict(narrow: float, small: float, verdict: Verdict) -> None:
    noise = (0.1, 0.0, -0.1)
    results = Results(
        widths={1.0: [10.0] * 3, 0.5: [50.0] * 3, 0.25: [narrow + n for n in noise]},
        resolutions={1.0: [10.0] * 3, 0.5: [small + n for n in noise]},
        macs={},
    )
    assert conclude(find(results)) is verdict


def test_tiny_run(tmp_path: Path) -> None:
    said: list[str] = []
    folder, record = run_study(
        "multipliers",
        out=tmp_path,
        log=said.append,
        data="digits",
        images=40,
        test_images=40,
        px=16,
        epochs=1,
        seeds=1,
        alphas=[0.5, 0.25],
        rhos=[1.0, 0.5],
    )
    # The widest network at the largest size stands in both rows, and is trained once.
    assert len(said) == 4
    assert sum("was there" in line for line in said) == 1
    assert record["verdict"] == "no evidence at this budget"  # one seed
    assert (folder / "multipliers.png").stat().st_size > 0
    assert "| 0.5 | 0.5 (8 px) |" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    "knobs", [{"alphas": (1.0,)}, {"rhos": (0.5, 1.0)}, {"rhos": (1.0, 0.0)}], ids=["one", "rising", "zero"]
)
def test_bad_multipliers(knobs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected two or more above 0, the largest first"):
        MultipliersKnobs(**knobs)
