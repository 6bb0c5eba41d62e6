"""Our own engine for the CPU: a folded network as steps in C++, which is compiled for the processor here."""

from __future__ import annotations

import ctypes
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor

from convatlas.engines.agreement import compare
from convatlas.engines.backend import (
    Backend,
    BackendConfig,
    BatchFn,
    Job,
    Precision,
    float32_on_cpu,
    stream_sizes,
)
from convatlas.engines.fold import fold
from convatlas.engines.native.fusing import fuse
from convatlas.engines.native.lowering import lower
from convatlas.engines.native.plan import Spot, place_maps
from convatlas.engines.native.program import Op, Program
from convatlas.engines.native.steps import BY_MATRIX_UNIT, Kind, Map, Step, library
from convatlas.engines.quiet import quiet
from convatlas.files import write_atomic

PROGRAM, WEIGHTS = "program.json", "weights.safetensors"
DIGITS = "digits.json"
"""Says whether products by the matrix unit have enough digits for the network."""
SLACK = 5.0
"""How much larger the error may be on other images: of photographs, it is more than of noise."""
ARRAYS = ("weight", "bias", "scale", "shift")
MOST_TUNED = 2
"""Images that methods are timed on; more take longer and change little."""


def write_program(program: Program, folder: Path) -> None:
    """Fuses a program's steps, gives its maps places, and writes it with its weights."""
    fuse(program)
    spots, floats = place_maps(program)
    arrays: dict[str, Any] = {}
    steps: list[dict[str, Any]] = []
    for number, op in enumerate(program.ops):
        steps.append(_record(op, spots))
        for name in ARRAYS:
            array = getattr(op, name)
            if array is not None:
                arrays[f"{number}.{name}"] = np.ascontiguousarray(array, dtype=np.float32)
    top = {
        "floats": floats,
        "images": _map(program.images, spots),
        "logits": _map(program.logits, spots),
        "border": program.border,
        "steps": steps,
    }
    safetensors.numpy.save_file(arrays, folder / WEIGHTS)
    (folder / PROGRAM).write_text(json.dumps(top), encoding="utf-8")


def _map(value: Any, spots: dict[Any, Spot]) -> list[int]:
    spot = spots[value]
    return [spot.at, spot.chan, value.height, value.width, value.chans, spot.pitch]


def _record(op: Op, spots: dict[Any, Spot]) -> dict[str, Any]:
    kernel_h, kernel_w, stride_h, stride_w, top, left = op.window
    kind, low, high = op.activation
    return {
        "kind": int(op.kind),
        "input": _map(op.input, spots),
        "output": _map(op.output, spots),
        "other": None if op.other is None else _map(op.other, spots),
        "gate": None if op.gate is None else _map(op.gate, spots),
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "pad_top": top,
        "pad_left": left,
        "groups": op.groups,
        "activation": int(kind),
        "low": low,
        "high": high,
        "relu_first": int(op.relu_first),
        "average_border": int(op.average[0]),
        "border_h": op.average[1],
        "border_w": op.average[2],
        "chained": int(op.chained),
    }


