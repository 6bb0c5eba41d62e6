"""Intervals and verdicts, on made-up results on either side of no effect."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convatlas.studies.verdict import Effect, Fact, Verdict, conclude, interval


def effect(*values: float, least: float = 0.0, decides: bool = True) -> Effect:
    return Effect(name="made up", values=values, unit="points", least=least, decides=decides)


def test_the_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found is not None
    # t(0.975; 2 degrees of freedom) = 4.302653 (any table); the standard error is 1 / sqrt(3).
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3.0), rel=1e-6)
    assert 2.0 - found.low == pytest.approx(4.302653 / math.sqrt(3.0), rel=1e-6)
    assert found.count == 3


@pytest.mark.parametrize("values", [(), (5.0,)], ids=["none", "one"])
def test_too_few_seeds_give_no_interval_and_no_verdict(values: tuple[float, ...]) -> None:
    assert interval(values) is None
    assert effect(*values).verdict is Verdict.OPEN


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"finite values; received \[1.0, nan\]"):
        interval([1.0, math.nan])


@pytest.mark.parametrize(
    ("values", "least", "verdict"),
    [
        ((5.0, 5.1, 4.9), 0.0, Verdict.HOLDS),
        ((-5.0, -5.1, -4.9), 0.0, Verdict.FAILS),
        ((5.0, -4.0, 1.0), 0.0, Verdict.OPEN),
        ((5.0, 5.1, 0.1), 0.0, Verdict.OPEN),  # all positive, yet the interval reaches below zero
        ((5.0, 5.1, 4.9), 5.5, Verdict.FAILS),
        ((5.0, 5.1, 4.9), 4.95, Verdict.OPEN),
        ((0.0, 0.0, 0.0), 0.0, Verdict.OPEN),
        ((2.0, 2.0, 2.0), 0.0, Verdict.HOLDS),
    ],
    ids=["clear", "opposite", "noise", "wide", "too small", "around the least", "nothing", "no spread"],
)
def test_verdict_of_an_effect(values: tuple[float, ...], least: float, verdict: Verdict) -> None:
    assert effect(*values, least=least).verdict is verdict


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8), st.floats(-10.0, 10.0))
def test_never_holds_where_the_interval_includes_no_effect(values: list[float], least: float) -> None:
    made = effect(*values, least=least)
    assert made.interval is not None
    if made.interval.low <= least:
        assert made.verdict is not Verdict.HOLDS
    if made.interval.high >= least:
        assert made.verdict is not Verdict.FAILS


def test_effect_size_is_mean_over_deviation() -> None:
    values = (1.0, 2.0, 4.0)
    assert effect(*values).size == pytest.approx(statistics.fmean(values) / statistics.stdev(values))
    assert effect(2.0, 2.0).size is None


@pytest.mark.parametrize(
    ("value", "tolerance", "verdict"),
    [(100.0, 0.0, Verdict.HOLDS), (101.0, 0.02, Verdict.HOLDS), (101.0, 0.005, Verdict.FAILS)],
    ids=["exact", "within", "beyond"],
)
def test_verdict_of_a_fact(value: float, tolerance: float, verdict: Verdict) -> None:
    assert Fact(name="made up", value=value, claimed=100.0, tolerance=tolerance).verdict is verdict


HOLDS, FAILS, OPEN = effect(5.0, 5.1), effect(-5.0, -5.1), effect(1.0, -1.0)


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([HOLDS, HOLDS], Verdict.HOLDS),
        ([HOLDS, OPEN], Verdict.OPEN),
        ([HOLDS, OPEN, FAILS], Verdict.FAILS),
        ([HOLDS, effect(-5.0, -5.1, decides=False)], Verdict.HOLDS),
    ],
    ids=["all hold", "one open", "one fails", "reported only"],
)
def test_a_claim_holds_only_if_all_of_it_holds(findings: list[Effect], verdict: Verdict) -> None:
    assert conclude(findings) is verdict


def test_a_study_must_decide_something() -> None:
    with pytest.raises(ValueError, match="at least one finding that decides"):
        conclude([effect(1.0, 2.0, decides=False)])
