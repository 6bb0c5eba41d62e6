"""Weight files. Only tensors are read: a file that would run code is refused."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from convatlas.files import write_atomic
from convatlas.weights.errors import WeightsError

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors or torch file onto the CPU, mapped into memory where possible.

    The format is told by the content, not by the name.

    Raises:
        WeightsError: the file is absent, truncated, of another format, holds anything else than tensors by
            name, or would run code.
    """
    path = Path(path)
    kind = _format(path)
    return _read_safetensors(path) if kind == "safetensors" else _read_torch(path, mmap=kind == "zip")


def read_safetensors_metadata(path: str | Path) -> dict[str, str]:
    """The metadata in the header of a safetensors file; the tensors are not read.

    Raises:
        WeightsError: the file is absent, truncated or of another format.
    """
    path = Path(path)
    if _format(path) != "safetensors":
        raise WeightsError(f"{path}: a torch file, which has no metadata; expected safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from None


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors by name, atomically: a reader sees the old file or the new one.

    Args:
        path: where it goes; what stands there is replaced.
        tensors: by name, on any device, in any memory format.
        metadata: texts for the file's header.

    Raises:
        WeightsError: a value of `metadata` is not text.
        OSError: the folder is missing or may not be written, or the disk is full.
    """
    for key, value in (metadata or {}).items():
        if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WeightsError(f"`metadata`[{key!r}]={value!r}; safetensors headers hold text only")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(plain, dict(metadata) if metadata else None)
    write_atomic(Path(path), _in_order(content))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with its header sorted: the library writes metadata in random order."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # Tensors begin at a multiple of 8 bytes.
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def _format(path: Path) -> str:
    """Tells "safetensors", "zip" (torch since 1.6) and "pickle" (torch before) apart."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    if start.startswith(ZIP_MAGIC):
        return "zip"
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(PICKLE_MAGIC):
        return "pickle"
    raise WeightsError(
        f"{path}: neither a safetensors nor a torch file (it begins with {start[:8]!r}); "
        "it may be truncated, or another file under this name"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from None


def _read_torch(path: Path, *, mmap: bool) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # torch warns that it may not understand a newer pickle, which then is an error anyway.
            warnings.simplefilter("ignore")
            content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError, TypeError) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}; expected tensors by name")
    others = [
        f"{key} ({type(value).__name__})" for key, value in content.items() if not isinstance(value, Tensor)
    ]
    if others:
        raise WeightsError(
            f"{path}: expected tensors by name; it also holds {', '.join(others)}; "
            "save the state dict alone to load it"
        )
    return content


def _refused(path: Path, error: Exception) -> WeightsError:
    """Says what a pickle asked for that is no tensor."""
    asked = re.search(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]*\w)", str(error))
    if asked is not None:
        return WeightsError(
            f"{path}: refused, because it asks to run `{asked[1]}`: only tensors are loaded, "
            "since whoever wrote this file could have put any code in it"
        )
    # torch puts advice on how to run the code in front of its reason.
    reason = str(error).partition("WeightsUnpickler error:")[2].strip() or str(error)
    return WeightsError(
        f"{path}: refused, because it is not a pickle of tensors alone ({reason.splitlines()[0][:160]})"
    )


def _damaged(path: Path, error: Exception) -> WeightsError:
    first = (str(error).splitlines() or [""])[0]
    return WeightsError(f"{path}: truncated or damaged ({type(error).__name__}: {first[:160]})")
