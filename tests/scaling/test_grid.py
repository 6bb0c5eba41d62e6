"""The small grid search: equal costs, and two tiny trainings that are done once."""

from pathlib import Path
from typing import Any

import pytest

from convatlas.scaling import grid_search, open_base, plan
from convatlas.scaling.grid import equal_cost


def test_choices_cost_twice_the_base() -> None:
    base = open_base("resnet18")
    own = 1_814_073_344  # convolutions and the classifier, as torchvision's network has them
    trials = equal_cost(base, 6)
    assert 2 <= len(trials) <= 6
    for trial in trials:
        assert trial.macs == pytest.approx(2 * own, rel=0.05)


def test_a_search_trains_once_and_gives_factors(tmp_path: Path) -> None:
    said: list[str] = []
    few = {"num_classes": 10, "in_chans": 1}
    options: dict[str, Any] = {"data": "digits", "epochs": 1, "most": 2, "input_size": 8, "overrides": few}
    first = grid_search("resnet20_cifar", out=tmp_path, tell=said.append, **options)
    assert len(said) == 2
    assert first.trials[0].accuracy >= first.trials[1].accuracy
    assert (first.folder / "grid.json").is_file()
    times = {path: path.stat().st_mtime_ns for path in first.folder.glob("*/run.json")}
    again = grid_search("resnet20_cifar", out=tmp_path, **options)
    assert again.trials == first.trials
    assert {path: path.stat().st_mtime_ns for path in first.folder.glob("*/run.json")} == times
    found = plan("resnet20_cifar", macs="100M", rule="grid", factors=first.factors)
    assert found.rule == "grid"
    assert found.macs <= 100e6


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("resnet18", {"epochs": 0}, "`epochs`=0; expected a whole number of at least 1"),
        ("googlenet", {}, "scales depth, which googlenet has no knob for"),
        ("densenet121", {"input_size": 8}, "`input_size`=8; expected a whole number of at least 29"),
    ],
)
def test_bad_searches(tmp_path: Path, network: str, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_search(network, data="digits", out=tmp_path, **options)
