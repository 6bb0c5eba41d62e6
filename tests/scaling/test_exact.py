"""Costs of scaled networks: those that papers and other libraries have, and those of `size`."""

import itertools
import math
from typing import Any

import pytest
import torch
import torchvision

from convatlas import create_model, find_card, size
from convatlas.scaling import FAMILIES, Space, compare_rules, describe, open_base, plan
from convatlas.scaling.cost import Candidate, CostModel

COEFFICIENTS = {
    "efficientnet_b0": (1.0, 1.0, 224),
    "efficientnet_b1": (1.1, 1.0, 240),
    "efficientnet_b2": (1.2, 1.1, 260),
    "efficientnet_b3": (1.4, 1.2, 300),
    "efficientnet_b4": (1.8, 1.4, 380),
    "efficientnet_b5": (2.2, 1.6, 456),
    "efficientnet_b6": (2.6, 1.8, 528),
    "efficientnet_b7": (3.1, 2.0, 600),
}
"""The authors' code: depth, width, px."""

MOBILENET = {
    (1.0, 224): (568_740_352, 4_231_976),
    (0.75, 224): (325_400_448, 2_585_560),
    (0.5, 224): (149_497_088, 1_331_592),
    (0.25, 224): (41_030_272, 470_072),
    (1.0, 192): (418_121_728, 4_231_976),
    (1.0, 160): (290_675_200, 4_231_976),
    (1.0, 128): (186_400_768, 4_231_976),
    (0.5, 160): (76_524_800, 1_331_592),
}
"""alpha and px: MACs and parameters, derived from Tables 1 and 6 to 9 of MobileNet's paper."""


def sheet_of(network: Any, px: int, **overrides: Any) -> tuple[int, int]:
    """Parameters and MACs, by tracing."""
    with torch.device("meta"):
        sheet = size(create_model(network, **overrides).eval(), px)
    return sheet.params, sheet.macs


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_b0_to_b7_follow_from_their_coefficients(name: str) -> None:
    depth, width, px = COEFFICIENTS[name]
    found = describe("efficientnet", depth_mult=depth, width_mult=width, input_size=px)
    exact = find_card(name).exact
    assert exact is not None
    assert (found.params, found.macs) == (exact.params, exact.macs)
    assert find_card(name).input_size[-1] == px


@pytest.mark.parametrize(("alpha", "px"), MOBILENET)
def test_mobilenets_alpha_and_rho(alpha: float, px: int) -> None:
    found = describe("mobilenet_v1", width_mult=alpha, input_size=px)
    assert (found.macs, found.params) == MOBILENET[alpha, px]


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_are_those_of_size(family: str) -> None:
    base = open_base(family)
    model = CostModel(base)
    shallow = ((0.3, 1.3, 1.2),) if family in ("efficientnet", "resnet", "vgg", "mobilenet_v2") else ()
    for depth, width, share in ((1.6, 0.8, 0.7), *shallow):
        candidate = Candidate(
            round(base.knob("depth_mult") * depth, 2),
            round(base.knob("width_mult") * width, 2),
            max(base.min_input_size, round(base.input_size * share)),
        )
        sheet = model.sheet(candidate)
        assert model(candidate) == (sheet.params, sheet.macs)


@pytest.mark.parametrize("family", ["mobilenet_v2", "resnet", "densenet_cifar", "nasnet", "xception"])
def test_memory_and_activations_are_those_of_size(family: str) -> None:
    base = open_base(family)
    model = CostModel(base)
    candidate = Candidate(1.4, 0.75, base.input_size)
    sheet = model.sheet(candidate, 2)
    assert model.memory(candidate, 2) == sheet.peak_inference_bytes
    assert model.activations(candidate) == model.sheet(candidate).activations


def test_a_resnets_depth_and_width_are_torchvisions() -> None:
    deep = torchvision.models.resnet.ResNet(torchvision.models.resnet.BasicBlock, [3, 3, 3, 3])
    assert describe("resnet18", depth_mult=1.5).params == sum(p.numel() for p in deep.parameters())
    assert describe("resnet18", depth_mult=1.5).depths == (3, 3, 3, 3)


def test_a_densenets_growth_is_torchvisions() -> None:
    peer = torchvision.models.DenseNet(growth_rate=24, block_config=(6, 12, 24, 16), num_init_features=48)
    assert describe("densenet121", width_mult=0.75).params == sum(p.numel() for p in peer.parameters())


