"""The programs of docs/deploy.md, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import convatlas
from convatlas.engines.export import export
from made_images import NAMES, small_network

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    pytest.importorskip("onnxruntime")
    found: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), found)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("files") / "net.onnx"
    export(small_network(), path, dynamic_batch=True)
    return path


def test_a_program_without_convatlas_answers_as_convatlas_does(
    programs: dict[str, Any], exported: Path
) -> None:
    # Smooth, as a photograph: libraries differ in how they resize noise.
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((120, 90), Image.Resampling.BICUBIC)
    session = programs["onnxruntime"].InferenceSession(exported, providers=["CPUExecutionProvider"])
    found = programs["answer"](session, image)
    (expected,) = convatlas.load(exported, exact=True).predict(image)
    assert found[0][0] == expected.label
    assert [share for _, share in found] == pytest.approx([share for _, share in expected.top], abs=0.02)


def test_triton_s_configuration_says_what_the_file_says(
    programs: dict[str, Any], exported: Path, tmp_path: Path
) -> None:
    folder = programs["triton_repository"](exported, tmp_path, 16)
    assert folder == tmp_path / "net"
    assert (folder / "1" / "model.onnx").read_bytes() == exported.read_bytes()
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    session = programs["onnxruntime"].InferenceSession(folder / "1" / "model.onnx")
    assert (
        f'input [{{ name: "{session.get_inputs()[0].name}" data_type: TYPE_FP32 dims: [3, 32, 32] }}]'
        in config
    )
    assert f'output [{{ name: "{session.get_outputs()[0].name}" data_type: TYPE_FP32 dims: [10]' in config
    assert 'name: "net"' in config and "max_batch_size: 16" in config
    assert (folder / "labels.txt").read_text(encoding="utf-8").split("\n")[:-1] == list(NAMES)


def test_a_file_for_one_batch_size_is_refused(programs: dict[str, Any], tmp_path: Path) -> None:
    export(small_network(), tmp_path / "one.onnx")
    with pytest.raises(ValueError, match="is for 1 images; export with --dynamic-batch"):
        programs["triton_repository"](tmp_path / "one.onnx", tmp_path / "repository")


def test_openvino_s_model_server_finds_its_folder(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    folder = tmp_path / "models" / "net" / "1"
    folder.mkdir(parents=True)
    export(small_network(), folder / "net.xml", dynamic_batch=True)
    assert {path.name for path in folder.iterdir()} == {"net.xml", "net.bin"}
    (images,) = openvino.Core().read_model(folder / "net.xml").inputs
    assert images.get_partial_shape().to_string() == "[?,3,32,32]"
