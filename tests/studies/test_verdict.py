"""Verdicts on made-up results: directions, margins, several clauses, and what forbids a verdict."""

import numpy as np
import pytest

from convatlas.studies.clauses import Clause, difference
from convatlas.studies.verdict import Fact, Verdict, judge

ABOVE = Clause(name="above", says="more", measure="a - b", above=0.0)
BELOW = Clause(name="below", says="no worse", measure="a - b", below=1.0)
WITHIN = Clause(name="within", says="alike", measure="a - b", within=1.0)
REPORTED = Clause(name="reported", says="more", measure="c - d", above=0.0, decides=False)


@pytest.mark.parametrize(
    ("clause", "values", "verdict"),
    [
        (ABOVE, (5.0, 5.1, 4.9), Verdict.HOLDS),
        (ABOVE, (-5.0, -5.1, -4.9), Verdict.FAILS),
        (ABOVE, (5.0, -4.0, 1.0), Verdict.OPEN),
        (ABOVE, (5.0, 5.1, 0.1), Verdict.OPEN),  # all positive, yet the interval reaches below zero
        (BELOW, (0.0, 0.1, -0.1), Verdict.HOLDS),
        (BELOW, (-5.0, -5.1, -4.9), Verdict.HOLDS),
        (BELOW, (5.0, 5.1, 4.9), Verdict.FAILS),
        (BELOW, (0.9, 1.1, 1.0), Verdict.OPEN),
        (WITHIN, (0.0, 0.1, -0.1), Verdict.HOLDS),
        (WITHIN, (5.0, 5.1, 4.9), Verdict.FAILS),
        (WITHIN, (-5.0, -5.1, -4.9), Verdict.FAILS),  # harm is no equivalence, and neither is gain
        (WITHIN, (2.0, -2.0, 0.1), Verdict.OPEN),
    ],
)
def test_verdict_of_one_clause(clause: Clause, values: tuple[float, ...], verdict: Verdict) -> None:
    assert judge([clause], {clause.name: values}).verdict is verdict


def test_every_clause_decides() -> None:
    good, bad, open_ = (5.0, 5.1, 4.9), (5.0, 5.1, 4.9), (4.0, -4.0, 1.0)
    assert judge([ABOVE, BELOW], {"above": good, "below": bad}).verdict is Verdict.FAILS
    assert judge([ABOVE, BELOW], {"above": good, "below": (0.0, 0.1, -0.1)}).verdict is Verdict.HOLDS
    assert judge([ABOVE, BELOW], {"above": open_, "below": (0.0, 0.1, -0.1)}).verdict is Verdict.OPEN
    assert judge([ABOVE, REPORTED], {"above": good, "reported": (-5.0, -5.1, -4.9)}).verdict is Verdict.HOLDS


def test_several_clauses_share_the_level() -> None:
    values = (1.0, 2.1, 1.5, 0.4, 0.2)
    alone = judge([ABOVE], {"above": values})
    others = [Clause(name=f"c{i}", says="more", measure="x", above=0.0) for i in range(4)]
    both = judge([ABOVE, *others], {"above": values, **{c.name: (1.0, -1.0, 0.4) for c in others}})
    assert alone.effects[0].verdict is Verdict.HOLDS
    assert both.effects[0].p_holds == pytest.approx(5.0 * alone.effects[0].p_holds)
    assert both.effects[0].verdict is Verdict.OPEN


@pytest.mark.parametrize(
    ("samples", "objections", "reason"),
    [
        ((5.0, 5.1), (), "2 independent values, at least 3 needed"),
        ((5.0,), (), "1 independent value, at least 3 needed"),
        ((3.3, 3.3, 3.3), (), "a - b: all 3 values are equal, so that they are no sample"),
        ((5.0, 5.1, 4.9), ("arm x has not learnt",), "arm x has not learnt"),
    ],
)
def test_what_forbids_a_verdict_is_said(
    samples: tuple[float, ...], objections: tuple[str, ...], reason: str
) -> None:
    found = judge([ABOVE], {"above": samples}, objections=objections)
    assert found.verdict is Verdict.OPEN
    assert found.objections == (reason,)


def test_times_need_ten_processes() -> None:
    clause = Clause(name="time", says="sooner", measure="t", above=1.0, needs=10)
    found = judge([clause], {"time": tuple(2.0 + 0.01 * i for i in range(9))})
    assert found.objections == ("9 independent values, at least 10 needed",)
    assert judge([clause], {"time": tuple(2.0 + 0.01 * i for i in range(10))}).verdict is Verdict.HOLDS


def test_a_wrong_fact_refutes_and_a_printed_one_does_not() -> None:
    wrong = Fact(name="weights", value=101.0, claimed=100.0, tolerance=0.005)
    assert wrong.verdict is Verdict.FAILS
    assert judge([ABOVE], {"above": (5.0, 5.1, 4.9)}, [wrong]).verdict is Verdict.FAILS
    near = Fact(name="weights", value=101.0, claimed=100.0, tolerance=0.02)
    assert judge([ABOVE], {"above": (5.0, 5.1, 4.9)}, [near]).verdict is Verdict.HOLDS


def test_a_study_must_measure_and_decide() -> None:
    with pytest.raises(ValueError, match="measured nothing for its clauses above"):
        judge([ABOVE], {})
    with pytest.raises(ValueError, match="at least one clause or fact that decides"):
        judge([REPORTED], {"reported": (1.0, 2.0)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "none given; expected exactly one"),
        ({"above": 0.0, "within": 1.0}, "above, within given; expected exactly one"),
        ({"within": -1.0}, "`within`=-1.0; expected a margin above 0"),
        ({"above": 0.0, "arms": {"a": 1.0, "b": 1.0}}, "must add up to 0"),
        ({"above": 0.0, "needs": 1}, "`needs`=1; an interval needs at least 2"),
    ],
)
def test_bad_clauses(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Clause(name="x", says="x", measure="x", **fields)  # pyright: ignore[reportArgumentType]


def test_a_contrast_is_paired_over_seeds_and_images() -> None:
    from convatlas.studies.arms import Compared

    wrong = {"a": np.array([[1.0, 0.0], [1.0, 1.0]]), "b": np.array([[0.0, 0.0], [1.0, 0.0]])}
    compared = Compared({}, {}, wrong, {}, ())
    assert compared.contrast(difference("a", "b")).tolist() == [[100.0, 0.0], [0.0, 100.0]]
    assert compared.errors("a") == [50.0, 100.0]
