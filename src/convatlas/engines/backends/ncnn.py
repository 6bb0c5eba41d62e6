"""ncnn as an engine and as files for phones: .ncnn.param (the layers, as text) and .ncnn.bin (the weights).

PyTorch's networks reach it through pnnx, its authors' converter, which reads TorchScript. ncnn knows no
batches: it takes one image (C, H, W) at a time.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from convatlas.engines.backend import (
    Backend,
    BackendConfig,
    BatchFn,
    EngineError,
    Job,
    Precision,
    float32_on_cpu,
    read_program,
    require,
    stream_sizes,
)
from convatlas.engines.fold import fold
from convatlas.engines.ports import image_shape
from convatlas.engines.quiet import quiet

PARAM = "net.ncnn.param"
PACKAGES = ("ncnn", "pnnx")
IMAGE, LOGITS = "in0", "out0"
# ncnn would round weights and maps to 16 bits unasked.
HALF_OPTIONS = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)
# A layer's kind is a plain word; what pnnx could not express keeps the name that it has in PyTorch.
_FOREIGN = re.compile(r"^([\w:]*[.:][\w.:]*)\s", re.MULTILINE)


def convert(program: torch.export.ExportedProgram, path: Path) -> None:
    """Writes PATH (.ncnn.param) and the weights beside it (.ncnn.bin), in float32, for one image at a time.

    Raises:
        EngineError: ncnn or pnnx is not installed, the network is exported for another batch size only, or it
            has an operation that ncnn has not got.
    """
    require(*PACKAGES, extra="mobile")
    pnnx: Any = importlib.import_module("pnnx")

    batch, *size = image_shape(program)
    if isinstance(batch, int) and batch != 1:
        raise EngineError(f"ncnn takes one image at a time; the network is exported for {batch} only")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".pnnx-") as folder:
        script = Path(folder) / "net.pt"
        with quiet(), torch.no_grad():
            net = _without_strides(fold(program))
            traced: Any = torch.jit.trace(net, torch.zeros(1, *size), check_trace=False)
            traced.save(str(script))
        shape = ",".join(map(str, (1, *size)))
        command = [pnnx.EXEC_PATH, script.name, f"inputshape=[{shape}]f32", "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        param, weights = Path(folder) / PARAM, Path(folder) / "net.ncnn.bin"
        if done.returncode or not param.is_file() or not weights.is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise EngineError(f"pnnx ended with {done.returncode}{': ' + lines[-1][:200] if lines else ''}")
        foreign = sorted(set(_FOREIGN.findall(param.read_text(encoding="utf-8"))))
        if foreign:
            raise EngineError(f"ncnn has no layer for {', '.join(foreign)}")
        weights.replace(path.with_suffix(".bin"))
        param.replace(path)


def _without_strides(net: fx.GraphModule) -> fx.GraphModule:
    """The network with pooling over one pixel in place of each slice that takes every n-th row or column.

    ncnn's crop takes neighbours only; pooling with a stride gives the same numbers.
    """
    for node in list(net.graph.nodes):
        if node.target is not torch.ops.aten.slice.Tensor or len(node.args) < 5:
            continue
        images, dim, start, end, step = node.args
        shape = node.args[0].meta["val"].shape
        if len(shape) != 4 or dim not in (2, 3) or start not in (0, None) or step == 1:
            continue
        if not isinstance(end, int) or end < shape[dim]:
            continue
        stride = [step, 1] if dim == 2 else [1, step]
        with net.graph.inserting_before(node):
            pool = net.graph.call_function(torch.ops.aten.max_pool2d.default, (images, [1, 1], stride))
        pool.meta = node.meta
        node.replace_all_uses_with(pool)
        net.graph.erase_node(node)
    net.recompile()
    return net


def open_file(path: Path, shape: tuple[int, int, int, int], threads: int, config: BackendConfig) -> BatchFn:
    """Reads a network for this processor.

    Args:
        path: .ncnn.param
        shape: B, C, H, W of what the function takes.
        threads: that may work on one batch.
        config: how it is used.

    Raises:
        EngineError: ncnn is not installed, or cannot read the files.
    """
    require("ncnn", extra="mobile")
    ncnn: Any = importlib.import_module("ncnn")

    net: Any = ncnn.Net()
    net.opt.num_threads = 1 if config.at_once else threads
    for option in HALF_OPTIONS:
        if hasattr(net.opt, option):
            setattr(net.opt, option, False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise EngineError(f"{path.name}: ncnn cannot read it")

    def one(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        extractor = net.create_extractor()
        extractor.input(IMAGE, ncnn.Mat(image))
        failed, logits = extractor.extract(LOGITS)
        if failed:
            raise EngineError(f"ncnn stopped with {failed}")
        return np.array(logits)

    if config.at_once:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="ncnn")
        return lambda x: torch.from_numpy(np.stack(list(pool.map(one, x.contiguous().numpy()))))
    lock = threading.Lock()

    def run(x: Tensor) -> Tensor:
        with lock:
            return torch.from_numpy(np.stack([one(image) for image in x.contiguous().numpy()]))

    return run


def _configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    streams = (BackendConfig(at_once=1),) if stream_sizes(job) else ()
    return (BackendConfig(), *streams)


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    convert(read_program(source), target / PARAM)


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    return open_file(folder / PARAM, job.shape, job.threads, config)


ENGINE = Backend("ncnn", PACKAGES, float32_on_cpu, _configs, _build, _open, extra="mobile")
