"""A step of a network as C++ reads it (`step.h`), and the library that runs steps."""

from __future__ import annotations

import ctypes
import enum
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from convatlas.files import cache_folder
from convatlas.inference.engines.job import EngineError

SOURCES = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-pthread")
COMPILE_SECONDS = 300


class Kind(enum.IntEnum):
    """What a step does, numbered as in `step.h`."""

    CONV = 0
    DEPTHWISE = 1
    MAX_POOL = 2
    AVERAGE_POOL = 3
    MEAN = 4
    ADD = 5
    GATE = 6
    AFFINE = 7
    COPY = 8


class Activation(enum.IntEnum):
    """What is done to each value at a step's end, numbered as in `vector.h`."""

    NONE = 0
    CLIP = 1
    SIGMOID = 2
    SILU = 3
    TANH = 4


class Map(ctypes.Structure):
    """A feature map in the arena, as `step.h` has it."""

    _fields_ = [(name, ctypes.c_int64) for name in ("at", "height", "width", "chans", "pitch")]


class Step(ctypes.Structure):
    """A step, as `step.h` has it."""

    _fields_ = [
        ("kind", ctypes.c_int64),
        ("input", Map),
        ("output", Map),
        *(
            (name, ctypes.c_int64)
            for name in (
                "other_at",
                "other_pitch",
                "gate_at",
                "gate_pitch",
                "kernel_h",
                "kernel_w",
                "stride_h",
                "stride_w",
                "pad_top",
                "pad_left",
                "groups",
                "activation",
                "relu_first",
                "average_border",
                "border_h",
                "border_w",
                "method",
                "block",
            )
        ),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("weight", "bias", "scale", "shift")),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled engine for this processor; it is compiled once, which takes some seconds, and kept.

    Raises:
        EngineError: there is no compiler, or it fails.
    """
    path = _library_path()
    if not path.exists():
        _compile(path)
    try:
        found = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"the compiled engine cannot be loaded ({error})") from None
    c_long, pointer = ctypes.c_long, ctypes.c_void_p
    found.net_new.restype = pointer
    found.net_new.argtypes = [c_long, c_long, c_long, c_long, Map, Map, c_long, c_long, c_long, c_long]
    found.net_add.argtypes = [pointer, ctypes.POINTER(Step)]
    found.net_prepare.argtypes = found.net_free.argtypes = [pointer]
    found.net_tune.argtypes = [pointer, pointer]
    found.net_run.argtypes = [pointer, pointer, c_long, c_long, pointer]
    if found.net_step_size() != ctypes.sizeof(Step):
        raise EngineError(f"{path} belongs to another version")
    return found


def _compiler() -> str:
    for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise EngineError("needs a C++ compiler, such as g++ or clang++, which is not installed")


def _arch() -> str:
    return "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"


def _library_path() -> Path:
    """Where the library lies that fits these sources, this compiler and this processor."""
    from convatlas.inference.choices import machine

    digest = hashlib.sha256(repr((machine("cpu"), _compiler(), FLAGS)).encode())
    for source in sorted(SOURCES.glob("*.h")) + sorted(SOURCES.glob("*.cpp")):
        digest.update(source.read_bytes())
    return cache_folder() / "native" / f"{digest.hexdigest()[:24]}.so"


def _compile(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent)
    except OSError as error:
        raise EngineError(f"the compiled engine cannot be kept in {path.parent} ({error})") from None
    with folder as draft:
        made = Path(draft) / "native.so"
        command = [_compiler(), *FLAGS, _arch(), "-o", str(made), str(SOURCES / "net.cpp")]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"the compiler does not work ({error})") from None
        if done.returncode or not made.exists():
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            silence = f"status {done.returncode}" if done.returncode else "it wrote nothing"
            raise EngineError(f"the compiler fails: {(errors or [done.stderr.strip()[:200] or silence])[0]}")
        made.replace(path)
