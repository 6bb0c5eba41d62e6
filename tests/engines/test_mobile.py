"""ncnn, MNN, ExecuTorch and LiteRT, as engines and as files; those that are installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convatlas
import fake_engines
from convatlas.engines.backend import EngineError
from convatlas.engines.export import export
from convatlas.engines.exported import open_exported
from convatlas.engines.mobile import FORMATS, find_format
from made_images import NAMES, TRANSFORM, pixels, small_network

ENGINES = {"ncnn": ("ncnn", "pnnx"), "mnn": ("MNN",), "executorch": ("executorch",)}
PACKAGES = {
    ".ncnn.param": ("ncnn", "pnnx"),
    ".mnn": ("MNN", "onnxscript"),
    ".pte": ("executorch",),
    ".tflite": ("litert_torch", "ai_edge_litert"),
}


def is_installed(packages: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


def need(packages: tuple[str, ...]) -> None:
    if not is_installed(packages):
        pytest.skip(f"{' or '.join(packages)} is not installed")


def relative(logits: Tensor, expected: Tensor) -> float:
    return ((logits - expected).abs().max() / expected.abs().max()).item()


class TestEngines:
    def test_logits_are_the_network_s_own(self) -> None:
        names = [engine for engine, packages in ENGINES.items() if is_installed(packages)]
        if not names:
            pytest.skip("none is installed")
        net = small_network()
        found = convatlas.optimize(net, 32, 4, engines=names, threads=2, remember=False, time_limit=300)
        assert {result.engine for result in found.report.results if not result.note} == {*names}
        assert all(result.error <= 1e-4 for result in found.report.results)
        x = torch.randn(5, 3, 32, 32)
        logits = found(x)
        assert relative(logits, net(x).detach()) <= 1e-4
        found(torch.zeros_like(x))
        assert torch.equal(found(x), logits)
        if "ncnn" in names:  # The others take a batch as a whole.
            assert {result.config.at_once for result in found.report.results} == {0, 1}

    def test_an_operation_that_ncnn_has_not_got_is_named(self) -> None:
        need(ENGINES["ncnn"])

        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.fft.rfft(x.flatten(1)).abs()

        found = convatlas.optimize(Odd(), (1, 4, 4), engines=("ncnn",), remember=False, time_limit=300)
        assert found.name == "eager"
        (note,) = (result.note for result in found.report.results if result.engine == "ncnn")
        assert "fft" in note


class TestFiles:
    @pytest.mark.parametrize("suffix", FORMATS)
    def test_a_file_answers_as_the_network_and_says_how_to_prepare_images(
        self, suffix: str, tmp_path: Path
    ) -> None:
        need(PACKAGES[suffix])
        path = tmp_path / f"net{suffix}"
        batch = None if suffix == ".mnn" else 1
        made = export(small_network(), path, dynamic_batch=batch is None)
        assert made.error <= 1e-4
        assert made.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
        facts = json.loads((tmp_path / f"net{suffix}.json").read_text(encoding="utf-8"))
        assert facts["class_names"] == list(NAMES)
        assert facts["transform"]["mean"] == list(TRANSFORM.mean)
        assert facts["images"]["shape"] == [batch, 3, 32, 32]
        assert facts["logits"]["shape"] == [batch, 10]
        found = open_exported(path, threads=1)
        assert (found.name, found.input_size, found.batch_size) == ("convnet_cs231n", (3, 32, 32), batch)
        x = torch.randn(3, 3, 32, 32)
        assert relative(found(x), small_network()(x).detach()) <= 1e-4
        images = [pixels(0), pixels(1)]
        ours, theirs = (
            convatlas.load(path).predict(images),
            convatlas.Predictor(small_network()).predict(images),
        )
        assert [each.label for each in ours] == [each.label for each in theirs]

    def test_a_file_without_its_json_says_so(self, tmp_path: Path) -> None:
        (tmp_path / "net.mnn").write_bytes(b"")
        with pytest.raises(EngineError, match=r"net.mnn: expected net.mnn.json beside it"):
            open_exported(tmp_path / "net.mnn")

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            (
                "net.ncnn.param",
                {"dynamic_batch": True},
                "`dynamic_batch` is not for ncnn, whose files",
            ),
            ("net.ncnn.param", {"batch_size": 2}, "`batch_size`=2; ncnn takes one image at a time: 1"),
            ("net.pte", {"dynamic_batch": True}, "`dynamic_batch` is not for ExecuTorch"),
            ("net.tflite", {"dynamic_batch": True}, "`dynamic_batch` is not for LiteRT"),
            (
                "net.mnn",
                {"int8": True, "calibration": torch.zeros(1, 3, 32, 32)},
                "int8 is written as .onnx or",
            ),
            ("net.param", {}, r"expected a file that ends in .*\.ncnn\.param"),
        ],
    )
    def test_what_a_format_cannot_be_is_said(
        self, name: str, options: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=message):
            export(small_network(), tmp_path / name, **options)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("suffix", "hint"),
        [
            (".ncnn.param", r"pip install ncnn pnnx, or '\.\[mobile\]' in a checkout"),
            (".pte", r"pip install executorch, or '\.\[mobile\]' in a checkout"),
            (".tflite", r"pip install litert-torch ai-edge-litert, or '\.\[litert\]' in a checkout"),
        ],
    )
    def test_a_missing_package_says_what_to_install(
        self, suffix: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(EngineError, match=f"not installed: {hint}"):
            export(small_network(), tmp_path / f"net{suffix}")

    def test_every_second_row_and_column_reaches_ncnn(self, tmp_path: Path) -> None:
        need(PACKAGES[".ncnn.param"])

        class Sliced(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x[:, :, ::2, ::3].mean((2, 3))

        assert export(Sliced(), tmp_path / "net.ncnn.param", (3, 7, 9)).error <= 1e-4

    def test_a_converter_that_crashes_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(Path(fake_engines.__file__).parent))
        monkeypatch.setattr("sys.executable", "/bin/false")
        need(PACKAGES[".mnn"])
        with pytest.raises(EngineError, match=r"its converter crashed \(exit code 1\)"):
            export(small_network(), tmp_path / "net.mnn")
        assert not list(tmp_path.iterdir())

    def test_an_operation_that_a_format_has_not_got_is_named(self, tmp_path: Path) -> None:
        need(PACKAGES[".ncnn.param"])

        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.fft.rfft(x.flatten(1)).abs()

        with pytest.raises(EngineError, match=r"cannot be written: .*fft"):
            export(Odd(), tmp_path / "net.ncnn.param", (1, 4, 4))
        assert not list(tmp_path.iterdir())


def test_formats_are_found_by_the_end_of_the_name() -> None:
    found = {
        name: find_format(Path(name)) for name in ("a.ncnn.param", "a.param", "a.onnx", "a.mnn", "a.pte")
    }
    assert {name: form and form.name for name, form in found.items()} == {
        "a.ncnn.param": "ncnn",
        "a.param": None,
        "a.onnx": None,
        "a.mnn": "MNN",
        "a.pte": "ExecuTorch",
    }
