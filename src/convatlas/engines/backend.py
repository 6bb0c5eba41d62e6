"""What an engine is asked to do, and what it must say about itself. Needs no engine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from convatlas.engines.quiet import quiet
from convatlas.files import with_tuples

Precision = Literal["fp32", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")

FP32_TOLERANCE = 1e-4
"""Largest difference between logits, relative to the largest logit, where nobody says otherwise."""

BatchFn = Callable[[Tensor], Tensor]
"""Runs one batch of exactly the job's shape, float32: (B, C, H, W) -> (B, K) in float32."""


class EngineError(ValueError):
    """An engine that cannot do what it is asked to; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A network to run, by the files of a folder.

    The folder holds `net.pt2` (exported for the shape), `dynamic.pt2` (for any batch; may be missing),
    `example.npy` (one batch), `check.npy` and `expected.npy` (images and the network's own logits), and for
    int8 `calibration.npy`.

    Attributes:
        shape: B, C, H, W.
        precision: the lowest that is allowed.
        threads: that may work on one batch.
        device: "cpu" or "cuda".
        tolerance: error of logits that is allowed in float32, relative to the largest. An engine may choose
            by it among ways; logits are compared in any case.
        lowest_tolerance: error that is allowed in the lowest precision, by which mixes of int8 are chosen.
        agreement: share of the images whose most likely class must stay the same there.
    """

    shape: tuple[int, int, int, int]
    precision: Precision
    threads: int
    device: str = "cpu"
    tolerance: float = FP32_TOLERANCE
    lowest_tolerance: float = 0.5
    agreement: float = 0.9

    def write(self, folder: Path) -> None:
        """Writes the job's description for another process."""
        (folder / "job.json").write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> Job:
        """Reads what `write` wrote."""
        return Job(**with_tuples(json.loads((folder / "job.json").read_text(encoding="utf-8"))))


@dataclasses.dataclass(frozen=True)
class BackendConfig:
    """One way to use an engine.

    Attributes:
        precision: of its arithmetic.
        at_once: images that one stream takes at a time; 0 for the whole batch, by all threads together.
        layout: memory order of images, where the engine leaves the choice: "NHWC" or "NCHW".
        graph: whether the launches of a GPU are recorded once and replayed.
    """

    precision: Precision = "fp32"
    at_once: int = 0
    layout: str = ""
    graph: bool = False

    def describe(self) -> str:
        """What differs from the plainest way, in words."""
        words = [self.precision if self.precision != "fp32" else "", self.layout]
        words.append(f"a stream per thread, {self.at_once} at a time" if self.at_once else "")
        words.append("CUDA graph" if self.graph else "")
        return ", ".join(word for word in words if word)


@dataclasses.dataclass(frozen=True)
class Backend:
    """How one engine is built, in a process of its own, and opened, in any.

    Attributes:
        name: of the engine.
        packages: Python packages that it needs, as they are imported.
        precisions: what it has for a job, in the order of building; empty where it has nothing.
        configs: the settings to try in a precision; of those with long calls, only the first two are.
        build: makes files for a precision, from those of the job's folder (first) in its own (second).
        open: reads these files and returns what runs a batch.
        is_slow: whether building takes much longer than with others, which go first where cores are few.
        extra: of this package, that has what it needs.
    """

    name: str
    packages: tuple[str, ...]
    precisions: Callable[[Job], tuple[Precision, ...]]
    configs: Callable[[Job, Precision], tuple[BackendConfig, ...]]
    build: Callable[[Job, Precision, Path, Path], None]
    open: Callable[[Job, Path, BackendConfig], BatchFn]
    is_slow: bool = False
    extra: str = "engines"

    def require(self) -> None:
        """Checks that its packages are installed, as the function of that name."""
        require(*self.packages, extra=self.extra)


def require(*packages: str, extra: str = "engines") -> None:
    """Checks that packages are installed, without importing them.

    Raises:
        EngineError: one is missing; the message says how to install it.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        names = " ".join(package.replace("_", "-") for package in missing)
        raise EngineError(
            f"{' and '.join(missing)} not installed: pip install {names}, or '.[{extra}]' in a checkout"
        )


def float32_on_cpu(job: Job) -> tuple[Precision, ...]:
    """Precisions of an engine that computes in float32, on the CPU alone."""
    return ("fp32",) if job.device == "cpu" else ()


def one_config(job: Job, precision: Precision) -> tuple[BackendConfig, ...]:
    """Ways of using an engine that can be used in one way."""
    return (BackendConfig(),)


def read_program(folder: Path) -> torch.export.ExportedProgram:
    """The network of a job's folder, for any batch size where it can be."""
    path = folder / "dynamic.pt2"
    return _read(path if path.exists() else folder / "net.pt2")


def read_exact_program(folder: Path) -> torch.export.ExportedProgram:
    """The network of a job's folder, for the job's batch size."""
    return _read(folder / "net.pt2")


def _read(path: Path) -> torch.export.ExportedProgram:
    with quiet():
        return torch.export.load(path)


def versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def stream_sizes(job: Job) -> tuple[int, ...]:
    """Images at a time that are worth trying when each thread works on images of its own.

    Most first: networks with long calls often have large weights, which are then read less often.
    """
    batch = job.shape[0]
    if job.threads < 2 or batch < job.threads:
        return ()
    return tuple(n for n in (4, 2, 1) if batch % n == 0 and batch // n >= job.threads)
