"""OpenVINO as an engine."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convatlas.engines.backend import (
    Backend,
    BackendConfig,
    BatchFn,
    Job,
    Precision,
    read_program,
    require,
    stream_sizes,
)
from convatlas.engines.build_int8 import build_int8
from convatlas.engines.ports import image_shape
from convatlas.engines.quiet import quiet

if TYPE_CHECKING:
    import openvino

FILES: dict[Precision, str] = {"fp32": "net.xml", "int8": "net-int8.xml"}

METADATA = "convatlas"


def openvino_core() -> openvino.Core:
    """OpenVINO itself.

    Raises:
        EngineError: it is not installed.
    """
    require("openvino")
    import openvino

    return openvino.Core()


def convert(program: torch.export.ExportedProgram) -> openvino.Model:
    """An exported network as a model of OpenVINO, in float32.

    Raises:
        EngineError: OpenVINO is not installed.
    """
    require("openvino")
    import openvino

    with quiet():
        model = openvino.convert_model(program)
        model.reshape([size if isinstance(size, int) else -1 for size in image_shape(program)])
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({"logits"})
    return model


def save(model: openvino.Model, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes PATH (.xml) and the weights beside it (.bin), in the precision that they have.

    Args:
        model: what is written.
        path: .xml
        metadata: texts that go along, in the file's `rt_info`.
    """
    import openvino

    for key, value in (metadata or {}).items():
        model.set_rt_info(value, [METADATA, key])
    openvino.save_model(model, path, compress_to_fp16=False)


def quantise(
    model: openvino.Model, images: np.ndarray[Any, Any], in_float: Sequence[str] = ()
) -> openvino.Model:
    """The model in int8, its ranges taken from images (N, C, H, W), one at a time.

    Weights have 7 bits, so that processors without VNNI do not overflow.

    Args:
        model: in float32, as `convert` made it.
        images: of float32.
        in_float: names of operations, as in the exported network, that stay in float32.

    Raises:
        EngineError: nncf is not installed.
    """
    require("nncf")
    with quiet():
        import nncf

        fix = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
        data = nncf.Dataset([image[None] for image in images])
        scope = nncf.IgnoredScope(names=_operations(model, in_float)) if in_float else None
        return nncf.quantize(
            model, data, subset_size=len(images), ignored_scope=scope, advanced_parameters=fix
        )


def _operations(model: openvino.Model, names: Sequence[str]) -> list[str]:
    """OpenVINO's names of operations that the exported network calls conv2d, conv2d_1, linear, ...

    Its own carry the number too: convolution_1/aten.convolution.default/Convolution.
    """
    kinds = {"Convolution": "conv2d", "GroupConvolution": "conv2d", "MatMul": "linear"}
    found: dict[str, str] = {}
    for operation in model.get_ordered_ops():
        kind = kinds.get(operation.get_type_name())
        place = operation.get_friendly_name().partition("/")[0].rpartition("_")[2]
        if kind is not None:
            found[f"{kind}_{place}" if place.isdecimal() else kind] = operation.get_friendly_name()
    return [found[name] for name in names if name in found]


def open_model(path: Path, shape: tuple[int, int, int, int], threads: int, config: BackendConfig) -> BatchFn:
    """Reads a model and compiles it for the processor here.

    Args:
        path: .xml
        shape: B, C, H, W of what the runner takes.
        threads: that may work on one batch.
        config: how it is used.

    Raises:
        EngineError: OpenVINO is not installed.
    """
    core = openvino_core()
    model = core.read_model(path)
    model.reshape([config.at_once or shape[0], *shape[1:]])
    # On a chip with bf16, OpenVINO would use it unasked.
    hint = "bf16" if config.precision == "bf16" else "f32"
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads if config.at_once else 1,
    }
    compiled = core.compile_model(model, "CPU", options)
    if config.at_once:
        return _in_streams(compiled, config.at_once, threads)
    return _alone(compiled)


def _alone(compiled: openvino.CompiledModel) -> BatchFn:
    import openvino

    request = compiled.create_infer_request()
    lock = threading.Lock()

    def run(x: Tensor) -> Tensor:
        # No copy of the images; the logits are copied, as the next call overwrites them.
        images = openvino.Tensor(x.contiguous().numpy(), shared_memory=True)
        with lock:
            request.set_input_tensor(images)
            request.infer()
            return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


def _in_streams(compiled: openvino.CompiledModel, at_once: int, streams: int) -> BatchFn:
    import openvino

    requests = [compiled.create_infer_request() for _ in range(streams)]
    lock = threading.Lock()

    def run(x: Tensor) -> Tensor:
        images = x.contiguous().numpy()
        starts = range(0, len(images), at_once)
        parts: list[np.ndarray[Any, Any]] = []
        with lock:
            for turn, start in enumerate(starts):
                request = requests[turn % streams]
                if turn >= streams:
                    request.wait()
                    parts.append(request.get_output_tensor(0).data.copy())
                part = openvino.Tensor(images[start : start + at_once], shared_memory=True)
                request.set_input_tensor(part)
                request.start_async()
            for turn in range(max(0, len(starts) - streams), len(starts)):
                requests[turn % streams].wait()
                parts.append(requests[turn % streams].get_output_tensor(0).data.copy())
        return torch.from_numpy(np.concatenate(parts))

    return run


def has_bf16() -> bool:
    """Whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _precisions(job: Job) -> tuple[Precision, ...]:
    if job.device != "cpu":
        return ()
    if job.precision == "bf16":
        return ("fp32", "bf16") if has_bf16() else ("fp32",)
    return ("fp32",) if job.precision == "fp32" else ("fp32", "int8")


def _configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return tuple(BackendConfig(precision, at_once) for at_once in (0, *stream_sizes(job)))


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    if precision == "bf16":
        return  # The same file, opened with another hint.
    if precision == "int8":
        images = np.load(source / "calibration.npy")

        def write(kept: Sequence[str]) -> None:
            model = openvino_core().read_model(target / FILES["fp32"])
            model.reshape([1, *job.shape[1:]])
            save(quantise(model, images, kept), target / FILES["int8"])

        build_int8(job, source, target, write, lambda: _open(job, target, BackendConfig("int8")))
        return
    save(convert(read_program(source)), target / FILES["fp32"])


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    name = FILES.get(config.precision, FILES["fp32"])
    return open_model(folder / name, job.shape, job.threads, config)


ENGINE = Backend("openvino", ("openvino",), _precisions, _configs, _build, _open)
