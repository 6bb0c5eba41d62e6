"""Measuring in turns."""

import pytest

from convatlas.engines import timing as racing
from convatlas.engines.timing import (
    interleaved_timing,
    measure_undisturbed,
    median,
    ratio_interval,
    typical_ratio,
)


def test_who_is_hopeless_is_measured_less_and_the_rest_in_turns() -> None:
    turns: list[str] = []

    def entrant(name: str, seconds: float):
        def run(calls: int) -> list[float]:
            turns.append(name)
            return [seconds] * calls

        return run

    entrants = {"fast": entrant("fast", 1.0), "near": entrant("near", 1.2), "slow": entrant("slow", 2.0)}
    times = interleaved_timing(entrants, dict.fromkeys(entrants, 1.0), limit=60.0, most=6)
    assert {name: len(found) for name, found in times.items()} == {"fast": 6, "near": 6, "slow": 2}
    assert times["slow"] == [[2.0], [2.0]]
    assert turns[:8] == ["fast", "near", "slow", "fast", "near", "slow", "fast", "near"]


def test_short_calls_are_timed_several_at_a_time() -> None:
    asked: list[int] = []
    interleaved_timing({"one": lambda calls: asked.append(calls) or [0.01] * calls}, {"one": 0.01}, limit=1.0)
    assert asked == [3, 3, 3]  # 0.03 s of calls; alone, it is done after three rounds.


def test_who_stops_predictioning_is_left_out() -> None:
    predictions = {"ends": iter([[1.0], []]), "stays": iter([[1.0]] * 9)}
    entrants = {name: lambda _, name=name: next(predictions[name]) for name in predictions}
    times = interleaved_timing(entrants, dict.fromkeys(predictions, 1.0), limit=0.0)
    assert times["ends"] == []
    assert times["stays"] == [[1.0]] * 3


@pytest.mark.parametrize(
    ("ratios", "ends"),
    [
        pytest.param([1.0] * 5, (0.0, float("inf")), id="five-say-nothing"),
        # Two tails of the binomial distribution: 2 / 2^6 = 3.1 %.
        pytest.param([3.0, 1.0, 2.0, 6.0, 5.0, 4.0], (1.0, 6.0), id="six-the-outermost"),
        # 2 (1 + 8) / 2^8 = 7.0 %, above 5 %; with nine, 2 (1 + 9) / 2^9 = 3.9 %.
        pytest.param(list(range(1, 9)), (1, 8), id="eight-the-outermost"),
        pytest.param(list(range(1, 10)), (2, 8), id="nine-the-second"),
    ],
)
def test_interval_of_the_ratio(ratios: list[float], ends: tuple[float, float]) -> None:
    # Each round is as much slower as it likes, for both.
    slow = [3.0**turn for turn in range(len(ratios))]
    one = [[ratio * factor] for ratio, factor in zip(ratios, slow, strict=True)]
    other = [[factor, factor, 9 * factor] for factor in slow]
    assert ratio_interval(one, other) == pytest.approx(ends)
    if len(ratios) % 2:
        assert typical_ratio(one, other) == pytest.approx(sorted(ratios)[len(ratios) // 2])


def test_rounds_of_one_alone_are_not_compared() -> None:
    assert typical_ratio([[1.0]], []) == float("inf")
    assert typical_ratio([[2.0], [9.0]], [[1.0]]) == 2.0


def test_typical_is_not_moved_by_disturbances() -> None:
    assert median([1.0, 1.0, 1.0, 9.0, 50.0]) == 1.0
    assert median([2.0]) == 2.0
    assert median([]) == float("inf")


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        pytest.param([0.0], "first", id="calm"),
        pytest.param([0.5, 0.0], "second", id="calm the second time"),
        pytest.param([0.5, 0.1, 0.2], "second", id="never calm"),
    ],
)
def test_what_the_host_disturbs_is_measured_again(
    lost: list[float], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, losses, names = [0.0], iter(lost), iter(("first", "second", "third"))

    def measure() -> str:
        clock[0] += next(losses)
        return next(names)

    monkeypatch.setattr(racing, "steal_time", lambda: clock[0])
    assert measure_undisturbed(measure) == expected
    assert not list(losses)
