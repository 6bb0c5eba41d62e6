"""Files of LiteRT (.tflite), the TensorFlow Lite of old, checked by its own interpreter."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convatlas.engines.backend import BackendConfig, BatchFn, EngineError, require
from convatlas.engines.ports import image_shape
from convatlas.engines.quiet import quiet

PACKAGES = ("litert_torch", "ai_edge_litert")


def convert(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes PATH (.tflite), in float32, for the batch size of the program.

    Raises:
        EngineError: a package of LiteRT is not installed, or the program is for any batch size.
    """
    require(*PACKAGES, extra="litert")
    batch, *size = image_shape(program)
    if not isinstance(batch, int):
        raise EngineError("LiteRT takes one batch size; the network is exported for any")
    with quiet(), torch.no_grad():
        litert_torch: Any = importlib.import_module("litert_torch")
        net: Any = program.module()
        litert_torch.convert(net, (torch.zeros(batch, *size),), strict_export=False).export(str(path))


def open_file(path: Path, shape: tuple[int, int, int, int], threads: int, config: BackendConfig) -> BatchFn:
    """Reads a network into LiteRT's interpreter.

    Args:
        path: .tflite
        shape: B, C, H, W of what the function takes.
        threads: that may work on one batch.
        config: how it is used.

    Raises:
        EngineError: LiteRT is not installed.
    """
    require("ai_edge_litert", extra="litert")
    library: Any = importlib.import_module("ai_edge_litert.interpreter")
    interpreter: Any = library.Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (images,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    lock = threading.Lock()

    def run(x: Tensor) -> Tensor:
        with lock:
            interpreter.set_tensor(images["index"], x.contiguous().numpy())
            interpreter.invoke()
            return torch.from_numpy(np.array(interpreter.get_tensor(logits["index"])))

    return run
