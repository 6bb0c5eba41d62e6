"""What several studies measure alike."""

from convatlas.studies.timing import time_in_turns


def test_steps_take_turns() -> None:
    called: list[str] = []
    times = time_in_turns([lambda: called.append("a"), lambda: called.append("b")], rounds=2, least_s=0.0)
    # Once each before the clock runs, then five runs of each in each round.
    assert called == ["a", "b", *(["a"] * 5 + ["b"] * 5) * 2]
    assert [len(each) for each in times] == [2, 2]
    assert min(min(each) for each in times) >= 0.0
