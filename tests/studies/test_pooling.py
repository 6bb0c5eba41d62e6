"""The order of activation and pooling, computed; the verdict on made-up errors; the study on a few digits."""

from pathlib import Path

import pytest
import torch

from convatlas.models.registry import create_model
from convatlas.studies.context import run_study
from convatlas.studies.pooling import Errors, activations, facts, find, make_lenet, order_difference
from convatlas.studies.verdict import Verdict, conclude


def test_the_mean_behind_the_activation_is_the_lenet_of_the_registry() -> None:
    ours, theirs = make_lenet("mean", "before").eval(), create_model("lenet5").eval()
    names = {
        f"stages.{i}.0.{what}": f"stages.{i}.0.conv.{what}" for i in (0, 1) for what in ("weight", "bias")
    }
    own = theirs.state_dict()
    ours.load_state_dict({name: own[names.get(name, name)] for name in ours.state_dict()})
    x = torch.randn(2, 1, 32, 32)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("kind", "same"), [("max", True), ("mean", False)])
def test_only_with_a_maximum_the_order_makes_no_difference(kind: str, same: bool) -> None:
    assert (order_difference(kind, seed=3) == 0.0) is same


def test_activations_by_hand() -> None:
    assert activations("before") == 6 * 28 * 28 + 16 * 10 * 10
    assert activations("behind") == 6 * 14 * 14 + 16 * 5 * 5


def errors(mean: float, largest: float) -> Errors:
    noise = (-0.1, 0.0, 0.1)
    return {
        ("mean", "before"): [mean + n for n in noise],
        ("mean", "behind"): [15.0 for _ in noise],
        ("max", "before"): [largest - n for n in noise],
    }


@pytest.mark.parametrize(
    ("mean", "largest", "verdict"),
    [(14.0, 13.0, Verdict.HOLDS), (13.0, 14.0, Verdict.FAILS), (13.5, 13.5, Verdict.OPEN)],
    ids=["maximum better", "mean better", "alike"],
)
def test_verdict(mean: float, largest: float, verdict: Verdict) -> None:
    computed = facts({"max": 0.0, "mean": 0.3}, {"before": 6304, "behind": 1576})
    assert conclude((*computed, *find(errors(mean, largest)))) is verdict


def test_an_order_that_matters_to_a_maximum_refutes() -> None:
    computed = facts({"max": 0.1, "mean": 0.3}, {"before": 6304, "behind": 1576})
    assert conclude((*computed, *find(errors(14.0, 13.0)))) is Verdict.FAILS


def test_the_whole_study_on_digits(tmp_path: Path) -> None:
    folder, record = run_study(
        "pooling", out=tmp_path, data="digits", images=100, test_images=40, epochs=1, seeds=1
    )
    assert record["verdict"] == "no evidence at this budget"  # one seed
    assert (folder / "pooling.png").stat().st_size > 0
    assert "| max | behind | as before it | - |" in (folder / "report.md").read_text()
