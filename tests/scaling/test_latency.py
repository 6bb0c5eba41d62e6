"""Latency: the search with made-up measurements, and one that is real."""

import math
from pathlib import Path

import pytest

from convatlas.scaling import compare_rules, latency, measure, plan
from convatlas.scaling.cost import Candidate, CostModel
from convatlas.scaling.families import open_base
from convatlas.scaling.latency import LatencyModel, read_kept
from convatlas.sizing import Profile

CURVE = ((1, 1e10), (10**6, 1e10))
RATES = dict.fromkeys(("conv", "pointwise", "depthwise", "matmul", "pool", "exp"), CURVE)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Candidate]:
    """A machine that takes 1.7 ms and 1.3 times as long as its roofline; returns what it measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    profile = Profile("cpu", "made up", 1, {}, {"float32": RATES}, ((1024, 1e10), (10**9, 1e10)), 1e-6)
    monkeypatch.setattr(latency, "find_profile", lambda: profile)
    latency._profile.cache_clear()
    measured: list[Candidate] = []

    def time_candidate(candidate: Candidate, timed: LatencyModel, time_limit: float) -> float:
        assert time_limit > 0
        seconds = 1.7e-3 + 1.3 * timed.prior(candidate)
        measured.append(candidate)
        timed.add(candidate, seconds, "native" if timed.engine == "auto" else timed.engine)
        return seconds

    monkeypatch.setattr(measure, "time_candidate", time_candidate)
    return measured


def true_seconds(found: Candidate, network: str) -> float:
    base = open_base(network)
    model = LatencyModel(base, CostModel(base), 1, "auto", None)
    return 1.7e-3 + 1.3 * model.prior(found)


@pytest.mark.parametrize(
    ("network", "milliseconds"),
    [("resnet18", 60.0), ("resnet18", 400.0), ("mobilenet_v2_100", 25.0), ("resnet20_cifar", 4.0)],
)
def test_a_latency_is_met_within_five_per_cent(
    machine: list[Candidate], network: str, milliseconds: float
) -> None:
    found = plan(network, latency=f"{milliseconds}ms", threads=1)
    assert found.measured
    assert found.engine == "native"
    assert found.latency_ms is not None
    assert 0.95 * milliseconds <= found.latency_ms <= milliseconds
    candidate = Candidate(found.depth_mult or 1.0, found.width_mult or 1.0, found.input_size)
    assert math.isclose(true_seconds(candidate, network) * 1e3, found.latency_ms, rel_tol=1e-6)
    assert len(machine) <= 6


def test_answers_are_remembered(machine: list[Candidate]) -> None:
    first = plan("resnet20_cifar", latency="4ms", threads=1)
    count = len(machine)
    assert [each.candidate for each in read_kept()] == machine
    assert plan("resnet20_cifar", latency="4ms", threads=1) == first
    assert len(machine) == count


def test_other_rules_are_predicted_with_what_was_measured(machine: list[Candidate]) -> None:
    plans = compare_rules("resnet20_cifar", latency="4ms", rule="compound", threads=1)
    assert plans[0].measured
    assert not any(each.measured for each in plans[1:] if each.rule != "efficientnet-v2")
    for each in plans[1:]:
        candidate = Candidate(each.depth_mult or 1.0, each.width_mult or 1.0, each.input_size)
        assert each.latency_ms is not None
        assert true_seconds(candidate, each.network) * 1e3 == pytest.approx(each.latency_ms, rel=0.25)
    assert machine


def test_latency_beside_another_budget(machine: list[Candidate]) -> None:
    found = plan("resnet20_cifar", latency="8ms", params="400k", threads=1)
    assert found.params <= 400_000
    assert found.latency_ms is not None
    assert found.latency_ms <= 8.0
    assert machine
    with pytest.raises(ValueError, match="contradict each other"):
        plan("resnet20_cifar", latency="300ms", params="100k", threads=1)


def test_a_latency_that_no_network_has(machine: list[Candidate]) -> None:
    with pytest.raises(ValueError, match="`--latency 1us`: resnet20_cifar by the rule compound"):
        plan("resnet20_cifar", latency="1us", threads=1)
    assert not machine


def test_a_damaged_memory_is_none(machine: list[Candidate]) -> None:
    latency.home().parent.mkdir(parents=True)
    latency.home().write_text("{", encoding="utf-8")
    assert read_kept() == []
    plan("resnet20_cifar", latency="4ms", threads=1)
    assert len(read_kept()) == len(machine)


def test_a_real_measurement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = open_base("resnet20_cifar")
    model = LatencyModel(base, CostModel(base), 2, "eager", 1)
    candidate = Candidate(0.34, 0.5, 16)
    seconds = measure.time_candidate(candidate, model, 30.0)
    assert 0 < seconds < 5
    assert model.engine == "eager"
    assert model.predict(candidate) == seconds
