"""The fastest engine of this machine for a network, found by trying and measuring."""

from __future__ import annotations

import copy
import dataclasses
import functools
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from convatlas.devices import torch_threads
from convatlas.engines import cache as cache
from convatlas.engines import find_engine
from convatlas.engines.agreement import compare, rounding_error
from convatlas.engines.backend import BackendConfig, BatchFn, Job, Precision
from convatlas.engines.engine import Engine, EngineResult, Report
from convatlas.engines.request import (
    AGREEMENT,
    EAGER,
    EngineRequest,
    Inputs,
    calibration_images,
    make_inputs,
    read_request,
)
from convatlas.engines.search import try_engines
from convatlas.engines.worker import timed_logits
from convatlas.engines.worker_pool import LATE
from convatlas.machine import processor
from convatlas.progress import waiting

UNTRIED = "nothing could be tried"
# Parts of notes on failures that need not come again.
PASSING = (
    LATE, UNTRIED, "its process", "failed here", "stopped answering", "No space left", "Errno", "OSError",
    "memory", "Memory", "quota",
)  # fmt: skip
# So that a choice is made in a minute, unless the machine is very busy; int8 takes longer, as it sees images.
TIME_LIMITS: dict[Precision, float] = {"fp32": 60.0, "bf16": 60.0, "int8": 600.0}


def optimize(
    model: nn.Module,
    input_size: int | tuple[int, int, int] | None = None,
    batch_size: int = 1,
    precision: Precision = "fp32",
    *,
    tolerance: float | None = None,
    agreement: float = AGREEMENT,
    engines: Sequence[str] | None = None,
    calibration: Tensor | Iterable[Tensor] | None = None,
    threads: int | None = None,
    remember: bool = True,
    time_limit: float | None = None,
    anew: bool = False,
    progress: bool | None = None,
) -> Engine:
    """Finds the fastest way to run a network here: tries what is installed, checks it, measures it.

    Each engine is built in a process of its own, its logits are compared with the network's, and those that
    agree are timed in turns. What fails, hangs, crashes or disagrees is dropped with a note; where nothing is
    left, the network itself is used. The choice is remembered in the user's cache folder.

    Args:
        model: any network with one input; it stays as it is. On a GPU where its parameters are.
        input_size: px, or C, H, W; None for the size that a network of the atlas was published for.
        batch_size: B that is measured; the engine takes any, in portions of B.
        precision: the lowest that is allowed; a higher one is kept where it is faster. "bf16" needs a chip
            that has it, "int8" needs `calibration`.
        tolerance: largest difference between logits that is allowed, relative to the largest logit; None for
            1e-4 with fp32 (or four times the error that the network's own rounding makes, where that is
            more), 0.05 with bf16 and 0.5 with int8.
        agreement: smallest share of the checked images whose most likely class must stay the same, for bf16
            and int8, where `calibration` is given.
        engines: those to try, of "eager", "torch", "onnxruntime", "openvino", "ncnn", "mnn", "executorch",
            "native", "torch-compiled"; None for all that are installed.
        calibration: images as the network sees them, (N, C, H, W) or several of (C, H, W) or (B, C, H, W).
            All are for the check; with int8, of eight or more, every fourth, the others for its ranges.
        threads: that may work on a batch; None for `torch.get_num_threads()`.
        remember: whether to use and keep the memory of choices.
        time_limit: seconds for building; who is not ready then is dropped. "torch-compiled", which takes the
            longest, has two thirds of it at most. None for 60 with fp32 and bf16, 600 with int8.
        anew: decide again, and remember that instead.
        progress: whether to show that a search is under way; None for where standard error is a terminal, and
            in a notebook.

    Raises:
        ValueError: an argument is out of its range, or the network refuses the size.
        UnknownNameError: there is no such engine or precision.
    """
    begin = time.monotonic()
    request = read_request(model, input_size, batch_size, precision, tolerance, agreement, engines, threads)
    inputs = make_inputs(request.job, calibration_images(calibration, request.job))
    net = copy.deepcopy(model).eval() if any(module.training for module in model.modules()) else model
    eager = _eager(net, request.job)
    expected, once = _timed_logits(eager, inputs, request.job)
    limit = TIME_LIMITS[precision] if time_limit is None else time_limit
    # Nobody is closer to the network's own logits than these are to the true ones.
    rounding = functools.cache(
        lambda: 0.0 if tolerance is not None else rounding_error(net, inputs.check, expected)
    )
    task = _Task(net, request, inputs, expected, once, eager, limit, begin, rounding)
    key = _key(net, request, inputs.digest()) if remember else None
    if key is not None and not anew and (recalled := _recall(task, key)):
        return recalled
    with waiting("trying engines, for up to a minute", progress):
        return _decide(task, key)


