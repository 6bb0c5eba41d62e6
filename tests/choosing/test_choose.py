"""`choose`: which networks fit, in which order, and why the others fell out."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from convatlas.benchmark.measurement import Measurement, keep_measurement
from convatlas.choosing import choose as room
from convatlas.choosing.choose import Limits, choose, parse_time
from convatlas.engines import cache
from convatlas.engines.backend import BackendConfig
from convatlas.engines.engine import EngineResult
from convatlas.engines.request import read_request
from convatlas.models.registry import create_model

MOBILE = "mobilenet_v1_*"


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache folder that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Networks that were measured, in place of measuring: each takes its index in 10 ms."""
    names: list[str] = []

    def measure(name: str, **options: Any) -> list[Measurement]:
        names.append(name)
        return [measurement(name, 0.01 * len(names))]

    monkeypatch.setattr(room, "bench", measure)
    return names


def measurement(network: str, latency: float | None, engine: str = "eager") -> Measurement:
    size = (3, 224, 224)
    return Measurement(
        network, engine, 1, size, "fp32", 1, "cpu", latency, latency, 1.0, None, 0.0, 1, 1, None
    )


def test_the_most_accurate_come_first() -> None:
    found = choose([MOBILE, "alexnet"])
    assert [(each.network, each.accuracy.top1) for each in found.candidates] == [
        ("mobilenet_v1_100", 70.6),
        ("mobilenet_v1_075", 68.4),
        ("mobilenet_v1_050", 63.7),
        ("alexnet", 59.3),
        ("mobilenet_v1_025", 50.6),
    ]
    assert not found.dropped


@pytest.mark.parametrize(
    ("limits", "reason", "names"),
    [
        pytest.param(
            Limits(min_top1=65), "below 65 % top-1", ("mobilenet_v1_025", "mobilenet_v1_050"), id="top1"
        ),
        pytest.param(
            Limits(max_params=2e6),
            "above 2M parameters",
            ("mobilenet_v1_075", "mobilenet_v1_100"),
            id="params",
        ),
        pytest.param(Limits(max_macs=4e8), "above 400M MACs", ("mobilenet_v1_100",), id="macs"),
    ],
)
def test_limits_that_need_no_measuring(
    asked: list[str], limits: Limits, reason: str, names: tuple[str, ...]
) -> None:
    found = choose(MOBILE, limits)
    assert found.dropped == {reason: names}
    assert len(found.candidates) == 4 - len(names)
    assert not asked


@pytest.mark.parametrize("name", ["vgg19_bn", "lenet5"], ids=["no-figure", "other-data"])
def test_without_a_published_accuracy(name: str) -> None:
    assert choose(name).dropped == {"without a published ImageNet top-1": (name,)}


def test_only_what_passed_the_other_limits_is_measured(asked: list[str]) -> None:
    said: list[tuple[str, int, int]] = []
    limits = Limits(max_latency=0.015, min_top1=65)
    found = choose(MOBILE, limits, engine="eager", threads=1, progress=lambda *step: said.append(step))
    assert asked == ["mobilenet_v1_100", "mobilenet_v1_075"]
    assert said == [("mobilenet_v1_100", 1, 2), ("mobilenet_v1_075", 2, 2)]
    assert [(each.network, each.latency) for each in found.candidates] == [("mobilenet_v1_100", 0.01)]
    assert found.dropped["slower than 15 ms"] == ("mobilenet_v1_075",)


def test_what_was_measured_before_is_used(asked: list[str]) -> None:
    keep_measurement(measurement("mobilenet_v1_100", 0.004))
    keep_measurement(measurement("mobilenet_v1_075", 0.003, engine="openvino"))
    found = choose(MOBILE, Limits(max_latency=1, min_top1=65), threads=1)
    assert asked == ["mobilenet_v1_075"]
    assert [each.latency for each in found.candidates] == [0.004, 0.01]


def test_measured_anew_where_asked_for(asked: list[str]) -> None:
    keep_measurement(measurement("mobilenet_v1_100", 0.004))
    found = choose("mobilenet_v1_100", threads=1, measure=True)
    assert asked == ["mobilenet_v1_100"]
    assert found.candidates[0].latency == 0.01


def test_an_engine_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "bench", lambda name, **options: [measurement(name, None, "openvino")])
    found = choose("alexnet", Limits(max_latency=1), engine="openvino")
    assert found.dropped == {"that do not run on openvino": ("alexnet",)}


def test_measures_for_real() -> None:
    found = choose("mobilenet_v1_025", Limits(max_latency=100), threads=1)
    latency = found.candidates[0].latency
    assert latency is not None
    assert latency > 0
    assert found.candidates[0].engine == "eager"
    assert "p50 of a batch of 1, 1 thread, on this machine" in found.text()


