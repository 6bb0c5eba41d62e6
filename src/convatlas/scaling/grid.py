"""The small grid search of EfficientNet's step 1: factors of depth, width and resolution."""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convatlas.files import write_json
from convatlas.models.model_file import without_data
from convatlas.models.network import check_count
from convatlas.runs.run import RECORD, open_run
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import DEPTH, WIDTH, Base, open_base
from convatlas.scaling.rules import check_knobs, find_rule

TWICE = 2.0
"""What the networks of the grid may cost, beside the base."""
STEPS = (1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4)
"""Factors that are tried, of depth, width and resolution."""
TOLERANCE = 0.05
"""How far, as a share, the exact cost of a choice may lie from twice the base's."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A choice of factors.

    Attributes:
        factors: alpha, beta and gamma.
        depth_mult: of the network that was trained.
        width_mult: of the network that was trained.
        input_size: px that it was trained at.
        macs: multiply-adds of one image.
        accuracies: on the test images, as fractions, one for each seed.
    """

    factors: tuple[float, float, float]
    depth_mult: float
    width_mult: float
    input_size: int
    macs: int
    accuracies: tuple[float, ...] = ()

    @property
    def accuracy(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.accuracies)


@dataclasses.dataclass(frozen=True)
class GridResult:
    """What a grid search found.

    Attributes:
        network: the base.
        trials: the most accurate first.
        clear: whether the worst seed of the best choice is above the best seed of the next.
        folder: of the trainings and of `grid.json`.
    """

    network: str
    trials: tuple[Trial, ...]
    clear: bool
    folder: Path

    @property
    def factors(self) -> tuple[float, float, float]:
        """Alpha, beta and gamma of the most accurate choice, for `plan(..., factors=...)`."""
        return self.trials[0].factors


def grid_search(
    network: str,
    *,
    data: Any,
    epochs: int = 5,
    seeds: int = 1,
    most: int = 8,
    out: str | Path = "runs",
    input_size: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    tell: Callable[[str], None] | None = None,
    **settings: Any,
) -> GridResult:
    """Trains networks of twice the base's cost, made so in different ways, to find the most accurate.

    The paper compares factors with alpha beta^2 gamma^2 near 2, whose real costs differ by up to two thirds;
    here the exact costs are the same within 5 %. A search that was stopped goes on when it is called again.

    Args:
        network: a family or a network.
        data: as `train` takes it.
        epochs: passes over the data of each training.
        seeds: trainings for each choice.
        most: choices that are tried, spread over the grid.
        out: folder in which the folder of the search is made.
        input_size: px of the base; None for its published size.
        overrides: other fields of the config to change.
        tell: is told a line for each training.
        settings: fields of the recipe to change.

    Raises:
        UnknownNameError: there is no such family, network, data set or field.
        ValueError: the network lacks a knob, or a count is out of its range.
        StoppedError: SIGTERM, SIGINT or SIGUSR1 came; what was trained is kept.
    """
    for name, value in (("epochs", epochs), ("seeds", seeds), ("most", most)):
        check_count(name, value, least=1)
    base = open_base(network, overrides)
    if input_size is not None:
        check_count("input_size", input_size, least=base.min_input_size)
        base = dataclasses.replace(base, input_size=input_size)
    check_knobs(find_rule("grid"), base.network, base.knobs)
    folder = (
        Path(out) / f"grid-{base.network}-{data if isinstance(data, str) else getattr(data, 'name', 'data')}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    tried: list[Trial] = []
    for trial in equal_cost(base, most):
        accuracies = tuple(
            _train(base, trial, seed, data, folder, {"epochs": epochs, **settings}) for seed in range(seeds)
        )
        tried.append(dataclasses.replace(trial, accuracies=accuracies))
        if tell is not None:
            alpha, beta, gamma = trial.factors
            shown = ", ".join(f"{each:.2%}" for each in accuracies)
            tell(f"alpha {alpha:g}, beta {beta:g}, gamma {gamma:g}: test accuracy {shown}")
    tried.sort(key=lambda each: (-each.accuracy, each.macs))
    clear = len(tried) > 1 and min(tried[0].accuracies) > max(tried[1].accuracies)
    result = GridResult(base.network, tuple(tried), clear, folder)
    write_json(folder / "grid.json", [dataclasses.asdict(trial) for trial in tried])
    return result


def equal_cost(base: Base, most: int) -> list[Trial]:
    """Choices of factors whose networks cost twice the base's MACs, exactly counted.

    Args:
        base: the network.
        most: how many; they are spread over the grid, single axes apart.
    """
    model = CostModel(base)
    own = model(Candidate(base.knob(DEPTH), base.knob(WIDTH), base.input_size)).macs
    found: dict[Candidate, Trial] = {}
    for alpha, beta, gamma in itertools.product(STEPS, repeat=3):
        if not 0.8 * TWICE <= alpha * beta**2 * gamma**2 <= 1.25 * TWICE:
            continue
        candidate = Candidate(
            round(base.knob(DEPTH) * alpha, 2),
            round(base.knob(WIDTH) * beta, 2),
            round(base.input_size * gamma),
        )
        macs = model(candidate).macs
        if abs(macs / own / TWICE - 1.0) <= TOLERANCE:
            found.setdefault(candidate, Trial((alpha, beta, gamma), *candidate, macs))
    if not found:
        raise ValueError(f"no factors of {STEPS} give {base.network} twice its cost within {TOLERANCE:.0%}")
    return spread(sorted(found.values(), key=lambda each: each.factors), most)


def spread(trials: Sequence[Trial], most: int) -> list[Trial]:
    """At most so many, evenly over a sorted list, its ends among them."""
    if len(trials) <= most:
        return list(trials)
    if most == 1:
        return [trials[len(trials) // 2]]
    return [trials[round(i * (len(trials) - 1) / (most - 1))] for i in range(most)]


def _train(
    base: Base, trial: Trial, seed: int, data: Any, folder: Path, settings: Mapping[str, Any]
) -> float:
    """Test accuracy of a training, which is taken, resumed or begun."""
    from convatlas.training.train import resume, train

    model = {**without_data(base.overrides), DEPTH: trial.depth_mult, WIDTH: trial.width_mult}
    said = json.dumps([model, trial.input_size, dict(settings)], sort_keys=True, default=str)
    name = f"d{trial.depth_mult:g}-w{trial.width_mult:g}-{trial.input_size}px-{_digest(said)}-seed{seed}"
    there = folder / name
    given = None if isinstance(data, str) else data
    if (there / RECORD).is_file():
        run = open_run(there)
        return (run if run.state == "finished" else resume(there, data=given)).test_accuracy
    options: dict[str, Any] = dict(settings)
    return train(
        base.network,
        data=data,
        seed=seed,
        out=folder,
        name=name,
        model=model,
        input_size=trial.input_size,
        keep=1,
        **options,
    ).test_accuracy


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]