def is_remembered(model: nn.Module, input_size: int | tuple[int, int, int], batch_size: int = 1) -> bool:
    """Whether `optimize`, in float32 and with nothing else asked for, answers at once.

    Args:
        model: as `optimize` takes it, in evaluation mode.
        input_size: as `optimize` takes it.
        batch_size: images of each call, B.
    """
    choice = _find(model, input_size, batch_size, None)
    if choice is None:
        return False
    return choice.results[0].engine == EAGER or choice.weights == cache.weights_digest(model)


def remembered_result(
    model: nn.Module,
    input_size: int | tuple[int, int, int],
    batch_size: int = 1,
    threads: int | None = None,
) -> EngineResult | None:
    """What `optimize`, in float32 and with nothing else asked for, chose here before; None if it did not.

    Args:
        model: a network of the same structure, in evaluation mode, on the CPU or the meta device; its weights
            do not matter.
        input_size: as `optimize` takes it.
        batch_size: as `optimize` takes it.
        threads: as `optimize` takes it.
    """
    choice = _find(model, input_size, batch_size, threads)
    return None if choice is None else choice.results[0]


def _find(
    model: nn.Module, input_size: int | tuple[int, int, int], batch_size: int, threads: int | None
) -> cache.Choice | None:
    request = read_request(model, input_size, batch_size, "fp32", None, AGREEMENT, None, threads)
    return cache.find_choice(_key(model, request, ""))


@dataclasses.dataclass(frozen=True)
class _Task:
    """A question, with the network, its own logits and what a call for them took, and when it was asked."""

    net: nn.Module
    request: EngineRequest
    inputs: Inputs
    expected: Tensor
    once: float | None
    eager: BatchFn
    time_limit: float
    begin: float
    rounding: Callable[[], float]

    def refusal(self, batch_fn: BatchFn, config: BackendConfig) -> str:
        """Why a runner cannot be used; "" where it can."""
        try:
            logits, _ = _timed_logits(batch_fn, self.inputs, self.request.job)
        except Exception as error:  # Whatever a library raises, the network itself still works.
            return f"it worked in its own process, and failed here ({type(error).__name__}: {error})"
        found = compare(logits, self.expected)
        return self.request.refusal(found, config.precision, self.inputs.are_real, self.rounding)

    def engine(self, batch_fn: BatchFn, results: Sequence[EngineResult], *, remembered: bool) -> Engine:
        """The answer."""
        job = self.request.job
        report = Report(
            network=getattr(self.net, "name", "") or type(self.net).__name__,
            shape=job.shape,
            precision=job.precision,
            tolerance=self.request.tolerance,
            agreement=self.request.agreement,
            threads=job.threads,
            device=job.device,
            machine=processor() if job.device == "cpu" else torch.cuda.get_device_name(),
            results=tuple(results),
            took=time.monotonic() - self.begin,
            remembered=remembered,
        )
        names = tuple(getattr(self.net, "class_names", ()))
        return Engine(batch_fn, report, transform=getattr(self.net, "transform", None), class_names=names)


def _key(net: nn.Module, request: EngineRequest, calibration: str) -> str:
    asked = dataclasses.asdict(request) | {"calibration": calibration}
    return cache.choice_key(net, asked, request.job.device)


def _recall(task: _Task, key: str) -> Engine | None:
    """The engine that an earlier call chose, if one did, and it still agrees."""
    choice = cache.find_choice(key)
    if choice is None:
        return None
    result = choice.results[0]
    if result.engine == EAGER:
        return task.engine(task.eager, choice.results, remembered=True)
    if choice.files is None or choice.weights != cache.weights_digest(task.net):
        # The same network with other weights: the choice holds, but what was built does not.
        only = dataclasses.replace(task.request, engines=(result.engine,))
        engine = _decide(dataclasses.replace(task, request=only), key)
        return engine if engine.name == result.engine else None
    config = result.config or BackendConfig()
    if not cache.is_intact(choice):  # Built anew.
        return None
    try:
        batch_fn = _open(result.engine, task.request.job, choice.files, config)
    except Exception:  # Damaged files are built anew.
        return None
    if task.refusal(batch_fn, config):
        return None
    return task.engine(batch_fn, choice.results, remembered=True)


