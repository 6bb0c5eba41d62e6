"""ExecuTorch as an engine and as a file for phones (.pte), its convolutions computed by XNNPACK."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

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
    read_exact_program,
    require,
)
from convatlas.engines.ports import image_shape
from convatlas.engines.quiet import quiet

NAME = "net.pte"
PACKAGES = ("executorch",)


def convert(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes PATH (.pte), in float32, for the batch size of the program.

    Raises:
        EngineError: ExecuTorch is not installed, the program is for any batch size, or ExecuTorch has not got
            an operation.
    """
    require(*PACKAGES, extra="mobile")
    if not isinstance(image_shape(program)[0], int):
        raise EngineError("ExecuTorch's XNNPACK takes one batch size; the network is exported for any")
    with quiet(), torch.no_grad():
        partition = "executorch.backends.xnnpack.partition.xnnpack_partitioner"
        partitioner: Any = importlib.import_module(partition).XnnpackPartitioner()
        exir: Any = importlib.import_module("executorch.exir")
        lowered = exir.to_edge_transform_and_lower(program, partitioner=[partitioner])
        path.write_bytes(lowered.to_executorch().buffer)


def open_file(path: Path, shape: tuple[int, int, int, int], threads: int, config: BackendConfig) -> BatchFn:
    """Reads a network for this processor.

    Args:
        path: .pte
        shape: B, C, H, W of what the function takes.
        threads: that may work on one batch; of all networks of this process, which share them.
        config: how it is used.

    Raises:
        EngineError: ExecuTorch is not installed.
    """
    require(*PACKAGES, extra="mobile")
    with quiet():
        portable_lib: Any = importlib.import_module("executorch.extension.pybindings.portable_lib")
        runtime: Any = importlib.import_module("executorch.runtime").Runtime.get()
        if portable_lib._threadpool_get_thread_count() != threads:
            portable_lib._unsafe_reset_threadpool(threads)
        program: Any = runtime.load_program(path)
        method: Any = program.load_method("forward")
    lock = threading.Lock()

    def run(x: Tensor) -> Tensor:
        with lock:
            # The next call overwrites them; and the program is read as long as the method is.
            return method.execute([x.contiguous()])[0].clone() if program else x

    return run


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    convert(read_exact_program(source), target / NAME)


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    return open_file(folder / NAME, job.shape, job.threads, config)


ENGINE = Backend(
    "executorch", PACKAGES, float32_on_cpu, one_config, _build, _open, is_slow=True, extra="mobile"
)