@pytest.mark.parametrize(
    ("family", "macs", "params"),
    [
        ("efficientnet", "800M", None),
        ("mobilenet_v1", "150M", None),
        ("mobilenet_v2", "1G", None),
        ("resnet_basic", None, "8M"),
        ("preact_resnet", "2G", None),
        ("wide_resnet_cifar", None, "5M"),
        ("densenet", "1G", "6M"),
        ("googlenet", "700M", None),
        ("vgg_bn", None, "50M"),
    ],
)
def test_plans_keep_their_budgets_and_equal_size(family: str, macs: str | None, params: str | None) -> None:
    found = plan(family, macs=macs, params=params)
    assert (found.params, found.macs) == sheet_of(found, found.input_size)
    assert max(found.use.values()) <= 1.0
    assert max(found.use.values()) > 0.94


def test_the_plan_equals_brute_force() -> None:
    space = Space([0.5, 0.8, 1.3], [0.5, 0.75, 1.0], [128, 176, 224])
    limit = 200e6
    found = plan("mobilenet_v2", macs=limit, rule="compound", space=space)
    costs = {
        each: sheet_of("mobilenet_v2_100", each[2], depth_mult=each[0], width_mult=each[1])[1]
        for each in itertools.product(space.depth_mults, space.width_mults, space.input_sizes)
    }
    fitting = {each: cost for each, cost in costs.items() if cost <= limit}
    close = [each for each, cost in fitting.items() if cost >= 0.99 * limit]
    best = min(close, key=distance) if close else max(fitting, key=lambda each: fitting[each])
    assert (found.depth_mult, found.width_mult, found.input_size) == best


def distance(each: tuple[float, float, int]) -> float:
    """From the curve of 1.2, 1.1 and 1.15, in the logarithms of what each knob multiplies the cost by."""
    place = (math.log(each[0]), 2 * math.log(each[1]), 2 * math.log(each[2] / 224))
    ray = (math.log(1.2), 2 * math.log(1.1), 2 * math.log(1.15))
    along = sum(place) / sum(ray)
    return math.dist(place, [along * step for step in ray])


def test_printed_takes_the_largest_published_network_that_fits() -> None:
    found = plan("efficientnet", macs="2G", rule="printed")
    assert (found.network, found.overrides, found.input_size) == ("efficientnet_b3", {}, 300)
    narrow = plan("mobilenet_v1", macs="100M", rule="printed")
    assert (narrow.network, narrow.input_size) == ("mobilenet_v1_050", 160)


def test_every_rule_is_compared_and_the_asked_one_comes_first() -> None:
    plans = compare_rules("resnet20_cifar", macs="80M", rule="fast")
    names = [each.rule for each in plans]
    assert names[0] == "fast"
    assert set(names) == {
        "fast", "compound", "printed", "resnet-rs", "efficientnet-v2", "depth", "width", "resolution",
    }  # fmt: skip
    for each in plans:
        assert each.macs <= 80e6
        assert list(each.record())[:7] == [
            "rule", "network", "overrides", "input_size", "params", "macs", "latency_ms",
        ]  # fmt: skip


def test_single_axes_turn_one_knob_only() -> None:
    deep = plan("resnet18", macs="3G", rule="depth")
    assert set(deep.overrides) == {"depth_mult"}
    assert deep.input_size == 224
    wide = plan("resnet18", macs="3G", rule="width")
    assert set(wide.overrides) == {"width_mult"}
    large = plan("resnet18", macs="3G", rule="resolution")
    assert large.overrides == {}
    assert large.input_size > 224


def test_fast_has_fewer_activations_than_compound() -> None:
    """Dollar et al. 2021: for the same cost."""
    fast, compound = (plan("efficientnet", macs="3G", rule=rule) for rule in ("fast", "compound"))
    assert fast.activations < 0.8 * compound.activations


def test_efficientnet_v2_caps_the_input() -> None:
    found = plan("efficientnet", macs="30G", rule="efficientnet-v2")
    assert found.input_size <= 480 < plan("efficientnet", macs="30G").input_size


def test_own_factors_input_range_and_overrides() -> None:
    found = plan("resnet18", macs="500M", factors=(1.0, 1.4, 1.0), input_range=(96, 160))
    assert found.depth_mult == 1.0
    assert found.input_size == 160
    few = plan("resnet18", params="2M", overrides={"num_classes": 10})
    assert few.overrides["num_classes"] == 10
    assert (few.params, few.macs) == sheet_of(few, few.input_size)
