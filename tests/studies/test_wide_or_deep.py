"""Wide against deep: the match of parameters, the verdict on made-up results, and a tiny run."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from convatlas.studies.context import StudyContext
from convatlas.studies.residual.wide_or_deep import WideOrDeepKnobs, match, shape

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
    ("name", "value"),
    [("blocks", 0), ("width_mult", 1), ("processes", 0)],
    ids=["no block", "as thin as the thin one", "no process"],
)
def test_bad_counts(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"`{name}`={value}; expected a whole number of at least"):
        WideOrDeepKnobs(**{name: value})
