"""ONNX files, and ONNX Runtime as an engine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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

FILES: dict[Precision, str] = {"fp32": "net.onnx", "int8": "net-int8.onnx"}
IMAGES, LOGITS = "images", "logits"


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, str]) -> None:
    """Writes an exported network as ONNX: `images` (B, C, H, W) in, `logits` (B, K) out.

    Args:
        program: for one batch size, or for any.
        path: of the file, which holds the weights too.
        metadata: texts that go along in `metadata_props`.

    Raises:
        EngineError: onnx or onnxscript is not installed.
    """
    require("onnx", "onnxscript")
    dynamic = None if isinstance(image_shape(program)[0], int) else ({0: "batch"},)
    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            optimize=True,
            verbose=False,
            input_names=[IMAGES],
            output_names=[LOGITS],
            dynamic_shapes=dynamic,
        )
        assert made is not None
        made.model.metadata_props.update(metadata)
        made.save(str(path), external_data=False)


def quantise(source: Path, target: Path, images: np.ndarray[Any, Any], in_float: Sequence[str] = ()) -> None:
    """Writes an ONNX file in int8, its ranges taken from images (N, C, H, W), one at a time.

    Weights have 7 bits, so that processors without VNNI do not overflow.

    Args:
        source: the file in float32, as `write_onnx` wrote it.
        target: the file that is written.
        images: of float32.
        in_float: names of operations, as in the exported network, that stay in float32.

    Raises:
        EngineError: onnx or onnxruntime is not installed.
    """
    require("onnx", "onnxruntime")
    with quiet():
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(quantization.CalibrationDataReader):
            def __init__(self) -> None:
                self.images = iter(images)

            def get_next(self) -> Any:  # None at the end, which the base class does not declare.
                image = next(self.images, None)
                return None if image is None else {IMAGES: image[None]}

        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(target),
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[f"node_{name}" for name in in_float],
                extra_options=_without_outputs(prepared) if in_float else {},
            )


def _without_outputs(path: Path) -> dict[str, Any]:
    """Options by which maps are rounded for the operations in int8 that read them, and for no others.

    Otherwise what an operation in int8 gives is rounded, even where only one in float reads it.
    """
    import onnx

    kinds = {node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node}
    return {"OpTypesToExcludeOutputQuantization": sorted(kinds)}


def open_onnx(path: Path, shape: tuple[int, int, int, int], threads: int, config: BackendConfig) -> BatchFn:
    """Reads an ONNX file for this processor.

    Args:
        path: of the file.
        shape: B, C, H, W of what the runner takes.
        threads: that may work on one batch.
        config: how it is used.

    Raises:
        EngineError: ONNX Runtime is not installed.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1 if config.at_once else threads
    options.add_free_dimension_override_by_name("batch", config.at_once or shape[0])
    # By themselves, threads stay awake for 50 ms after the last layer, and keep the cores from whoever works
    # next; threads that sleep at once are 2 % slower.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(session.run(None, {given.name: images})[0])

    if not config.at_once:
        return lambda x: torch.from_numpy(run(x.contiguous().numpy()))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="onnxruntime")

    def run_in_streams(x: Tensor) -> Tensor:
        images = x.contiguous().numpy()
        starts = range(0, len(images), config.at_once)
        parts = pool.map(run, [images[start : start + config.at_once] for start in starts])
        return torch.from_numpy(np.concatenate(list(parts)))

    return run_in_streams


def _precisions(job: Job) -> tuple[Precision, ...]:
    if job.device != "cpu":
        return ()
    return ("fp32", "int8") if job.precision == "int8" else ("fp32",)


def _configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return tuple(BackendConfig(precision, at_once) for at_once in (0, *stream_sizes(job)))


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    if precision == "int8":
        images = np.load(source / "calibration.npy")
        build_int8(
            job,
            source,
            target,
            lambda kept: quantise(target / FILES["fp32"], target / FILES["int8"], images, kept),
            lambda: _open(job, target, BackendConfig("int8")),
        )
        return
    write_onnx(read_program(source), target / FILES["fp32"], {})


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    return open_onnx(folder / FILES[config.precision], job.shape, job.threads, config)


ENGINE = Backend("onnxruntime", ("onnx", "onnxscript", "onnxruntime"), _precisions, _configs, _build, _open)
