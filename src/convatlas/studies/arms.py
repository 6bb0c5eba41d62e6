"""Arms of a study: networks that are trained alike, each at its own best learning rate from one grid.

The rate is chosen on validation images that are split from the training images, with seeds of its own and as
many trials for every arm. A best rate at an end of the grid makes the grid grow for all arms; one that is
still
there
when it may not grow further forbids a verdict. So does an arm that has not learnt.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convatlas.studies.context import StudyContext
from convatlas.studies.knobs import TrainingKnobs
from convatlas.studies.trainings import ModelFactory, Split, Trained
from convatlas.training.nonfinite import TrainingError

TUNE_SEED = 50_000
"""First seed of the trials of learning rates; those of reports and pilots are others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One side of a comparison.

    Attributes:
        network: name in the registry, or what makes a network of the study's own.
        label: names a network of the study's own, with all that tells it from others.
        model: fields of the config to change, for a name in the registry.
        settings: fields of the recipe in which this arm differs from the others; that is what is compared.
        px: height and width of its images; 0 for those of the knobs.
        must_learn: a verdict needs that it reaches the study's error; False where the claim is that it
            cannot.
        twin: the arm whose learning rate it takes, where only one is tuned; "" for its own.
    """

    network: str | ModelFactory
    label: str = ""
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    px: int = 0
    must_learn: bool = True
    twin: str = ""


@dataclasses.dataclass(frozen=True)
class Tuned:
    """How a learning rate was chosen.

    Attributes:
        trials: validation error in % by rate, mean over the seeds of the trials; chance where it diverged.
        best: the rate of the least error; of equals the one farthest from the ends of the grid.
    """

    trials: Mapping[float, float]
    best: float

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest that was tried."""
        return self.best in (min(self.trials), max(self.trials))


@dataclasses.dataclass(frozen=True)
class Compared:
    """Arms after their trainings.

    Attributes:
        tuned: by arm: how its learning rate was chosen.
        trained: by arm: the network of each seed; None where the loss became NaN or infinite.
        wrong: by arm: whether each test image is classified wrongly by each seed, (S, I); the error of
            chance where the training failed.
        wrong_train: the same for training images, without augmentation; only where a clause is about them.
        objections: why these arms allow no verdict.
    """

    tuned: Mapping[str, Tuned]
    trained: Mapping[str, tuple[Trained | None, ...]]
    wrong: Mapping[str, NDArray[np.float64]]
    wrong_train: Mapping[str, NDArray[np.float64]]
    objections: tuple[str, ...]

    def errors(self, arm: str, split: Split = "test") -> list[float]:
        """The error of an arm for each seed, in %."""
        table = self.wrong[arm] if split == "test" else self.wrong_train[arm]
        return [100.0 * float(row.mean()) for row in table]

    def contrast(self, weights: Mapping[str, float], split: Split = "test") -> NDArray[np.float64]:
        """A weighted sum of the arms' errors in points, for each seed and image: (S, I)."""
        table = self.wrong if split == "test" else self.wrong_train
        return np.sum([100.0 * weight * table[arm] for arm, weight in weights.items()], axis=0)

    def nets(self, arm: str) -> list[Trained]:
        """The networks of an arm.

        Raises:
            TrainingError: if one of its trainings failed.
        """
        found = [one for one in self.trained[arm] if one is not None]
        if len(found) < len(self.trained[arm]):
            raise TrainingError(f"arm {arm!r}: a training ended with a loss that is NaN or infinite")
        return found


