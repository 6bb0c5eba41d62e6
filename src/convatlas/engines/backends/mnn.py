"""MNN as an engine and as a file for phones (.mnn), converted from ONNX by its own converter."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.engines.backend import (
    Backend,
    BackendConfig,
    BatchFn,
    EngineError,
    Job,
    Precision,
    float32_on_cpu,
    one_config,
    read_program,
    require,
)
from convatlas.engines.backends.onnxruntime import IMAGES, LOGITS, write_onnx

NAME = "net.mnn"
PACKAGES = ("MNN", "onnx", "onnxscript")
# The extension module itself: the package's own command also calls a server.
_CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def convert(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes PATH (.mnn) in float32: `images` (B, C, H, W) in, `logits` (B, K) out.

    Raises:
        EngineError: MNN, onnx or onnxscript is not installed, or MNN has not got an operation.
    """
    require(*PACKAGES, extra="mobile")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mnn-") as folder:
        source = Path(folder) / "net.onnx"
        write_onnx(program, source, {})
        command = [sys.executable, "-c", _CONVERT, "-f", "ONNX", "--modelFile", str(source)]
        command += ["--MNNModel", str(path), "--bizCode", "convatlas"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    if done.returncode or not path.is_file():
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        said = [line for line in lines if "ot support" in line] or lines[-1:]
        why = f" ({'; '.join(dict.fromkeys(said))[:200]})" if said else ""
        raise EngineError(f"MNN's converter made no file{why}")


def open_file(path: Path, shape: tuple[int, int, int, int], threads: int, config: BackendConfig) -> BatchFn:
    """Reads a network for this processor.

    Args:
        path: .mnn
        shape: B, C, H, W of what the function takes.
        threads: that may work on one batch.
        config: how it is used.

    Raises:
        EngineError: MNN is not installed, or cannot read the file.
    """
    require("MNN", extra="mobile")
    expr: Any = importlib.import_module("MNN.expr")
    module: Any = importlib.import_module("MNN.nn")

    options = {"backend": "CPU", "precision": "high", "numThread": threads}
    manager = module.create_runtime_manager((options,))
    net: Any = module.load_module_from_file(str(path), [IMAGES], [LOGITS], runtime_manager=manager)
    if net is None:
        raise EngineError(f"{path.name}: MNN cannot read it")
    lock = threading.Lock()

    def run(x: Tensor) -> Tensor:
        with lock:
            images = expr.const(x.contiguous().numpy(), list(x.shape), expr.NCHW)
            (logits,) = net.forward([images])
            return torch.from_numpy(np.array(logits.read(), dtype=np.float32).reshape(len(x), -1))

    return run


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    convert(read_program(source), target / NAME)


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    return open_file(folder / NAME, job.shape, job.threads, config)


ENGINE = Backend("mnn", PACKAGES, float32_on_cpu, one_config, _build, _open, extra="mobile")