def _decide(task: _Task, key: str | None) -> Engine:
    """Tries what the question allows, and takes the fastest; the network itself where the disk is full."""
    try:
        return _decide_on_disk(task, key)
    except OSError as error:
        results = (
            EngineResult(EAGER, BackendConfig(), None, 0.0, 1.0),
            EngineResult("all engines", note=f"{UNTRIED} ({error})"),
        )
        return task.engine(task.eager, results, remembered=False)


def _decide_on_disk(task: _Task, key: str | None) -> Engine:
    """Tries what the question allows, and takes the fastest that also works in this process.

    Raises:
        OSError: the temporary folder cannot be written to.
    """
    with tempfile.TemporaryDirectory(prefix="convatlas-", ignore_cleanup_errors=True) as folder:
        results = _tried(task, Path(folder))
        dropped = [result for result in results if result.note]
        usable = [result for result in results if not result.note]
        while usable and usable[0].engine != EAGER:
            result, config = usable[0], usable[0].config or BackendConfig()
            # Some engines read their files as they need them, so these live as long as the engine.
            files = Path(tempfile.mkdtemp(prefix="convatlas-"))
            shutil.copytree(Path(folder) / result.engine, files, dirs_exist_ok=True)
            batch_fn = None
            try:
                batch_fn = _open(result.engine, task.request.job, files, config)
                refusal = task.refusal(batch_fn, config)
            except Exception as error:  # As in `refusal`.
                refusal = f"it worked in its own process, and failed here ({type(error).__name__}: {error})"
            if batch_fn is not None and not refusal:
                engine = task.engine(batch_fn, [*usable, *dropped], remembered=False)
                weakref.finalize(engine, shutil.rmtree, files, ignore_errors=True)
                _keep(task, key, engine, files)
                return engine
            shutil.rmtree(files, ignore_errors=True)
            dropped.append(dataclasses.replace(usable.pop(0), note=refusal))
    # Where eager was not asked for, it is what is left.
    usable = usable or [EngineResult(EAGER, BackendConfig(), None, 0.0, 1.0)]
    engine = task.engine(task.eager, [*usable, *dropped], remembered=False)
    _keep(task, key, engine, None)
    return engine


def _tried(task: _Task, folder: Path) -> list[EngineResult]:
    try:
        return try_engines(
            task.request,
            task.inputs,
            task.expected,
            task.once,
            task.net,
            task.eager,
            folder,
            task.time_limit,
            task.rounding,
        )
    except OSError as error:  # For example a full disk.
        return [EngineResult("all engines", note=f"{UNTRIED} ({error})")]


def _keep(task: _Task, key: str | None, engine: Engine, files: Path | None) -> None:
    chosen, *others = engine.report.results
    if chosen.engine == EAGER and any(_may_pass(result.note) for result in others):
        return  # On a better day another one may be ready.
    if key is not None:
        digest = cache.weights_digest(task.net)
        cache.keep_choice(key, cache.Choice(engine.report.results, digest, files))


def _may_pass(note: str) -> bool:
    """Whether a failure need not come again: a busy machine, a full disk, a process that the system ended."""
    return any(words in note for words in PASSING)


def _open(engine: str, job: Job, files: Path, config: BackendConfig) -> BatchFn:
    return find_engine(engine).open(job, files, config)


def _timed_logits(batch_fn: BatchFn, inputs: Inputs, job: Job) -> tuple[Tensor, float | None]:
    """Logits of images that engines are compared on, and seconds of a call."""
    return timed_logits(batch_fn, inputs.check.to(job.device).split(job.shape[0]))


def _eager(net: nn.Module, job: Job) -> BatchFn:
    """The network as it is, with the job's threads."""

    @torch.inference_mode()
    def run(x: Tensor) -> Tensor:
        with torch_threads(job.threads):
            return net(x).float()

    return run
