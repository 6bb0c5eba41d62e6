"""Exported networks of torch: what is read, and what is refused because it could run code."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import convatlas
from convatlas.engines.backend import EngineError
from convatlas.engines.pt2 import read_pt2, write_pt2

RAN: list[str] = []


class Payload:
    """Unpickled, it runs what an attacker likes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.putenv, ("CONVATLAS_RAN", "1"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    net = convatlas.create_model("lenet5").eval()
    with torch.no_grad():
        sizes = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.export.export(net, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=sizes)
    write_pt2(program, path, {"network": "lenet5"})
    return path


def changed(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy with other entries."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return target


def test_metadata_comes_back(written: Path) -> None:
    program, metadata = read_pt2(written)
    assert metadata == {"network": "lenet5"}
    assert program.module()(torch.zeros(3, 1, 32, 32)).shape == (3, 10)


def test_no_path_of_this_machine_is_written(written: Path) -> None:
    with zipfile.ZipFile(written) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(Path(convatlas.__file__).parent).encode() not in content


def edit_model(edit: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        (name,) = (name for name in entries if name.endswith("models/model.json"))
        model = json.loads(entries[name])
        edit(model)
        entries[name] = json.dumps(model).encode()

    return change


def pickled(entries: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    (name,) = (name for name in entries if name.endswith("sample_inputs/model.pt"))
    entries[name] = buffer.getvalue()


def with_weights_pickled(entries: dict[str, bytes]) -> None:
    (name,) = (name for name in entries if name.endswith("model_weights_config.json"))
    config = json.loads(entries[name])
    next(iter(config["config"].values()))["use_pickle"] = True
    entries[name] = json.dumps(config).encode()


def with_entry(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda entries: entries.update({f"{next(iter(entries)).partition('/')[0]}/{name}": b"{}"})


def first_node(key: str, value: Any) -> Callable[[dict[str, bytes]], None]:
    return edit_model(lambda model: model["graph_module"]["graph"]["nodes"][0].update({key: value}))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (pickled, "a pickled object"),
        (with_weights_pickled, "a pickled object"),
        (with_entry("data/constants/custom_obj_0"), "the entry 'data/constants/custom_obj_0'"),
        (with_entry("data/weights/model.pt"), "the entry 'data/weights/model.pt'"),
        (first_node("target", "torch.os.system"), "target 'torch.os.system'"),
        (first_node("target", "_operator.call"), "target '_operator.call'"),
        (first_node("name", "x\nimport os"), "name 'x"),
        (edit_model(lambda model: model.update(guards_code=["os.putenv('a', 'b')"])), "guards_code"),
        (
            edit_model(lambda model: model["graph_module"]["graph"].update(x={"expr_str": "exec('1')"})),
            'expr_str "exec',
        ),
        (edit_model(lambda model: model.update({"a b(": 1})), "key 'a b\\('"),
    ],
    ids=["inputs", "weights", "object", "old", "function", "operator", "name", "guard", "size", "key"],
)
def test_what_could_run_code_is_refused(
    written: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], None], what: str
) -> None:
    path = changed(written, tmp_path / "bad.pt2", change)
    with pytest.raises(EngineError, match=f"holds .*{what}.*not loaded, as it could run code"):
        read_pt2(path)
    assert "CONVATLAS_RAN" not in os.environ


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"], ids=["empty", "cut", "text"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pt2"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="damaged, or no exported network"):
        read_pt2(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none\.pt2: no such file"):
        read_pt2(tmp_path / "none.pt2")