class NativeNet:
    """A program, ready to run.

    Args:
        folder: what `write_program` wrote.
        threads: that work.
        at_once: images of one stream.
        streams: that work side by side, with one thread each; 1 for one stream with all threads.
    """

    def __init__(self, folder: Path, threads: int, at_once: int, streams: int) -> None:
        self._library = library()
        top = json.loads((folder / PROGRAM).read_text(encoding="utf-8"))
        self._arrays = safetensors.numpy.load_file(folder / WEIGHTS)
        self._at_once = at_once
        self._count = len(top["steps"])
        self.classes: int = top["logits"][4]
        _, _, height, width, chans, _ = top["images"]
        above, left, below, right = top["border"]
        self._shape = (chans, height - above - below, width - left - right)
        self._net = self._library.net_new(
            threads,
            streams,
            at_once,
            top["floats"] * at_once,
            self._placed(top["images"]),
            self._placed(top["logits"]),
            *top["border"],
        )
        weakref.finalize(self, self._library.net_free, self._net)
        self._steps = [self._step(number, entry) for number, entry in enumerate(top["steps"])]
        self._lock = threading.Lock()

    def tune(self, by_matrix_unit: bool) -> list[tuple[int, int]]:
        """The fastest method and block for each step, found by timing them.

        Args:
            by_matrix_unit: whether those of the matrix unit, which the processor has then, may be among them.
        """
        self._add()
        found = np.zeros((self._count, 2), np.int64)
        self._library.net_tune(self._net, int(by_matrix_unit), found.ctypes.data)
        return [(int(method), int(block)) for method, block in found]

    def prepare(self, methods: list[tuple[int, int]]) -> None:
        """Takes a method and block for each step, and brings the weights into their order."""
        for step, (method, block) in zip(self._steps, methods, strict=True):
            step.method, step.block = method, block
        self._add()
        self._library.net_prepare(self._net)
        # Those of convolutions are there in another order now; the others are read where they lie.
        for number, step in enumerate(self._steps):
            if step.kind == Kind.CONV:
                del self._arrays[f"{number}.weight"]

    def prepare_all(self, method: int) -> None:
        """The same with one method for all steps that have it; the others are computed directly."""
        self.prepare([(method, 0)] * self._count)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits of images (B, C, H, W) in float32, in any memory format; B is a multiple of `at_once`.

        Raises:
            ValueError: they have another shape or type; the memory of others would be read.
        """
        if x.shape[1:] != self._shape or len(x) % self._at_once or x.dtype != torch.float32:
            raise ValueError(
                f"images must be float32 of shape (B, {', '.join(map(str, self._shape))}) with B a multiple "
                f"of {self._at_once}, not {x.dtype} of shape {tuple(x.shape)}"
            )
        chans_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        x = x if chans_last else x.contiguous()
        logits = torch.empty(len(x), self.classes)
        with self._lock:
            self._library.net_run(self._net, x.data_ptr(), int(chans_last), len(x), logits.data_ptr())
        return logits

    def _add(self) -> None:
        for step in self._steps:
            self._library.net_add(self._net, ctypes.byref(step))

    def _placed(self, entry: list[int]) -> Map:
        at, chan, height, width, chans, pitch = entry
        return Map(at * self._at_once + chan, height, width, chans, pitch)

    def _step(self, number: int, entry: dict[str, Any]) -> Step:
        plain = {
            key: value for key, value in entry.items() if key not in ("input", "output", "other", "gate")
        }
        step = Step(input=self._placed(entry["input"]), output=self._placed(entry["output"]), **plain)
        step.other_at = step.gate_at = -1
        if entry["other"] is not None:
            other = self._placed(entry["other"])
            step.other_at, step.other_pitch = other.at, other.pitch
        if entry["gate"] is not None:
            gate = self._placed(entry["gate"])
            step.gate_at, step.gate_pitch = gate.at, gate.pitch
        for name in ARRAYS:
            array = self._arrays.get(f"{number}.{name}")
            if array is not None:
                setattr(step, name, array.ctypes.data)
        return step


def _configs(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    return tuple(BackendConfig(precision, at_once) for at_once in (0, *stream_sizes(job)))


def _methods(folder: Path, config: BackendConfig) -> Path:
    """Where they are kept: for all threads together, or for one, whatever it takes at a time."""
    return folder / ("methods-stream.json" if config.at_once else "methods.json")


def _build(job: Job, precision: Precision, source: Path, target: Path) -> None:
    library()
    with quiet():
        program = torch.export.load(source / "net.pt2")
    write_program(lower(fold(program)), target)
    are_enough = bool(library().net_has_tiles()) and _has_digits(job, source, target)
    (target / DIGITS).write_text(json.dumps(are_enough), encoding="utf-8")


def _has_digits(job: Job, source: Path, target: Path) -> bool:
    """Whether the matrix unit loses few enough digits, beside products of floats."""
    by_unit, by_floats = (NativeNet(target, job.threads, 1, 1) for _ in range(2))
    by_unit.prepare_all(BY_MATRIX_UNIT)
    by_floats.prepare_all(0)

    def error(images: Tensor) -> float:
        return max(compare(by_unit(image), by_floats(image)).error for image in images.split(1))

    likely = torch.from_numpy(np.load(source / "check.npy"))[:MOST_TUNED]
    # Of all images, those of one colour hang most on the last digits: what is subtracted is nearly the same.
    colours = torch.randn(4, job.shape[1], 1, 1, generator=torch.Generator().manual_seed(0))
    flat = colours.expand(-1, -1, *job.shape[2:])
    return error(likely) <= job.tolerance / SLACK and error(flat) <= job.tolerance


def _open(job: Job, folder: Path, config: BackendConfig) -> BatchFn:
    path = _methods(folder, config)
    streams = job.threads if config.at_once else 1
    images = config.at_once or job.shape[0]
    if not path.exists():
        # Not while it is built: other engines are built at that time, and times would say little.
        threads, tried = (1, MOST_TUNED) if config.at_once else (job.threads, min(images, MOST_TUNED))
        tuned = NativeNet(folder, threads, tried, 1).tune(json.loads((folder / DIGITS).read_text("utf-8")))
        write_atomic(path, json.dumps(tuned))
    net = NativeNet(folder, job.threads, images, streams)
    net.prepare(json.loads(path.read_text(encoding="utf-8")))
    return net


ENGINE = Backend("native", (), float32_on_cpu, _configs, _build, _open)
