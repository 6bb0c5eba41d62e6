"""Cardinality: costs by the paper's formula, the verdict on made-up errors, and a tiny run."""

from pathlib import Path
from typing import Any

import pytest

from convatlas.studies.context import StudyContext
from convatlas.studies.modules.cardinality import (
    WIDTHS,
    CardinalityKnobs,
    block_weights,
    compare_costs,
    cost,
    count,
)
from convatlas.studies.verdict import Verdict

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
    assert {fact.verdict for fact in compare_costs({c: cost(ctx, c) for c in (1, 2, 4)})} == {Verdict.HOLDS}


def test_costs_that_differ_are_no_comparison() -> None:
    facts = compare_costs({1: (1000, 2000), 32: (1100, 2000)})
    assert [fact.verdict for fact in facts] == [Verdict.FAILS, Verdict.HOLDS]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"many": 3}, r"`few`=1, `many`=3; expected two of 1, 2, 4, 8, 32 that rise"),
        ({"few": 4, "many": 2}, r"expected two of 1, 2, 4, 8, 32 that rise"),
        ({"many": 32}, r"groups of one channel are another kind of layer; .* must be at least 32"),
        ({"stage_widths": (16, 24)}, r"`stage_widths`=\[16, 24\]; expected multiples of 16"),
        ({"many": 8}, r"expected multiples of 32"),
    ],
    ids=["not in the table", "falling", "groups of one", "unequal costs", "unequal costs with 8"],
)
def test_bad_knobs(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CardinalityKnobs(**knobs)
