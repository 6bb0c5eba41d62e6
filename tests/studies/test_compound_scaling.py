"""Compound scaling: networks of equal cost, the verdict on made-up errors, and a tiny run."""

from typing import Any

import pytest

from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import open_base
from convatlas.studies.networks.compound_scaling import RULE_NAMES, CompoundScalingKnobs, equal_macs


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
    ("knobs", "message"),
    [
        ({"cost": 1.0}, "`cost`=1.0; expected more than 1"),
        ({"rounds": 0}, "`rounds`=0"),
    ],
)
def test_bad_knobs(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompoundScalingKnobs(**knobs)
