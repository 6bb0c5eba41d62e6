"""How fast networks are on this machine, and on which engine."""

from __future__ import annotations

import fnmatch
import functools
import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convatlas.benchmark.measurement import Measurement, keep_measurement
from convatlas.catalog.accuracy import find_accuracy
from convatlas.catalog.cards import all_aliases, find_card, list_models
from convatlas.engines import ENGINES, find_engine
from convatlas.engines.backend import BatchFn, EngineError, Precision
from convatlas.engines.engine import Engine
from convatlas.engines.optimize import optimize
from convatlas.engines.request import EAGER, input_shape
from convatlas.engines.timing import FEWEST, all_calls, interleaved_timing
from convatlas.engines.worker import seconds as timed
from convatlas.errors import unknown
from convatlas.models.model_file import is_model_file
from convatlas.models.registry import create_model, open_model
from convatlas.progress import tracked
from convatlas.sizing import size

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MOST_CALLS = 2000


def bench(
    names: str | Sequence[str],
    *,
    batch_sizes: Sequence[int] = (1,),
    engines: str | Sequence[str] = (EAGER,),
    precision: Precision = "fp32",
    input_size: int | tuple[int, int, int] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    seconds: float = 1.0,
    remember: bool = True,
    model: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> list[Measurement]:
    """Measures networks as they are initialised: how long they take does not depend on their weights.

    All engines of a network and batch size are timed in turns. What `optimize` drops, because it fails or
    disagrees, has a note in place of times.

    Args:
        names: names, aliases, model files or patterns such as "resnet*".
        batch_sizes: values of B.
        engines: of "eager", "torch", "onnxruntime", "openvino", "ncnn", "mnn", "executorch", "native",
            "torch-compiled"; "all" for each of them.
        precision: "fp32", or "bf16" to allow that too.
        input_size: px, or C, H, W; None for the size that each network was published for.
        threads: that may work on a batch; None for `torch.get_num_threads()`.
        device: "cpu" or "cuda".
        seconds: to spend on timing each engine, beyond the first rounds.
        remember: whether to keep the measurements of published networks for `choose`.
        model: fields of the networks' configs to change.
        progress: whether to show a bar; None for where standard error is a terminal, and in a notebook.

    Returns:
        Measurements in the order of names, batch sizes and engines.

    Raises:
        UnknownNameError: no network has such a name, or there is no such engine.
        ValueError: an argument is out of its range.
    """
    chosen = read_engines(engines)
    sizes = tuple(batch_sizes)
    if not sizes or not all(type(batch) is int and batch >= 1 for batch in sizes):
        raise ValueError(f"`batch_sizes`={batch_sizes!r}; expected whole numbers of at least 1")
    if threads is not None and threads < 1:
        raise ValueError(f"`threads`={threads!r}; expected a whole number of at least 1")
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision`={precision!r}; expected fp32 or bf16 (int8 needs images: `convatlas.optimize`)"
        )
    if device != "cpu" and not (device == "cuda" and torch.cuda.is_available()):
        raise ValueError(f"`device`={device!r}; expected cpu, or cuda where there is a GPU")
    if not seconds >= 0:
        raise ValueError(f"`seconds`={seconds!r}; expected at least 0")
    found: list[Measurement] = []
    chosen_names = find_names(names)
    for name in tracked(chosen_names, "networks", len(chosen_names), progress=progress, note=str):
        net = create_model(name, features_only=False, **dict(model or {})).eval().to(device)
        published = not model and not is_model_file(name)
        shape = input_shape(net, input_size)
        for batch in sizes:
            rows = _measure(net, shape, batch, chosen, precision, threads, seconds)
            if remember and published:
                for row in rows:
                    keep_measurement(row)
            found += rows
    return found


def find_names(patterns: str | Sequence[str]) -> list[str]:
    """The networks that names, aliases or shell-style patterns mean, each once.

    Raises:
        UnknownNameError: one means none.
        ValueError: there is no pattern.
    """
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    if not given:
        raise ValueError("`names` is empty; expected names of networks, or patterns such as 'resnet*'")
    found: list[str] = []
    for pattern in given:
        if is_model_file(pattern):
            open_model(pattern)
            found.append(pattern)
            continue
        if not any(mark in pattern for mark in "*?["):
            found.append(find_card(pattern).name)
            continue
        aliases = [name for alias, name in all_aliases().items() if fnmatch.fnmatchcase(alias, pattern)]
        matching = list_models(pattern) + aliases
        if not matching:
            raise unknown("network", pattern, list_models(), "`convatlas list` shows all")
        found += matching
    return list(dict.fromkeys(found))


def read_engines(engines: str | Sequence[str]) -> tuple[str, ...]:
    """Names of engines, eager first; "all" for each of them.

    Raises:
        UnknownNameError: there is none of a name.
    """
    known = (EAGER, *ENGINES)
    given = known if engines == "all" else (engines,) if isinstance(engines, str) else tuple(engines)
    for name in given:
        if name not in known:
            raise unknown("engine", name, (*known, "all"))
    if not given:
        raise ValueError(f"`engines` is empty; expected all, or some of {', '.join(known)}")
    return tuple(dict.fromkeys(given))


def _measure(
    net: Any,
    shape: tuple[int, int, int],
    batch: int,
    engines: tuple[str, ...],
    precision: Precision,
    threads: int | None,
    limit: float,
) -> list[Measurement]:
    """A network with one batch size, on each engine."""
    device = next(net.parameters()).device.type
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    built, missing = _build(net, shape, batch, engines, precision, threads)
    working = {name: engine for name, engine in built.items() if engine.name == name}
    times = _timed(working, images, limit * len(working))
    sheet = size(net, shape)
    accuracy = find_accuracy(net.name, shape)
    rows: list[Measurement] = []
    for name in engines:
        engine = built.get(name)
        p50, p95 = _percentiles(times[name]) if name in times else (None, None)
        rows.append(
            Measurement(
                network=net.name,
                engine=name,
                batch=batch,
                input_size=shape,
                precision=engine.precision if engine else precision,
                threads=engine.report.threads if engine else threads or torch.get_num_threads(),
                device=device,
                latency=p50,
                latency_p95=p95,
                images_per_second=batch / p50 if p50 else None,
                peak_memory=peak_memory(net, images) if name == EAGER else None,
                error=working[name].report.chosen.error if name in working else None,
                params=sheet.params,
                macs=sheet.macs,
                top1=accuracy.top1 if accuracy else None,
                note="" if name in working else _note(name, engine) if engine else missing[name],
            )
        )
    return rows


def _build(
    net: Any,
    shape: tuple[int, int, int],
    batch: int,
    engines: tuple[str, ...],
    precision: Precision,
    threads: int | None,
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines that are installed, and how to install each of the others."""
    built: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    for name in engines:
        try:
            if name != EAGER:
                find_engine(name).require()
        except EngineError as error:
            missing[name] = str(error)
            continue
        # Only what takes long to build is worth remembering.
        built[name] = optimize(
            net,
            shape,
            batch,
            precision,
            engines=(name,),
            threads=threads,
            remember=name != EAGER,
            progress=False,
        )
    return built, missing


def _note(name: str, engine: Engine) -> str:
    notes = [result.note for result in engine.report.results if result.engine == name and result.note]
    return notes[0] if notes else "it could not be built"


def _timed(engines: dict[str, Engine], images: Tensor, limit: float) -> dict[str, list[float]]:
    """Seconds of calls of each engine, taken in turns; nobody is left out for being slow."""
    if not engines:
        return {}
    entrants: dict[str, Callable[[int], list[float]]] = {
        name: functools.partial(_calls, engine, images) for name, engine in engines.items()
    }
    estimates = {name: min(_calls(engine, images, 2)) for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    begin, rounds = time.monotonic(), 0
    while rounds < FEWEST or time.monotonic() - begin < limit:
        # One round at a time: a longer race drops the slow ones, whose times are wanted here.
        for name, found in interleaved_timing(entrants, estimates, limit=0.0, most=1).items():
            times[name] += all_calls(found)
        rounds += 1
        if min(map(len, times.values())) >= MOST_CALLS:
            break
    return times


def _calls(batch_fn: BatchFn, images: Tensor, calls: int) -> list[float]:
    """Times calls, after one that is not timed where they are short."""
    if calls > 1:
        batch_fn(images)
    return [timed(batch_fn, images) for _ in range(calls)]


def _percentiles(times: list[float]) -> tuple[float, float]:
    """p50 and p95."""
    return statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1]


def peak_memory(net: nn.Module, images: Tensor) -> int:
    """Most bytes that tensors hold at once during a forward pass, weights and images included.

    Counted from what each operation of one forward allocates, and when it is let go. The space that an
    operation takes for itself while it works is not in it.

    Args:
        net: in evaluation mode.
        images: (B, C, H, W), on the network's device.
    """
    counter = _Counter()
    for tensor in (*net.parameters(), *net.buffers(), images):
        counter.add(tensor)
    with torch.inference_mode(), counter:
        net(images)
    return counter.most


class _Counter(TorchDispatchMode):
    """Adds up the bytes of the storages that live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._alive = weakref.WeakSet[UntypedStorage]()

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._alive:
            return
        self._alive.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._free, storage.nbytes())

    def _free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(storage) for storage in _storages((args, kwargs))}
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in given:
                self.add(leaf)
        return found


def _storages(values: Any) -> Iterator[UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
