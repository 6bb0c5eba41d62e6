"""Cardinality: costs by the paper's formula, the verdict on made-up errors, and a tiny run."""

from pathlib import Path
from typing import Any

import pytest

from convatlas.studies.cardinality import (
    WIDTHS,
    CardinalityKnobs,
    block_weights,
    compare,
    cost,
    count,
    find,
)
from convatlas.studies.context import StudyContext, run_study
from convatlas.studies.verdict import Verdict, conclude

DIGITS: dict[str, Any] = {"data": "digits", "images": 60, "test_images": 40, "px": 8}


@pytest.mark.parametrize(
    ("cardinality", "weights"),
    [(1, 69_632), (2, 69_760), (4, 69_888), (8, 71_456), (32, 70_144)],
    ids=["1x64d", "2x40d", "4x24d", "8x14d", "32x4d"],
)
def test_weights_of_a_block(cardinality: int, weights: int) -> None:
    width = WIDTHS[cardinality]
    assert cardinality * (256 * width + 9 * width**2 + 256 * width) == weights
    assert block_weights(cardinality) == weights


def test_all_blocks_have_about_70_thousand() -> None:
    assert {fact.verdict for fact in count()} == {Verdict.HOLDS}


def test_small_networks_cost_the_same() -> None:
    ctx = StudyContext(knobs=CardinalityKnobs(**DIGITS), runs=Path("unused"), log=print)
    assert {fact.verdict for fact in compare({c: cost(ctx, c) for c in (1, 2, 4, 32)})} == {Verdict.HOLDS}


def test_costs_that_differ_are_no_comparison() -> None:
    facts = compare({1: (1000, 2000), 32: (1100, 2000)})
    assert [fact.verdict for fact in facts] == [Verdict.FAILS, Verdict.HOLDS]


@pytest.mark.parametrize(
    ("many", "verdict"),
    [(9.0, Verdict.HOLDS), (11.0, Verdict.FAILS), (10.0, Verdict.OPEN)],
    ids=["better", "worse", "within noise"],
)
def test_the_most_groups_decide(many: float, verdict: Verdict) -> None:
    noise = (0.1, 0.0, -0.1)
    found = find({1: [10.0] * 3, 4: [20.0, 20.1, 20.2], 32: [many + n for n in noise]})
    assert conclude(found) is verdict
    assert found[1].published == "1.7 on ImageNet"


def test_tiny_run(tmp_path: Path) -> None:
    said: list[str] = []
    folder, record = run_study(
        "cardinality",
        out=tmp_path,
        log=said.append,
        seeds=1,
        epochs=1,
        blocks=1,
        cardinalities=[1, 2],
        stage_widths=[16],
        **DIGITS,
    )
    assert len(said) == 2
    assert record["findings"][0]["published"] == ""
    assert (folder / "cardinality.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"cardinalities": (1, 3)}, r"`cardinalities`=\[1, 3\]; expected two or more of 1, 2, 4, 8, 32"),
        ({"cardinalities": (1,)}, r"expected two or more"),
        ({"stage_widths": (16, 24)}, r"`stage_widths`=\[16, 24\]; expected multiples of 16"),
        ({"cardinalities": (1, 8)}, r"expected multiples of 32"),
    ],
    ids=["not in the table", "nothing to compare", "unequal costs", "unequal costs with 8"],
)
def test_bad_knobs(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CardinalityKnobs(**knobs)
