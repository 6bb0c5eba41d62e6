"""`bench`: what is measured, written and kept."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from convatlas.benchmark import bench as room
from convatlas.benchmark.bench import bench, find_names, peak_memory
from convatlas.benchmark.chart import draw_bench
from convatlas.benchmark.measurement import Measurement, find_measurement, home, keep_measurement
from convatlas.benchmark.report import bench_grid, bench_records
from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import find_card
from convatlas.engines.engine import Engine
from convatlas.engines.optimize import optimize
from convatlas.errors import UnknownNameError
from convatlas.escape import json_text
from convatlas.tables import grid_text, records_csv
from made_figures import faults, texts


@pytest.fixture(scope="module", autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of our own, for all tests of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def rows(memory: Path) -> list[Measurement]:
    """Eager measured, and "torch" played by eager: building engines is what `test_optimize.py` is for."""

    def stand_in(*arguments: Any, engines: tuple[str, ...], **options: Any) -> Engine:
        engine = optimize(*arguments, engines=("eager",), **options | {"remember": False})
        results = (dataclasses.replace(engine.report.chosen, engine=engines[0], error=1e-6),)
        return Engine(engine, dataclasses.replace(engine.report, results=results))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "optimize", stand_in)
        return bench(
            ["lenet5", "mobilenet_v1_025"],
            batch_sizes=(1, 3),
            engines=("eager", "torch"),
            input_size=32,
            threads=1,
            seconds=0.0,
        )


def row(network: str = "resnet50_v1", **changes: Any) -> Measurement:
    known = Measurement(
        network=network,
        engine="eager",
        batch=1,
        input_size=(3, 224, 224),
        precision="fp32",
        threads=2,
        device="cpu",
        latency=0.0125,
        latency_p95=0.02,
        images_per_second=80.0,
        peak_memory=3 * 1024**2,
        error=0.0,
        params=25_557_032,
        macs=3_857_973_248,
        top1=75.3,
    )
    return dataclasses.replace(known, **changes)


def test_rows_come_in_the_order_of_names_batches_and_engines(rows: list[Measurement]) -> None:
    expected = [
        (name, batch, engine)
        for name in ("lenet5", "mobilenet_v1_025")
        for batch in (1, 3)
        for engine in ("eager", "torch")
    ]
    assert [(row.network, row.batch, row.engine) for row in rows] == expected


def test_what_is_measured(rows: list[Measurement]) -> None:
    for found in rows:
        assert not found.note
        assert found.latency is not None
        assert found.latency_p95 is not None
        assert found.error is not None
        assert 0 < found.latency <= found.latency_p95
        assert found.images_per_second == pytest.approx(found.batch / found.latency)
        assert found.error <= 1e-4
        assert (found.threads, found.device, found.precision) == (1, "cpu", "fp32")
    eager = [found for found in rows if found.engine == "eager"]
    assert {found.peak_memory for found in rows if found.engine == "torch"} == {None}
    assert all(found.peak_memory and found.peak_memory > 4 * found.params for found in eager)
    # MobileNet's count is that of its card, which was counted elsewhere.
    assert eager[0].input_size == (1, 32, 32)
    assert eager[2].params == find_card("mobilenet_v1_025").exact.params
    assert {found.top1 for found in rows} == {None}


def test_rows_are_kept_for_this_machine(rows: list[Measurement]) -> None:
    first = rows[0]
    assert find_measurement("lenet5", "eager", 1, (1, 32, 32), "fp32", 1) == first
    assert find_measurement("lenet5", "eager", 1, (1, 32, 32), "fp32", 2) is None
    assert find_measurement("lenet5", "eager", 2, (1, 32, 32), "fp32", 1) is None


def test_other_versions_know_nothing_of_it(rows: list[Measurement], monkeypatch: pytest.MonkeyPatch) -> None:
    before = home()
    monkeypatch.setattr("convatlas.benchmark.measurement.versions", lambda *packages: {"torch": "99"})
    assert home() != before
    assert find_measurement("lenet5", "eager", 1, (1, 32, 32), "fp32", 1) is None


def test_a_damaged_measurement_is_none() -> None:
    kept = row("vgg16")
    keep_measurement(kept)
    (path,) = home().glob("vgg16-*.json")
    path.write_text("{", encoding="utf-8")
    assert find_measurement("vgg16", "eager", 1, (3, 224, 224), "fp32", 2) is None


def test_peak_memory_is_that_of_living_tensors() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2, bias=False)
    ).eval()
    # Weights, the image, and the largest pair of maps: ReLU's input and output.
    numbers = 4 * 9 + 256 * 2 + 10 * 10 + 256 + 256
    assert peak_memory(net, torch.zeros(1, 1, 10, 10)) == 4 * numbers


def test_a_map_written_in_place_counts_once() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(inplace=True)).eval()
    assert peak_memory(net, torch.zeros(1, 1, 10, 10)) == 4 * (36 + 100 + 256)


def test_an_engine_that_fails_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    from convatlas.engines import backend

    def missing(*packages: str, extra: str) -> None:
        raise backend.EngineError("openvino not installed: pip install openvino")

    monkeypatch.setattr(backend, "require", missing)
    rows = bench("lenet5", engines=("eager", "torch"), threads=1, seconds=0.0, remember=False)
    assert rows[0].latency is not None
    assert (rows[1].latency, rows[1].error, rows[1].images_per_second) == (None, None, None)
    assert "not installed" in rows[1].note
    assert "dropped: openvino not installed" in grid_text(bench_grid(rows))


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        pytest.param(
            "mobilenet_v1_0*", ["mobilenet_v1_025", "mobilenet_v1_050", "mobilenet_v1_075"], id="one"
        ),
        pytest.param(["lenet5", "lenet*"], ["lenet5", "lenet5_1998"], id="each-once"),
        pytest.param("resnet50", ["resnet50_v1_5"], id="alias"),
    ],
)
def test_names(patterns: str | list[str], expected: list[str]) -> None:
    assert find_names(patterns) == expected


@pytest.mark.parametrize(
    ("name", "size", "top1"),
    [
        pytest.param("alexnet", None, 59.3, id="papers-figure"),
        pytest.param("resnet50_v1", None, 75.3, id="one-crop-before-ten"),
        pytest.param("mobilenet_v2_035", None, 60.3, id="released-where-no-other"),
        pytest.param("mobilenet_v1_100", (3, 160, 160), 67.2, id="other-size"),
        pytest.param("resnet50_v1", (3, 160, 160), None, id="size-without-figure"),
        pytest.param("vgg19_bn", None, None, id="no-figure"),
        pytest.param("resnet20_cifar", None, None, id="other-data"),
    ],
)
def test_published_accuracy(name: str, size: tuple[int, int, int] | None, top1: float | None) -> None:
    found = find_accuracy(name, size)
    assert (found and found.top1) == top1


def test_table() -> None:
    rows = [row(), row(engine="torch", precision="bf16", peak_memory=None, error=0.002)]
    text = grid_text(bench_grid(rows))
    assert "12.50" in text
    assert "25.6M" in text
    assert "75.3" in text
    assert "torch bf16" in text
    assert "2e-03" in text


def test_csv_and_json_are_exact() -> None:
    rows = [row(), row(latency=None, note="why")]
    first, second = csv.DictReader(io.StringIO(records_csv(bench_records(rows))))
    assert float(first["latency"]) == 0.0125
    assert first["input_size"] == "3x224x224"
    assert (second["latency"], second["note"]) == ("", "why")
    found = json.loads(json_text(bench_records(rows)))
    assert found[0]["params"] == 25_557_032
    assert found[1]["latency"] is None


def test_image() -> None:
    rows = [row(), row("alexnet", top1=59.3, latency=0.004), row("lenet5", top1=None), row(batch=16)]
    figure = draw_bench(rows)
    assert faults(figure) == []
    assert {"resnet50_v1", "alexnet", "65 %"} <= set(texts(figure)) and "lenet5" not in figure.svg
    # A family has its colour in every chart.
    assert 'class="n-alexnet bubble"' in figure.svg and 'class="n-resnet bubble"' in figure.svg
    assert "#10161D" in draw_bench(rows, theme="dark").svg


def test_no_image_without_accuracy() -> None:
    with pytest.raises(ValueError, match="none of the networks has a published ImageNet accuracy"):
        draw_bench([row(top1=None)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"names": "lenet6"}, "unknown network 'lenet6'; nearest: lenet5", id="name"),
        pytest.param({"names": "lenot*"}, "unknown network 'lenot\\*'; nearest: lenet5", id="pattern"),
        pytest.param({"names": []}, "`names` is empty", id="nothing"),
        pytest.param({"engines": ("onyx",)}, "unknown engine 'onyx'; expected eager, torch, ", id="engine"),
        pytest.param({"engines": ()}, "`engines` is empty; expected all", id="no-engine"),
        pytest.param({"batch_sizes": (1, 0)}, "`batch_sizes`=\\(1, 0\\); expected whole", id="batch"),
        pytest.param({"threads": 0}, "`threads`=0; expected a whole number", id="threads"),
        pytest.param({"precision": "int8"}, "`precision`='int8'; expected fp32 or bf16", id="precision"),
        pytest.param({"device": "tpu"}, "`device`='tpu'; expected cpu", id="device"),
        pytest.param({"seconds": -1.0}, "`seconds`=-1.0; expected at least 0", id="seconds"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bench(**{"names": "lenet5"} | arguments)


def test_unknown_names_are_unknown_names() -> None:
    with pytest.raises(UnknownNameError):
        room.read_engines("eagr")
