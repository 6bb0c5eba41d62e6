"""What the planner refuses, and what it says."""

from typing import Any

import pytest

from convatlas.errors import UnknownNameError
from convatlas.scaling import describe, plan, read_amount


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"macs": "1k"}, r"its smallest has 4\d\dk \(depth 0.1, width 0.1, 28 px\) and its largest has"),
        ({"macs": "900T"}, r"does not reach it: its smallest has .* and its largest has [\d.]+T"),
        ({"params": "10M", "rule": "resolution"}, "by the rule resolution does not change it"),
        (
            {"macs": "1G", "params": "200M"},
            r"--macs 1G and --params 200M contradict each other: .* 5% of what",
        ),
        ({"macs": "800X"}, "has the unit 'X'; a budget of macs takes k, M, G, B, T, such as 800M"),
        ({"latency": "20"}, "has no unit; a budget of latency takes us, ms, s, such as 20ms"),
        ({"memory": "20M"}, "has the unit 'M'; a budget of memory takes B, kB"),
        ({"macs": "-5M"}, "expected a number with its unit, such as 800M"),
        ({"macs": 0}, "expected a finite amount above 0"),
        ({"macs": "1e999"}, "expected a finite amount above 0"),
        ({}, "no budget is given"),
        ({"macs": "1G", "input_range": (300, 200)}, r"`--input 300..200`; expected the smaller size first"),
        ({"macs": "1G", "batch_size": 0}, "`batch_size`=0; expected a whole number of at least 1"),
        ({"macs": "1G", "factors": (0.5, 1.1, 1.1)}, "`alpha`=0.5; expected a factor of at least 1"),
        ({"macs": "1G", "factors": (1.0, 1.0, 1.0)}, "nothing grows"),
        ({"macs": "1G", "rule": "fast", "factors": (1.2, 1.1, 1.1)}, "only the rule compound has them"),
        ({"macs": "1G", "rule": "grid"}, "needs --data"),
    ],
)
def test_bad_questions(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan("efficientnet", **given)


def test_a_rule_without_its_knob_names_the_rules_that_fit() -> None:
    with pytest.raises(
        ValueError, match=r"scales depth, which googlenet has no knob for; .* printed, width, resolution"
    ):
        plan("googlenet", macs="1G", rule="depth")


def test_a_network_without_knobs_names_the_families() -> None:
    with pytest.raises(ValueError, match=r"alexnet has neither `depth_mult` nor `width_mult`.*efficientnet"):
        plan("alexnet", macs="1G")


@pytest.mark.parametrize(
    ("network", "given", "message"),
    [
        ("efficientnt", {}, "unknown family or network 'efficientnt'; nearest: efficientnet"),
        ("resnet18", {"rule": "compund"}, "unknown rule 'compund'; nearest: compound"),
        ("resnet18", {"engine": "onnx"}, "unknown engine 'onnx'; nearest: onnxruntime"),
        ("resnet18", {"overrides": {"shortcutt": "A"}}, "has no option `shortcutt`"),
    ],
)
def test_unknown_names(network: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        plan(network, macs="1G", **given)


def test_an_input_range_below_the_smallest_input() -> None:
    with pytest.raises(ValueError, match="inception_v3 takes at least 75 px"):
        plan("inception_v3", macs="1G", input_range=(50, 60))


def test_a_budget_below_every_printed_network() -> None:
    with pytest.raises(
        ValueError,
        match="no printed network of efficientnet_b0's family keeps it; there are efficientnet_b0,",
    ):
        plan("efficientnet", macs="10M", rule="printed")


def test_describe_refuses_a_knob_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"`depth_mult`=2\.0; googlenet has no such knob"):
        describe("googlenet", depth_mult=2.0)
    with pytest.raises(ValueError, match="`input_size`=20; expected a whole number of at least 29"):
        describe("densenet121", input_size=20)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [("macs", "0.8G", 8e8), ("params", "10M", 1e7), ("memory", "1KiB", 1024), ("latency", "20 ms", 0.02)],
)
def test_amounts(kind: str, text: str, value: float) -> None:
    assert read_amount(kind, text) == pytest.approx(value)
