"""Compound scaling: networks of equal cost, the verdict on made-up errors, and a tiny run."""

from pathlib import Path
from typing import Any

import pytest

from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import open_base
from convatlas.studies.compound_scaling import (
    ARMS,
    AXES,
    RULE_NAMES,
    CompoundScalingKnobs,
    equal_macs,
    find,
)
from convatlas.studies.context import run_study
from convatlas.studies.verdict import Verdict, conclude


def test_networks_of_equal_macs() -> None:
    base = open_base("resnet20_cifar")
    model = CostModel(base)
    own = model(Candidate(1.0, 1.0, 32)).macs
    found = equal_macs(base, model, CompoundScalingKnobs(cost=3.0, rounds=1))
    assert [each.rule for each in found] == list(RULE_NAMES)
    for each in found:
        sheet = model.sheet(each.candidate)
        assert (each.params, each.macs) == (sheet.params, sheet.macs)
        assert 0.8 * 3.0 * own < each.macs <= 3.0 * own
    by_rule = {each.rule: each.candidate for each in found}
    assert by_rule["depth"][1:] == (1.0, 32)
    assert (by_rule["width"].depth_mult, by_rule["width"].input_size) == (1.0, 32)
    assert by_rule["resolution"][:2] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("axis", "fast", "verdict"),
    [(12.0, 8.0, Verdict.HOLDS), (9.0, 12.0, Verdict.FAILS), (10.0, 12.0, Verdict.OPEN)],
    ids=["each axis errs more", "an axis errs less", "within noise"],
)
def test_verdict(axis: float, fast: float, verdict: Verdict) -> None:
    noise = (0.1, 0.0, -0.1)
    rules = {"compound": [10.0] * 3, "fast": [fast] * 3}
    errors = {arm: rules | {name: [axis + n for n in noise] for name in AXES} for arm in ARMS}
    assert conclude(find(errors)) is verdict


def test_tiny_run(tmp_path: Path) -> None:
    said: list[str] = []
    knobs: dict[str, Any] = {
        "data": "digits", "images": 40, "test_images": 40, "px": 8, "epochs": 1, "seeds": 1,
        "cost": 1.5, "rounds": 1, "rules": ["compound", "width"],
    }  # fmt: skip
    folder, record = run_study("compound-scaling", out=tmp_path, log=said.append, **knobs)
    assert record["verdict"] == Verdict.OPEN
    assert (folder / "compound-scaling.png").stat().st_size > 0
    assert len(said) == 4
    kept = list((tmp_path / "runs").glob("compound-scaling-*.json"))
    assert len(kept) == 1


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"cost": 1.0}, "`cost`=1.0; expected more than 1"),
        ({"rounds": 0}, "`rounds`=0"),
        ({"rules": ("width", "compound")}, "expected compound first"),
    ],
)
def test_bad_knobs(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompoundScalingKnobs(**knobs)
