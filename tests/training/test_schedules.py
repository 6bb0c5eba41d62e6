import math

import pytest

from convatlas.training.recipes.schedules import (
    Constant,
    Cosine,
    Exponential,
    Linear,
    OneCycle,
    Schedule,
    Step,
    warmed_decay,
)


def levels(schedule: Schedule, *steps: int, num_steps: int = 100, warmup: float = 0.0) -> list[float]:
    return [schedule.level(step, num_steps, warmup) for step in steps]


def test_constant() -> None:
    assert levels(Constant(), 0, 50, 99) == [1.0, 1.0, 1.0]


def test_steps_of_resnet_on_cifar() -> None:
    """Divided at 32k and 48k steps, stopped at 64k."""
    found = levels(Step(), 0, 31_999, 32_000, 47_999, 48_000, 63_999, num_steps=64_000)
    assert found == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize("num_steps", [90, 450_450, 7])
def test_a_stretch_begins_at_the_nearest_step(num_steps: int) -> None:
    third = round(num_steps / 3)
    schedule = Step(at=(0.333333,), levels=(1.0, 0.5))
    assert levels(schedule, third - 1, third, num_steps=num_steps) == [1.0, 0.5]


def test_the_staircase_of_inception() -> None:
    """0.94 every two epochs, of 100 epochs with 10 steps each."""
    found = levels(Exponential(), 0, 19, 20, 39, 40, 999, num_steps=1000)
    assert found == pytest.approx([1.0, 1.0, 0.94, 0.94, 0.94**2, 0.94**49])


@pytest.mark.parametrize("spans", [3.0, 7.0, 145.833])
def test_every_span_of_a_staircase_begins_on_time(spans: float) -> None:
    num_steps = 2100
    for drop in range(1, int(spans)):
        start = math.ceil(drop * num_steps / spans - 1e-6)
        found = levels(Exponential(factor=0.5, spans=spans), start - 1, start, num_steps=num_steps)
        assert found == [0.5 ** (drop - 1), 0.5**drop]


def test_cosine_falls_from_the_end_of_the_warm_up_and_wastes_no_step() -> None:
    found = levels(Cosine(), 9, 10, 55, 100, warmup=0.1)
    assert found == pytest.approx([1.0, 1.0, 0.5, 0.0], abs=1e-12)
    assert levels(Cosine(), 25)[0] == pytest.approx(0.5 + 0.5 * math.sqrt(0.5))


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("schedule", [Cosine(), Linear(), OneCycle(), OneCycle(start=0.3, tail=0.4)])
def test_every_step_learns(schedule: Schedule, num_steps: int) -> None:
    """SGDR counts steps from 0: a training of one step has the whole rate."""
    found = levels(schedule, *range(num_steps), num_steps=num_steps)
    assert all(level > 0.0 for level in found)
    assert found[0] == pytest.approx(schedule.start if isinstance(schedule, OneCycle) else 1.0)


def test_linear_falls_from_the_end_of_the_warm_up() -> None:
    assert levels(Linear(), 10, 55, 100, warmup=0.1) == pytest.approx([1.0, 0.5, 0.0], abs=1e-12)


def test_one_cycle() -> None:
    """Half of 90 % up, half down, 10 % to nothing."""
    found = levels(OneCycle(start=0.2, tail=0.1), 0, 1, 45, 90, 95, 100)
    assert found == pytest.approx([0.2, 0.2 + 0.8 / 45, 1.0, 0.2, 0.1, 0.0], abs=1e-12)


def test_one_cycle_without_a_tail_ends_where_it_began() -> None:
    assert levels(OneCycle(start=0.25, tail=0.0), 50, 100) == pytest.approx([1.0, 0.25])


def test_an_average_follows_closely_at_first() -> None:
    assert [warmed_decay(0.9999, step) for step in (0, 9, 90)] == pytest.approx([0.1, 10 / 19, 0.91])
    assert warmed_decay(0.9999, 10**6) == 0.9999


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Step(at=(0.5, 0.5)), r"`schedule.at`=\[0.5, 0.5\]; expected rising", id="order"),
        pytest.param(lambda: Step(at=(0.5, 1.0)), "expected rising shares between 0 and 1", id="end"),
        pytest.param(lambda: Step(at=(0.5,)), r"`schedule.levels`=.*one more than `schedule.at`", id="count"),
        pytest.param(lambda: Step(at=(0.5,), levels=(1.0, 0.0)), "expected numbers above 0", id="level"),
        pytest.param(lambda: Exponential(factor=1.0), r"`schedule.factor`=1.0; expected", id="factor"),
        pytest.param(lambda: Exponential(spans=0.5), r"`schedule.spans`=0.5; expected", id="spans"),
        pytest.param(lambda: OneCycle(start=1.5), r"`schedule.start`=1.5; expected a share", id="start"),
        pytest.param(lambda: OneCycle(tail=-0.1), r"`schedule.tail`=-0.1; expected a share", id="tail"),
    ],
)
def test_what_a_schedule_refuses(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()
