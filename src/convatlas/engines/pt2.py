"""Exported networks of torch (.pt2), written without traces of this machine and read without running code.

`torch.export.load` runs code that a file asks for: pickled objects, any function below `torch` by its name,
guards, sizes that are evaluated. So only what `write_pt2` writes is read.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from convatlas.engines.backend import EngineError
from convatlas.engines.quiet import quiet
from convatlas.files import write_atomic

EXTRA = "convatlas.json"

_ENTRIES = re.compile(
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json)"
    r"|sample_inputs/model\.pt)|models/model\.json|extra/convatlas\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
)
_OPERATION = re.compile(r"torch\.ops\.aten\.\w+\.\w+")
_SIZE = re.compile(r"Symbol\('s\d+', positive=True, integer=True\)|\d+")
_PLAIN = re.compile(r"[\w.+-]*")
# The tree of one tensor in, and of one tensor out.
_TREES = (
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", '
    '"context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, '
    '{"type": "builtins.dict", "context": "[]", "children_spec": []}]}]',
    '[1, {"type": null, "context": null, "children_spec": []}]',
)


def write_pt2(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes an exported network, with texts that go along.

    Raises:
        OSError: it cannot be written, for example as the disk is full; `path` is as it was.
    """
    for node in program.graph.nodes:
        # Where in whose source the operation stands is nobody's business.
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node"):
            node.meta.pop(key, None)
    # By way of memory: torch ends the process where the disk is full.
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={EXTRA: json.dumps(dict(metadata))})
    write_atomic(path, buffer.getvalue())


def read_pt2(path: Path) -> tuple[torch.export.ExportedProgram, dict[str, str]]:
    """Reads what `write_pt2` wrote.

    Raises:
        EngineError: the file is damaged, or holds anything that `write_pt2` does not write.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive)
        extras = {EXTRA: ""}
        with quiet():
            program = torch.export.load(path, extra_files=extras)
        return program, dict(json.loads(extras[EXTRA]))
    except EngineError:
        raise
    except FileNotFoundError:
        raise EngineError(f"{path}: no such file") from None
    except Exception as error:  # Whatever a damaged file makes torch raise.
        raise EngineError(f"{path}: damaged, or no exported network ({type(error).__name__})") from None


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuses an archive in which anything could run.

    Raises:
        EngineError: if the file cannot be run here.
    """
    roots = {name.partition("/")[0] for name in archive.namelist()}
    names = [name.partition("/")[2] for name in archive.namelist()]
    strange = next((name for name in names if not _ENTRIES.fullmatch(name)), None)
    if (
        strange is not None
        or "models/model.json" not in names
        or len({*names}) < len(names)
        or len(roots) > 1
    ):
        raise _refused(path, f"the entry {strange!r}" if strange else "missing or double entries")
    (root,) = roots
    for part in ("weights/model_weights_config", "constants/model_constants_config"):
        if f"data/{part}.json" in names:
            config = json.loads(archive.read(f"{root}/data/{part}.json"))["config"]
            if any(entry["use_pickle"] for entry in config.values()):
                raise _refused(path, "a pickled object")
            if not all(re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]) for entry in config.values()):
                raise _refused(path, "an object that is no tensor")
    if "data/sample_inputs/model.pt" in names:
        content = archive.read(f"{root}/data/sample_inputs/model.pt")
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # Pickle raises anything.
            raise _refused(path, "a pickled object") from None
    model = json.loads(archive.read(f"{root}/models/model.json"))
    for key, text in _texts(model):
        if not _is_harmless(key, text):
            raise _refused(path, f"{key} {text[:60]!r}")


def _is_harmless(key: str, text: str) -> bool:
    if key == "target":
        return _OPERATION.fullmatch(text) is not None
    if key == "expr_str":
        return _SIZE.fullmatch(text) is not None
    if key in ("in_spec", "out_spec"):
        return text in _TREES
    return key != "guards_code" and _PLAIN.fullmatch(text) is not None


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with the key it stands under, and every key."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for entry in value:
            yield from _texts(entry, key)
    elif isinstance(value, dict):
        for name, entry in value.items():
            yield "key", name
            yield from _texts(entry, name)


def _refused(path: Path, what: str) -> EngineError:
    return EngineError(
        f"{path}: holds {what}, which `convatlas export` does not write; not loaded, as it could run code"
    )
