"""One measured network, and the memory of what was measured on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

from convatlas._version import __version__
from convatlas.engines import cache as cache
from convatlas.engines.backend import versions
from convatlas.files import with_tuples, write_json
from convatlas.machine import processor


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of a network on one engine with one batch size.

    Attributes:
        network: name in the registry.
        engine: name; "eager" is the network itself.
        batch: B.
        input_size: C, H, W.
        precision: that the engine computes in.
        threads: that worked on one batch.
        device: "cpu" or "cuda".
        latency: seconds of half of the calls at most (p50); None where the engine was dropped.
        latency_p95: seconds of 95 % of the calls at most.
        images_per_second: B over the median latency.
        peak_memory: most bytes that tensors hold at once in a forward, weights included; None for engines
            that do not let torch count.
        error: largest difference from eager's logits, relative to eager's largest logit.
        params: trainable parameters.
        macs: multiply-adds for one image.
        top1: published accuracy on ImageNet for this input size, per cent; None where there is none.
        note: why the engine was dropped; "" where it was not.
    """

    network: str
    engine: str
    batch: int
    input_size: tuple[int, int, int]
    precision: str
    threads: int
    device: str
    latency: float | None
    latency_p95: float | None
    images_per_second: float | None
    peak_memory: int | None
    error: float | None
    params: int
    macs: int
    top1: float | None
    note: str = ""


def keep_measurement(measured: Measurement) -> None:
    """Remembers a measurement in place of an older one, where the folder can be written to."""
    if measured.latency is None:
        return
    path = _path(
        measured.network,
        measured.engine,
        measured.batch,
        measured.input_size,
        measured.precision,
        measured.threads,
        measured.device,
    )
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, dataclasses.asdict(measured))


def find_measurement(
    network: str,
    engine: str,
    batch: int,
    input_size: tuple[int, int, int],
    precision: str,
    threads: int,
    device: str = "cpu",
) -> Measurement | None:
    """What was measured on this machine with these versions; None where nothing was, or it is damaged."""
    path = _path(network, engine, batch, input_size, precision, threads, device)
    try:
        found = Measurement(**with_tuples(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        return None
    return found if isinstance(found.latency, float) else None  # pyright: ignore[reportUnnecessaryIsInstance]


def home() -> Path:
    """The folder that measurements of this machine and these versions are kept in."""
    parts = [processor(), __version__, versions(*cache.PACKAGES)]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return cache.home().parent / "bench" / key


def _path(
    network: str,
    engine: str,
    batch: int,
    input_size: tuple[int, int, int],
    precision: str,
    threads: int,
    device: str,
) -> Path:
    size = "x".join(map(str, input_size))
    return home() / f"{network}-{engine}-{precision}-{batch}x{size}-{device}-{threads}.json"