def result(engine: str, seconds: float) -> EngineResult:
    return EngineResult(engine, BackendConfig(), seconds, 0.0, 1.0)


def keep_choice(network: str, engine: str, seconds: float) -> None:
    """As if `optimize` had chosen it before, for weights of somebody's."""
    request = read_request(create_model(network), (3, 224, 224), 1, "fp32", None, 0.9, None, 1)
    key = cache.choice_key(create_model(network).eval(), asdict(request) | {"calibration": ""}, "cpu")
    cache.keep_choice(key, cache.Choice((result(engine, seconds),), "weights", None))


@pytest.mark.parametrize("engine", [None, "auto"])
def test_what_optimize_remembers_is_used(asked: list[str], engine: str | None) -> None:
    keep_choice("mobilenet_v1_025", "openvino", 0.002)
    keep_measurement(measurement("mobilenet_v1_025", 0.004))
    found = choose("mobilenet_v1_025", Limits(max_latency=0.003), threads=1, engine=engine)
    assert [(each.latency, each.engine) for each in found.candidates] == [(0.002, "openvino")]
    assert "openvino" in found.text()
    assert not asked
    other = choose("mobilenet_v1_025", Limits(max_latency=0.003), threads=1, engine="eager")
    assert other.dropped == {"slower than 3 ms": ("mobilenet_v1_025",)}


@pytest.mark.parametrize(
    ("limit", "engine", "searched"),
    [
        pytest.param(0.010, None, False, id="eager-fits"),
        pytest.param(0.009, None, True, id="only-an-engine-may-fit"),
        pytest.param(0.0016, None, False, id="no-engine-can-fit"),
        pytest.param(0.010, "auto", True, id="asked-for"),
    ],
)
def test_the_fastest_engine_is_sought_where_it_pays(
    limit: float, engine: str | None, searched: bool, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sought: list[tuple[Any, ...]] = []

    def optimize(net: Any, *given: Any, threads: int, remember: bool) -> Any:
        sought.append((net.name, *given, threads, remember))
        return SimpleNamespace(name="ncnn", report=SimpleNamespace(chosen=result("ncnn", 0.005)))

    monkeypatch.setattr(room, "optimize", optimize)
    found = choose("mobilenet_v1_025", Limits(max_latency=limit), threads=1, engine=engine)
    assert bool(sought) == searched
    if searched:
        assert sought == [("mobilenet_v1_025", (3, 224, 224), 1, 1, True)]
        assert [(each.latency, each.engine) for each in found.candidates] == [(0.005, "ncnn")]


def test_text() -> None:
    text = choose([MOBILE, "lenet5"], Limits(min_top1=70)).text()
    assert "mobilenet_v1_100" in text
    assert text.splitlines()[-1] == "1 fit; 3 below 70 % top-1; 1 without a published ImageNet top-1"


def test_text_where_none_fits() -> None:
    assert choose(MOBILE, Limits(min_top1=99)).text() == "no network fits; 4 below 99 % top-1\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("10ms", 0.01, id="ms"),
        pytest.param("0.01s", 0.01, id="s"),
        pytest.param("500us", 0.0005, id="us"),
        pytest.param("2 s", 2.0, id="space"),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time("max-latency", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["10", "ms", "-1ms", "1e3ms", "tenms", "1.2.3s", ""])
def test_bad_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"`max-latency`='.*'; expected a time with its unit, such as 10ms"):
        parse_time("max-latency", text)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        pytest.param({"max_latency": 0.0}, "`max_latency`=0.0; expected more than 0", id="latency"),
        pytest.param({"max_params": -1.0}, "`max_params`=-1.0; expected more than 0", id="params"),
        pytest.param({"max_macs": float("nan")}, "`max_macs`=nan; expected more than 0", id="macs"),
        pytest.param({"min_top1": 0.7}, "`min_top1`=0.7; expected per cent, from 1 to 100", id="share"),
    ],
)
def test_bad_limits(limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits(**limits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"engine": "onyx"}, "unknown engine 'onyx'", id="engine"),
        pytest.param({"engine": "all"}, "unknown engine 'all'", id="all-engines"),
        pytest.param({"batch_size": 0}, "`batch_size`=0; expected a whole number", id="batch"),
        pytest.param({"threads": 0}, "`threads`=0; expected a whole number", id="threads"),
        pytest.param({"names": "alexnut"}, "unknown network 'alexnut'", id="name"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(**{"names": "alexnet"} | options)
