"""Wide against deep: the match of parameters, the verdict on made-up results, and a tiny run."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from convatlas.studies.context import StudyContext, run_study
from convatlas.studies.verdict import Fact, Verdict, conclude
from convatlas.studies.wide_or_deep import Results, Shape, WideOrDeepKnobs, find, match, shape

DIGITS: dict[str, Any] = {"data": "digits", "images": 60, "test_images": 40}


def make_lab(**knobs: Any) -> StudyContext[WideOrDeepKnobs]:
    return StudyContext(knobs=WideOrDeepKnobs(**(DIGITS | knobs)), runs=Path("unused"), log=print)


def params_by_hand(blocks: int, mult: int) -> int:
    """Of WRN-d-k with one input channel and ten classes: convolutions, norms, projections, linear layer."""
    widths = (16, 16 * mult, 32 * mult, 64 * mult)
    total = 9 * 16
    for before, chans in itertools.pairwise(widths):
        total += (2 * blocks - 1) * 9 * chans**2 + 9 * before * chans
        total += before * chans if before != chans else 0
        total += 2 * before + (2 * blocks - 1) * 2 * chans
    return total + 2 * widths[-1] + widths[-1] * 10 + 10


@pytest.mark.parametrize(("blocks", "mult"), [(1, 1), (1, 3), (4, 2)], ids=["10-1", "10-3", "28-2"])
def test_parameters(blocks: int, mult: int) -> None:
    found = shape(make_lab(), blocks, mult)
    assert found.params == params_by_hand(blocks, mult)
    assert found.name == f"WRN-{6 * blocks + 4}-{mult}"


@pytest.mark.parametrize("mult", [2, 3, 4], ids=str)
def test_the_thin_network_is_the_nearest(mult: int) -> None:
    ctx = make_lab()
    wide = shape(ctx, 1, mult)
    thin = match(ctx, wide)
    nearest = min(range(1, 40), key=lambda blocks: abs(params_by_hand(blocks, 1) - wide.params))
    assert (thin.blocks, thin.width_mult) == (nearest, 1)


def test_a_thin_network_that_nobody_would_train() -> None:
    ctx = make_lab(width_mult=20)
    with pytest.raises(
        ValueError, match=r"`width_mult`=20, `blocks`=1: the thin network would need \d+ blocks"
    ):
        match(ctx, shape(ctx, 1, 20))


@pytest.mark.parametrize(
    ("error", "time", "verdict"),
    [
        (12.0, 2.0, Verdict.HOLDS),
        (9.0, 2.0, Verdict.FAILS),
        (12.0, 0.5, Verdict.FAILS),
        (10.0, 2.0, Verdict.OPEN),
        (12.0, 1.0, Verdict.OPEN),
    ],
    ids=["wide wins", "thin errs less", "thin is faster", "errors alike", "times alike"],
)
def test_verdict(error: float, time: float, verdict: Verdict) -> None:
    noise = (0.1, 0.0, -0.1)
    times = (tuple(time + n for n in noise), (1.0,) * 3)
    results = Results(
        errors=([error + n for n in noise], [10.0] * 3), steps=((0.5,) * 3, (1.0,) * 3), passes=times
    )
    thin, wide = Shape(7, 1, 102, 300), Shape(1, 3, 100, 300)
    assert conclude(find(thin, wide, results)) is verdict


def test_unequal_parameters_are_no_comparison() -> None:
    times = ((2.0,) * 2, (1.0,) * 2)
    results = Results(errors=([12.0] * 2, [10.0] * 2), steps=times, passes=times)
    found = find(Shape(7, 1, 150, 300), Shape(1, 3, 100, 300), results)
    assert [each.verdict for each in found if isinstance(each, Fact)] == [Verdict.FAILS]


def test_tiny_run(tmp_path: Path) -> None:
    said: list[str] = []
    folder, record = run_study(
        "wide-or-deep",
        out=tmp_path,
        log=said.append,
        seeds=2,
        epochs=1,
        width_mult=2,
        px=4,
        rounds=2,
        batch_size=16,
        **DIGITS,
    )
    assert len(said) == 4
    assert [len(found["values"]) for found in record["findings"][:3]] == [2, 2, 2]
    assert (folder / "wide-or-deep.png").stat().st_size > 0
    assert "WRN-10-2" in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("name", "value"),
    [("blocks", 0), ("width_mult", 1), ("rounds", 0)],
    ids=["no block", "as thin as the thin one", "no round"],
)
def test_bad_counts(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"`{name}`={value}; expected a whole number of at least"):
        WideOrDeepKnobs(**{name: value})
