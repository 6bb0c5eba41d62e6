"""Learning rates: chosen by validation images, edges of the grid, and arms that have not learnt."""

from pathlib import Path

import numpy as np
import pytest

from convatlas.studies.arms import Arm, choose, edges, grown, incompetent, settings_of, tune
from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.trainings import digest_of, find_finished, validation_source


def test_the_best_rate_and_the_edge() -> None:
    inside = choose({0.01: 30.0, 0.1: 20.0, 1.0: 90.0})
    assert (inside.best, inside.at_edge) == (0.1, False)
    edge = choose({0.01: 30.0, 0.1: 20.0, 1.0: 10.0})
    assert (edge.best, edge.at_edge) == (1.0, True)
    arms = {"a": Arm(network="x"), "b": Arm(network="x"), "c": Arm(network="x", must_learn=False)}
    assert edges({"a": inside, "b": edge, "c": edge}, arms) == [
        "arm b: best rate at the edge of the grid, 1 of 0.01, 0.1, 1"
    ]


def test_of_equal_rates_the_inner_one_is_taken() -> None:
    assert choose({0.01: 20.0, 0.1: 20.0, 1.0: 20.0}).best == 0.1


def test_the_grid_grows_at_both_ends() -> None:
    low, high = choose({0.1: 1.0, 0.2: 2.0, 0.4: 3.0}), choose({0.1: 3.0, 0.2: 2.0, 0.4: 1.0})
    assert grown([0.1, 0.2, 0.4], {"a": low}) == [0.05, 0.1, 0.2, 0.4]
    assert grown([0.1, 0.2, 0.4], {"a": low, "b": high}) == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert grown([0.1], {"a": choose({0.1: 1.0})}) == [0.1]


def test_arms_that_have_not_learnt_are_named() -> None:
    wrong = {"good": np.full((2, 10), 0.2), "bad": np.full((2, 10), 0.7)}
    assert incompetent(wrong, 49.0) == [
        "arm bad has not learnt: its error is 70.0 %, a verdict needs 49 % or less"
    ]


def test_warm_up_is_in_steps() -> None:
    knobs = TrainingKnobs(epochs=2, batch_size=10, warmup=5)
    assert settings_of(knobs, 95)["warmup"] == pytest.approx(5 / 20)
    assert "warmup" not in settings_of(TrainingKnobs(schedule="recipe", warmup=5), 95)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"grid": (0.2, 0.1)}, "`grid`=.* expected learning rates above 0 that rise"),
        ({"grid": ()}, "expected learning rates above 0"),
        ({"validation": 1.0}, "`validation`=1.0; expected a share between 0 and 1"),
        ({"reach": 0.0}, "`reach`=0.0; expected an error between 0 and 100"),
        ({"flip": 2.0}, "`flip`=2.0; expected a share of 0 to 1"),
        ({"seeds": 0}, "`seeds`=0; expected a whole number of at least 1"),
    ],
)
def test_bad_knobs(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingKnobs(**fields)  # pyright: ignore[reportArgumentType]


def make(tmp_path: Path, **fields: object) -> StudyContext[TrainingKnobs]:
    knobs = TrainingKnobs(data="digits", images=60, test_images=40, **fields)  # pyright: ignore[reportArgumentType]
    return StudyContext(knobs=knobs, runs=tmp_path / "runs", log=lambda text: None)


def test_validation_images_are_training_images(tmp_path: Path) -> None:
    ctx = make(tmp_path)
    split = validation_source(ctx.source, 0.2)
    assert len(split.train) + len(split.test) == len(ctx.source.train)
    assert split.fingerprint != ctx.source.fingerprint
    known = {ctx.source.train.image(i).numpy().tobytes() for i in range(len(ctx.source.train))}
    assert {split.test.image(i).numpy().tobytes() for i in range(len(split.test))} <= known


def test_every_arm_has_as_many_trials_on_seeds_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, float, int, bool]] = []

    def pretend(ctx: object, name: str, arm: Arm, lr: float, seed: int, *, validation: bool = False) -> None:
        asked.append((name, lr, seed, validation))

    monkeypatch.setattr("convatlas.studies.arms.train_arm", pretend)
    ctx = make(tmp_path, grid=(0.1, 0.2), grow=1, tune_seeds=2)
    tuned = tune(ctx, {"a": Arm(network="x"), "b": Arm(network="y"), "c": Arm(network="x", twin="a")})
    assert {name for name, *_ in asked} == {"a", "b"}
    assert tuned["c"] == tuned["a"]
    assert {seed for _, _, seed, _ in asked} == {50_000, 50_001}
    assert all(validation for *_, validation in asked)
    trials = {name: {lr for n, lr, *_ in asked if n == name} for name in "ab"}
    assert trials["a"] == trials["b"]
    assert tuned["a"].trials[0.1] == 90.0  # a training that failed counts as chance


def test_a_stored_run_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "asked.json").write_text('{"lr": 0.1}')
    assert find_finished(folder, {"lr": 0.1}) is None
    with pytest.raises(ValueError, match="stored run was made with other settings"):
        find_finished(folder, {"lr": 0.2})
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
