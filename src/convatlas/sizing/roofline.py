"""How long a forward takes on this machine, estimated from the rows of a sheet.

A row takes the longer of its arithmetic at the machine's rate and its bytes at the machine's bandwidth,
plus the cost of starting an operation (Williams, Waterman and Patterson 2009, "Roofline"). Rates are measured
once, by `calibrate`, and kept in a file. They differ with the kind of arithmetic and, for convolutions, with
the number of positions: a layer of many channels and few positions spends its time on its weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from convatlas._version import __version__
from convatlas.files import cache_folder, write_json
from convatlas.machine import processor

from .geometry import Window
from .operation import VIEW
from .row import Row
from .sizes import Sizes

FORMAT = 1
KINDS = ("conv", "pointwise", "depthwise", "matmul", "pool", "exp")
Curve = tuple[tuple[int, float], ...]
"""(amount of work, rate), small to large."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class ProfileError(ValueError):
    """A machine profile that cannot be used, or a dtype that it does not know."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a machine can do.

    Attributes:
        device: "cpu" or "cuda".
        processor: name of the chip.
        threads: that torch works with.
        versions: of torch and of this package.
        rates: by dtype ("float32") and kind of arithmetic, one of `KINDS`: MACs per second by the number of
            output positions, batch included; for poolings, elements of windows per second; for activations
            that need an exponential, elements per second.
        bandwidth: bytes per second by the bytes that an operation moves: caches are faster.
        overhead: seconds to start an operation.
    """

    device: str
    processor: str
    threads: int
    versions: dict[str, str]
    rates: dict[str, dict[str, Curve]]
    bandwidth: Curve
    overhead: float


def estimate(sheet: Sizes, profile: Profile) -> float:
    """Seconds for one forward in eval mode, without gradients.

    Raises:
        ProfileError: the profile has no rates for the sheet's dtype.
    """
    return sum(row_seconds(sheet, profile))


def row_seconds(sheet: Sizes, profile: Profile) -> tuple[float, ...]:
    """Seconds for each row: the longer of arithmetic and bytes, plus the start; 0 for a view.

    Raises:
        ProfileError: the profile has no rates for the sheet's dtype.
    """
    dtype = str(sheet.dtype).removeprefix("torch.")
    if dtype not in profile.rates:
        known = ", ".join(profile.rates)
        raise ProfileError(f"the machine's profile has no rates for {dtype}; it has {known}")
    return tuple(_row_seconds(row, profile, profile.rates[dtype]) for row in sheet.rows)


def _row_seconds(row: Row, profile: Profile, rates: dict[str, Curve]) -> float:
    if row.kind == VIEW:
        return 0.0
    moved = row.bytes_read + row.bytes_written
    kind = kind_of(row)
    compute = 0.0 if kind is None else _work(row, kind) / at(rates[kind], _positions(row))
    return max(compute, moved / at(profile.bandwidth, moved)) + profile.overhead


def kind_of(row: Row) -> str | None:
    """Which of `KINDS` a row is; None where only the bytes that it moves count."""
    if row.kind == "pool":
        return "pool"
    if row.kind == "activation":
        return None if row.op in _CHEAP else "exp"
    if not row.macs:
        return None
    window = row.geometry
    if row.kind != "conv" or not isinstance(window, Window):
        return "matmul"
    kernel = math.prod(window.kernel)
    if row.macs == row.output_elements * kernel and row.input_shapes[0][-len(window.kernel) - 1] > 1:
        return "depthwise"
    return "pointwise" if kernel == 1 else "conv"


