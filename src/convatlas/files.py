"""Writing files so that a reader never sees half of one, and what reading them needs."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convatlas.escape import json_text


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "convatlas"


def write_atomic(path: Path, content: bytes | str) -> None:
    r"""Writes a file under a temporary name, syncs it to disk and renames it.

    Args:
        path: where it goes; what stands there is replaced.
        content: text is written as UTF-8; bytes of file names that are not UTF-8 become `\udc..` escapes.

    Raises:
        OSError: the folder is missing or may not be written, or the disk is full; `path` is as it was.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomic(path, json_text(value, indent=2) + "\n")


def with_tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What was read from JSON or TOML, with each list as the tuple that a frozen dataclass holds."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
