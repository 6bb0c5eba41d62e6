"""Which engine was the fastest, remembered between calls and processes with what was built for it.

A choice belongs to a network's structure, the shape of its input, the precision, the machine and the versions
of everything that takes part; what was built belongs to the weights too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convatlas._version import __version__
from convatlas.engines.backend import BackendConfig, versions
from convatlas.engines.engine import EngineResult
from convatlas.engines.mixed import LayerCost
from convatlas.files import cache_folder, write_json
from convatlas.machine import abilities, processor

FORMAT = 2
RECORD = "choice.json"
MAX_BYTES = 4 * 1024**3
PACKAGES = (
    "torch",
    "openvino",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "nncf",
    "ncnn",
    "pnnx",
    "MNN",
    "executorch",
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was decided.

    Attributes:
        results: as in the report, the chosen one first.
        weights: digest of the weights that `files` hold.
        files: folder of what the engine was built into; None where it needs nothing.
        sums: SHA-256 of each of the files, by its path in the folder.
    """

    results: tuple[EngineResult, ...]
    weights: str
    files: Path | None
    sums: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])


def home() -> Path:
    """The folder that choices are kept in."""
    return cache_folder() / "engines"


def choice_key(net: nn.Module, request: Mapping[str, Any], device: str) -> str:
    """Names a choice: hexadecimal, the same for the same network, question, machine and versions.

    Args:
        net: in evaluation mode.
        request: shape, precision, threads, ...
        device: "cpu" or "cuda".
    """
    parts = [
        FORMAT,
        _structure(net),
        dict(request),
        device,
        machine(device),
        __version__,
        versions(*PACKAGES),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def weights_digest(net: nn.Module) -> str:
    """SHA-256 over every parameter and buffer, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in _tensors(net):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def find_choice(key: str) -> Choice | None:
    """The remembered choice; None where there is none, or where what is kept is damaged."""
    folder = home() / key
    try:
        data = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if data.pop("sha256") != _digest(data):
            return None
        results = tuple(_read_result(entry) for entry in data["results"])
        files = folder / "files"
        choice = Choice(results, data["weights"], files if files.is_dir() else None, dict(data["sums"]))
        if not results:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    with contextlib.suppress(OSError):
        os.utime(folder / RECORD)  # Says when it was used last.
    return choice


def keep_choice(key: str, choice: Choice) -> None:
    """Remembers a choice, with a copy of its files; does nothing where the folder cannot be written to."""
    with contextlib.suppress(OSError):
        home().mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=home(), prefix=".new."))
        try:
            if choice.files is not None:
                shutil.copytree(choice.files, folder / "files")
            results = [dataclasses.asdict(result) for result in choice.results]
            record = {"results": results, "weights": choice.weights, "sums": _sums(folder / "files")}
            write_json(folder / RECORD, record | {"sha256": _digest(record)})
            forget_choice(key)
            folder.rename(home() / key)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _make_room()


def is_intact(choice: Choice) -> bool:
    """Whether the files of a choice are those that were kept, to the bit."""
    try:
        return choice.files is not None and _sums(choice.files) == choice.sums
    except OSError:
        return False


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder."""
    sums: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def forget_choice(key: str) -> None:
    """Drops what is remembered under a key, if anything."""
    shutil.rmtree(home() / key, ignore_errors=True)


def _make_room() -> None:
    """Drops the choices that were not used for longest, until the rest fits into `MAX_BYTES`."""
    kept = [(record.stat().st_mtime, record.parent) for record in home().glob(f"*/{RECORD}")]
    room = MAX_BYTES
    for _, folder in sorted(kept, reverse=True):
        room -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if room < 0:
            shutil.rmtree(folder, ignore_errors=True)


def _read_result(entry: dict[str, Any]) -> EngineResult:
    config = entry.pop("config")
    layers = tuple(LayerCost(**layer) for layer in entry.pop("layers", ()))
    return EngineResult(**entry, config=None if config is None else BackendConfig(**config), layers=layers)


def _structure(net: nn.Module) -> str:
    """What the network is, apart from the values of its weights: modules, code, shapes."""
    digest = hashlib.sha256(repr(net).encode())
    for kind in dict.fromkeys(type(module) for module in net.modules()):
        code = getattr(kind.forward, "__code__", None)
        digest.update(f"{kind.__module__}.{kind.__qualname__}".encode())
        digest.update(b"" if code is None else code.co_code)
    for name, value in _tensors(net):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
    return digest.hexdigest()


def _tensors(net: nn.Module) -> list[tuple[str, Tensor]]:
    return [*net.named_parameters(), *net.named_buffers()]


def machine(device: str) -> list[Any]:
    """Name, abilities and cores of the chip."""
    if device == "cuda":
        return [torch.cuda.get_device_name(), list(torch.cuda.get_device_capability())]
    return [processor(), abilities(), os.cpu_count()]