def settings_of(knobs: TrainingKnobs, images: int) -> dict[str, Any]:
    """The recipe's fields that all arms share.

    Args:
        knobs: of the study.
        images: that are trained on, by which steps become shares of the training.
    """
    augment: dict[str, Any] = {"flip": knobs.flip}
    if knobs.pad:
        augment["pad_crop"] = {"pad": knobs.pad}
    settings: dict[str, Any] = {"epochs": knobs.epochs, "batch_size": knobs.batch_size, "augment": augment}
    if knobs.schedule != "recipe":
        settings["schedule"] = knobs.schedule
        steps = knobs.epochs * -(-images // knobs.batch_size)
        settings["warmup"] = min(0.5, knobs.warmup / steps)
    return settings


def compare(
    ctx: StudyContext[Any], arms: Mapping[str, Arm], *, splits: Sequence[Split] = ("test",)
) -> Compared:
    """Tunes every arm's learning rate, then trains every arm for every seed of the report.

    Args:
        ctx: of the study.
        arms: by name.
        splits: on which the arms' answers are counted.
    """
    knobs = ctx.training
    tuned = tune(ctx, arms)
    trained = {
        name: tuple(train_arm(ctx, name, arm, tuned[name].best, seed) for seed in ctx.seeds)
        for name, arm in arms.items()
    }
    tables = {split: {name: answers(ctx, nets, split) for name, nets in trained.items()} for split in splits}
    objections = (
        *edges(tuned, arms),
        *incompetent(
            {name: tables["test"][name] for name, arm in arms.items() if arm.must_learn}, knobs.reach
        ),
    )
    return Compared(tuned, trained, tables["test"], tables.get("train", {}), objections)


def tune(ctx: StudyContext[Any], arms: Mapping[str, Arm]) -> dict[str, Tuned]:
    """The best learning rate of each arm, by as many trials for each; the grid grows for all arms alike."""
    knobs = ctx.training
    own = {name: arm for name, arm in arms.items() if not arm.twin}
    grid = list(knobs.grid)
    tuned: dict[str, Tuned] = {}
    for growth in range(knobs.grow + 1):
        tuned = {name: choose({lr: _trial(ctx, name, arm, lr) for lr in grid}) for name, arm in own.items()}
        longer = grown(grid, tuned)
        if growth == knobs.grow or len(grid) == 1 or longer == grid:
            break
        ctx.log(f"the grid of learning rates grows to {', '.join(f'{lr:g}' for lr in longer)}")
        grid = longer
    return {name: tuned[arm.twin or name] for name, arm in arms.items()}


def grown(grid: Sequence[float], tuned: Mapping[str, Tuned]) -> list[float]:
    """The grid with one more rate at each end where an arm has its best."""
    best = {one.best for one in tuned.values()}
    lower = [float(f"{grid[0] * grid[0] / grid[1]:.3g}")] if len(grid) > 1 and grid[0] in best else []
    upper = [float(f"{grid[-1] * grid[-1] / grid[-2]:.3g}")] if len(grid) > 1 and grid[-1] in best else []
    return [*lower, *grid, *upper]


def choose(trials: Mapping[float, float]) -> Tuned:
    """The rate with the least validation error; of equals, the one farthest from the ends of the grid."""
    rates = sorted(trials)
    inside = {lr: min(place, len(rates) - 1 - place) for place, lr in enumerate(rates)}
    return Tuned(dict(sorted(trials.items())), min(rates, key=lambda lr: (trials[lr], -inside[lr])))


def _trial(ctx: StudyContext[Any], name: str, arm: Arm, lr: float) -> float:
    knobs = ctx.training
    seeds = range(TUNE_SEED, TUNE_SEED + knobs.tune_seeds)
    found = [train_arm(ctx, name, arm, lr, seed, validation=True) for seed in seeds]
    return statistics.fmean(ctx.chance if one is None else one.test_error for one in found)


def train_arm(
    ctx: StudyContext[Any], name: str, arm: Arm, lr: float, seed: int, *, validation: bool = False
) -> Trained | None:
    """Trains one arm at one rate from one seed; None where its loss becomes NaN or infinite."""
    knobs = ctx.training
    source = ctx.source_at(arm.px or knobs.px, validation=validation)
    # A trial and the training that it is for take as many epochs, hence shares of them, not steps.
    shared = settings_of(knobs, len(source.train))
    try:
        return ctx.train(
            arm.network,
            seed=seed,
            label=arm.label,
            model=arm.model if isinstance(arm.network, str) else None,
            recipe=knobs.recipe,
            source=source,
            **(shared | {"lr": lr} | dict(arm.settings)),
        )
    except TrainingError as error:
        ctx.log(f"{name}, learning rate {lr:g}, seed {seed}: {error}")
        return None


def answers(ctx: StudyContext[Any], nets: Sequence[Trained | None], split: Split) -> NDArray[np.float64]:
    """Whether each network is wrong on each image: (S, I). A failed training errs like chance."""
    rows: list[NDArray[np.float64] | None] = []
    for trained in nets:
        if trained is None:
            rows.append(None)
            continue
        labels = (trained.source.train if split == "train" else trained.source.test).labels
        predicted = ctx.evaluate(trained, split).predicted
        rows.append((predicted != labels).double().numpy())
    samples = ctx.source.train if split == "train" else ctx.source.test
    chance = np.full(len(samples), ctx.chance / 100.0)
    return np.stack([chance if row is None else row for row in rows])


def edges(tuned: Mapping[str, Tuned], arms: Mapping[str, Arm]) -> list[str]:
    """A sentence for every arm whose best learning rate is at an end of the grid."""
    return [
        f"arm {name}: best rate at the edge of the grid, {one.best:g} of "
        f"{', '.join(f'{lr:g}' for lr in one.trials)}"
        for name, one in tuned.items()
        if one.at_edge and not arms[name].twin and arms[name].must_learn
    ]


def incompetent(wrong: Mapping[str, NDArray[np.float64]], reach: float) -> list[str]:
    """A sentence for every arm whose mean error is above what a verdict needs.

    Args:
        wrong: by arm: wrong answers, (S, I).
        reach: error in %.
    """
    means = {name: 100.0 * float(table.mean()) for name, table in wrong.items()}
    return [
        f"arm {name} has not learnt: its error is {mean:.1f} %, a verdict needs {reach:g} % or less"
        for name, mean in means.items()
        if mean > reach
    ]