# Activations that compare and scale only.
_CHEAP = ("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "threshold", "hardswish", "hardsigmoid")


def _work(row: Row, kind: str) -> int:
    if kind == "pool":
        return row.flops
    return row.output_elements if kind == "exp" else row.macs


def _positions(row: Row) -> int:
    """Output positions, batch included."""
    window = row.geometry
    axes = len(window.kernel) if isinstance(window, Window) else 0
    shape = row.output_shape
    return math.prod(shape[-axes:]) * math.prod(shape[: -axes - 1]) if axes else math.prod(shape[:-1])


def at(curve: Curve, amount: int) -> float:
    """The rate between two measured amounts, by the share of the way on a logarithmic scale."""
    if amount <= curve[0][0]:
        return curve[0][1]
    for (small, first), (large, second) in itertools.pairwise(curve):
        if amount <= large:
            return first + (second - first) * math.log(amount / small) / math.log(large / small)
    return curve[-1][1]


# Measuring


def calibrate(device: str = "cpu", seconds: float = 0.05) -> Profile:
    """Measures this machine; takes some seconds.

    Args:
        device: "cpu" or "cuda".
        seconds: time for each of the measurements, of which there are about fifty.

    Raises:
        ProfileError: there is no such device here.
    """
    if device not in ("cpu", "cuda"):
        raise ProfileError(f"`device`={device!r}; expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ProfileError("`device`='cuda', but torch sees no GPU here; expected cpu")
    with torch.inference_mode():
        watch = _Stopwatch(device, seconds)
        rates = {str(dtype).removeprefix("torch."): _rates(watch, device, dtype) for dtype in DTYPES}
        tiny = torch.zeros(8, device=device)
        overhead = watch(lambda: functional.relu(tiny))
        bandwidth = tuple(_move(watch, device, size, overhead) for size in _sizes(device))
    return Profile(device, _chip(device), torch.get_num_threads(), _versions(), rates, bandwidth, overhead)


def clock(device: str) -> Callable[[], float]:
    """The clock to measure by, in seconds.

    Where one thread works, its own time, which other programs do not lengthen; else the wall's.
    """
    alone = device == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone else time.perf_counter


class _Stopwatch:
    """Median seconds of a call, over as many calls as the time allows."""

    def __init__(self, device: str, seconds: float) -> None:
        self.cuda = device == "cuda"
        self.seconds = seconds
        self.clock = clock(device)

    def __call__(self, work: Callable[[], Any]) -> float:
        once = max(self._run(work, 1), self._run(work, 1), 1e-7)
        many = max(1, int(self.seconds / 10 / once))
        rounds = min(10, max(3, int(self.seconds / (many * once))))
        return statistics.median(self._run(work, many) for _ in range(rounds))

    def _run(self, work: Callable[[], Any], many: int) -> float:
        self._wait()
        begin = self.clock()
        for _ in range(many):
            work()
        self._wait()
        return (self.clock() - begin) / many

    def _wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()


# Channels and px of the layers that are measured: the stages of common networks.
_STAGES = ((512, 7), (256, 14), (128, 28), (64, 56))


def _rates(watch: _Stopwatch, device: str, dtype: torch.dtype) -> dict[str, Curve]:
    """Work per second of layers as common networks have them."""
    batch = 64 if device == "cuda" else 1
    size = 4096 if device == "cuda" else 512
    curves: dict[str, list[tuple[int, float]]] = {kind: [] for kind in KINDS}

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def measure(kind: str, positions: int, work: int, run: Callable[[], Any]) -> None:
        curves[kind].append((positions, work / watch(run)))

    for chans, px in _STAGES:
        x, n = make(batch, chans, px, px), batch * px * px
        full, deep, thin = make(chans, chans, 3, 3), make(4 * chans, chans, 1, 1), make(chans, 1, 3, 3)
        measure("conv", n, n * chans**2 * 9, partial(functional.conv2d, x, full, padding=1))
        measure("pointwise", n, n * chans**2 * 4, partial(functional.conv2d, x, deep))
        measure("depthwise", n, n * chans * 9, partial(functional.conv2d, x, thin, padding=1, groups=chans))
    x, n = make(batch, 256, 28, 28), batch * 28 * 28
    measure("pool", n, n * 256 * 9, partial(functional.max_pool2d, x, 3, 1, 1))
    measure("exp", n, n * 256, partial(functional.silu, x))
    left, right = make(size, size), make(size, size)
    measure("matmul", size, size**3, partial(functional.linear, left, right))
    return {kind: tuple(curve) for kind, curve in curves.items()}


def _sizes(device: str) -> tuple[int, ...]:
    """Bytes of the arrays that are moved: inside caches, and far beyond them."""
    mib = 1024**2
    return (16 * mib, 1024 * mib) if device == "cuda" else (mib // 4, 4 * mib, 16 * mib, 128 * mib)


def _move(watch: _Stopwatch, device: str, size: int, overhead: float) -> tuple[int, float]:
    source = torch.ones(size // 8, device=device)
    target = torch.empty_like(source)
    taken = watch(lambda: torch.mul(source, 2.0, out=target))
    return size, size / max(taken - overhead, taken / 2)


# Keeping


def profile_path(device: str = "cpu") -> Path:
    """Where the profile of this machine lies, for the threads and versions that are in use now."""
    key = json.dumps([FORMAT, device, _chip(device), torch.get_num_threads(), _versions()])
    return cache_folder() / f"machine-{device}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def save_profile(profile: Profile) -> Path:
    """Writes a profile, atomically, and returns where.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = profile_path(profile.device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(profile))
    return path


def find_profile(device: str = "cpu") -> Profile | None:
    """The profile of this machine; None if it was never measured with these threads and versions.

    Raises:
        ProfileError: the file is damaged.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return None
    path = profile_path(device)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["bandwidth"] = _curve(data["bandwidth"])
        data["rates"] = {
            dtype: {kind: _curve(rates[kind]) for kind in KINDS} for dtype, rates in data["rates"].items()
        }
        return Profile(**data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProfileError(
            f"{path}: is damaged ({error}); measure again with `convatlas bench --profile-machine`"
        ) from None


def _curve(points: Any) -> Curve:
    curve = tuple((int(amount), float(rate)) for amount, rate in points)
    if not curve or min(min(point) for point in curve) <= 0:
        raise ValueError("a rate is missing")
    return curve


def _chip(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else processor()


def _versions() -> dict[str, str]:
    return {"convatlas": __version__, "torch": torch.__version__}
