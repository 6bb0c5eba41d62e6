"""our C++: compiled on the machine that runs it, for its processor, once."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from convatlas.files import cache_folder, write_atomic
from convatlas.machine import abilities, processor

SOURCES = Path(__file__).parent
HEADERS = SOURCES / "core"
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC")
COMPILE_SECONDS = 300
# How the names of folders begin in which something is being compiled.
DRAFT = "draft-"


class CompilerError(OSError):
    """C++ that cannot be compiled or loaded here; the message says why, in one line."""


def compiled(source: Path, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library that a source makes; compiling takes some seconds the first time, and is kept.

    Args:
        source: of C++17, which may include headers of its folder and of this package.
        flags: of the compiler, beside those that every source has.

    Raises:
        CompilerError: there is no compiler, it fails, or what it makes cannot be kept or loaded.
    """
    command = (find_compiler(), *FLAGS, *flags, _arch())
    path = _path(source, command)
    if not _is_intact(path):
        _compile(source, path, command)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CompilerError(f"what was compiled cannot be loaded ({error})") from None


def find_compiler() -> str:
    """Where the C++ compiler is.

    Raises:
        CompilerError: there is none.
    """
    for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise CompilerError("needs a C++ compiler, such as g++ or clang++, which is not installed")


def _arch() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"


def _path(source: Path, command: tuple[str, ...]) -> Path:
    """Where the library lies that fits the sources, the compiler and the processor."""
    digest = hashlib.sha256(repr((processor(), abilities(), command)).encode())
    for folder in (HEADERS, source.parent):
        for read in sorted(folder.glob("*.h")):
            digest.update(read.read_bytes())
    digest.update(source.read_bytes())
    return cache_folder() / "native" / f"{source.stem}-{digest.hexdigest()[:24]}.so"


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_intact(path: Path) -> bool:
    """Whether a library is there as it was compiled: to open a damaged one would end the process."""
    try:
        stated = _digest_path(path).read_text(encoding="ascii").strip()
        return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == stated
    except (OSError, UnicodeDecodeError):
        return False


def _remove_litter(folder: Path) -> None:
    """Removes what compilers that were killed left behind."""
    for draft in folder.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > 2 * COMPILE_SECONDS:
                shutil.rmtree(draft)


def _compile(source: Path, path: Path, command: tuple[str, ...]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_litter(path.parent)
        folder = tempfile.TemporaryDirectory(prefix=DRAFT, dir=path.parent)
    except OSError as error:
        raise CompilerError(f"the compiled library cannot be kept in {path.parent} ({error})") from None
    with folder as draft:
        made = Path(draft) / "native.so"
        try:
            done = subprocess.run(
                [*command, "-I", str(HEADERS), "-o", str(made), str(source)],
                capture_output=True,
                text=True,
                timeout=COMPILE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CompilerError(f"the compiler does not work ({error})") from None
        if done.returncode or not made.exists():
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            silence = f"status {done.returncode}" if done.returncode else "it wrote nothing"
            reason = (errors or [done.stderr.strip()[:200] or silence])[0]
            raise CompilerError(f"the compiler fails: {reason}")
        _keep(made, path)


def _keep(made: Path, path: Path) -> None:
    """Puts a library and its digest on disk; killed in between, it is compiled again."""
    try:
        content = made.read_bytes()
        _digest_path(path).unlink(missing_ok=True)
        # A new file each time: one that a process has open is never written over.
        write_atomic(path, content)
        write_atomic(_digest_path(path), hashlib.sha256(content).hexdigest() + "\n")
    except OSError as error:
        raise CompilerError(f"the compiled library cannot be kept in {path.parent} ({error})") from None
