"""Pre- against post-activation: parameters, the verdict on made-up errors, and a tiny run on digits."""

from pathlib import Path

import pytest

from convatlas.studies.context import run_study
from convatlas.studies.identity import Result, Results, count_parameters, find
from convatlas.studies.verdict import Effect, Verdict, conclude

DEPTHS = (20, 56, 110)


def results(gaps: tuple[float, float, float], loss_gap: float = 0.2) -> Results:
    """Errors of 10 % with pre-activation and of so much more with post-activation, over three seeds."""
    found: Results = {}
    for depth, gap in zip(DEPTHS, gaps, strict=True):
        found["pre", depth] = [Result(10.0 + n, (2.0, 1.0)) for n in (0.1, 0.0, -0.1)]
        found["post", depth] = [
            Result(10.0 + gap + n, (2.0, 1.0 + loss_gap + n / 10)) for n in (0.2, -0.1, -0.1)
        ]
    return found


@pytest.mark.parametrize(
    ("gaps", "loss_gap", "verdict"),
    [
        ((0.0, 1.0, 3.0), 0.2, Verdict.HOLDS),
        ((3.0, 3.0, 3.0), 0.2, Verdict.OPEN),  # better at every depth alike
        ((3.0, 2.0, 1.0), 0.2, Verdict.FAILS),  # a difference that shrinks
        ((0.0, -1.0, -3.0), 0.2, Verdict.FAILS),
        ((0.0, 0.1, 0.1), 0.2, Verdict.OPEN),
        ((0.0, 1.0, 3.0), -0.2, Verdict.FAILS),  # tests better and learns worse
    ],
    ids=["grows", "stays", "shrinks", "post is better", "within noise", "learns worse"],
)
def test_verdict(gaps: tuple[float, float, float], loss_gap: float, verdict: Verdict) -> None:
    assert conclude(find(results(gaps, loss_gap), DEPTHS)) is verdict


def test_only_the_deepest_decides() -> None:
    effects = find(results((0.0, 1.0, 3.0)), DEPTHS)
    assert [effect.decides for effect in effects] == [False, False, True, True, True]
    assert effects[2].values == pytest.approx((3.1, 2.9, 3.0))


def test_published_difference() -> None:
    effects: dict[str, Effect] = {effect.name: effect for effect in find(results((0.0, 1.0, 3.0)), DEPTHS)}
    # Table 2: ResNet-110 6.61 % with original and 6.37 % with pre-activation units.
    published = effects["test error of 110 layers, post minus pre"].published
    assert published == "0.24 (6.61 to 6.37 %, CIFAR-10)"


@pytest.mark.parametrize(("depth", "params"), [(20, 269_722), (110, 1_727_962)])
def test_both_units_have_as_many_parameters(depth: int, params: int) -> None:
    # By hand from Table 6 of ResNet's paper (0.27M and 1.7M), with option A.
    fact = count_parameters(depth)
    assert (fact.value, fact.claimed) == (params, params)
    assert fact.verdict is Verdict.HOLDS


def test_a_tiny_run(tmp_path: Path) -> None:
    small = {"data": "digits", "images": 40, "test_images": 40, "px": 8, "seeds": 2, "depths": (8, 14)}
    said: list[str] = []
    folder, record = run_study("identity", out=tmp_path, log=said.append, **small)
    assert len(said) == 8
    assert [entry["kind"] for entry in record["findings"]] == ["fact"] * 2 + ["effect"] * 4
    assert (folder / "identity.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ((20,), r"`depths`=\[20\]; expected two or more that rise"),
        ((56, 20), r"`depths`=\[56, 20\]; expected two or more that rise"),
        ((20, 57), r"`depths`: 57; expected 6n \+ 2 layers, near 56"),
    ],
    ids=["one", "falling", "no such depth"],
)
def test_depths_that_do_not_do(depths: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_study("identity", out="unused", depths=depths)
