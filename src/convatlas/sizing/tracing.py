"""Traces a forward pass, and finds the smallest input for which it passes."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import time
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from . import fallback
from . import rules as _rules  # noqa: F401  # pyright: ignore[reportUnusedImport]
from .errors import SizingError, UnsizableError
from .request import Input, Request
from .tensor import Traced, find_traced, spare
from .trace import Trace
from .tracer import Tracer

# Modules are entered through their instances, so two traces of one network must not overlap.
_LOCK = threading.RLock()


def trace(
    request: Request, *, train: bool | None = None, use_leaves: bool = True, lives: bool = False
) -> Trace:
    """Records the forward that was asked for, once, without advice on errors.

    Args:
        request: network, inputs and mode.
        train: the mode; default: that of the request.
        use_leaves: take whole modules of known types by one rule, which is faster and records the same.
        lives: watch how long storages live.

    Raises:
        SizingError: if the forward fails; names the layer.
    """
    train = request.train if train is None else train
    loaded = "torch._dynamo" in sys.modules

    def tried() -> Trace:
        tracer = Tracer(request.dtype, _device_of(request.net), request.cast, use_leaves, lives)
        return _traced(tracer, request, train)

    try:
        return tried()
    except SizingError:
        if loaded or "torch._dynamo" not in sys.modules:
            raise
        # The forward itself loaded the compiler, too late to be told to stay out.
        return tried()


def unused_parameters(request: Request, found: Trace) -> set[int]:
    """Ids of the parameters that no row of a trace reads and that its forward does not even look at."""
    if not found.unclaimed:
        return set()
    tracer = Tracer(request.dtype, _device_of(request.net), request.cast, use_leaves=False)
    tracer.looked_at = set()
    _traced(tracer, request, request.train)
    return set(found.unclaimed) - tracer.looked_at


def _traced(tracer: Tracer, request: Request, train: bool) -> Trace:
    net = request.net
    with _LOCK:
        collecting = gc.isenabled()
        # A trace makes thousands of small objects that live on; collecting while it does takes most of its
        # time.
        gc.disable()
        try:
            tracer.install(net, train)
            with _batched_functions(), _uncompiled(), _checkpoints(tracer):
                output = _called(net, tracer, request)
            tracer.uninstall()
            found = _plain(tracer, output)
            made, tracer.made = tracer.made, None
            if made is not None:
                spare(made)
        except UnsizableError:
            raise
        except SizingError as error:
            raise type(error)(_where(tracer, request, str(error))) from error
        except (Exception, SystemExit) as error:
            raise SizingError(_where(tracer, request, f"{type(error).__name__}: {error}")) from error
        finally:
            tracer.uninstall()
            if collecting:
                gc.enable()
    return found


def _called(net: nn.Module, tracer: Tracer, request: Request) -> Any:
    # Held here as a caller would hold them: until the forward returns.
    inputs = [tracer.input(i, *given) for i, given in enumerate(zip(request.shapes, request.dtypes))]  # noqa: B905
    if request.arguments is None:
        return net(*inputs)

    def filled(x: Any) -> Any:
        return inputs[x.place] if isinstance(x, Input) else x

    args, kwargs = tree_map(filled, request.arguments, is_leaf=_is_input)
    return net(*args, **kwargs)


@contextmanager
def _batched_functions() -> Generator[None]:
    """`torch.vmap` over traced tensors becomes one operation; its own kind of tensor cannot hold them."""
    apis: Any = importlib.import_module("torch._functorch.apis")
    usual = apis.vmap_impl

    def vmap(func: Any, *args: Any, **kwargs: Any) -> Any:
        found = find_traced((args, kwargs))
        # Beyond the function: which dimensions, randomness and chunks.
        return (
            usual(func, *args, **kwargs)
            if found is None
            else _as_one(found.tracer, usual, func, args, kwargs)
        )

    apis.vmap_impl = vmap
    try:
        yield
    finally:
        apis.vmap_impl = usual


@contextmanager
def _checkpoints(tracer: Tracer) -> Generator[None]:
    """Notes the parts under `torch.utils.checkpoint`, which works by autograd and so not in a trace."""
    module: Any = importlib.import_module("torch.utils.checkpoint")
    # The second takes the arguments one by one; the first, of newer versions, as one tuple.
    names = (
        "_checkpoint_without_reentrant_generator_impl",
        "_checkpoint_without_reentrant_generator",
        "CheckpointFunction",
    )
    usual = {name: getattr(module, name) for name in names if hasattr(module, name)}

    def gathered(function: Any, args: Any, *options: Any, **named: Any) -> Generator[None]:
        begin = len(tracer.rows)
        yield
        tracer.checkpointed(begin, args, reentrant=False)

    def generator(function: Any, *options: Any, **kwargs: Any) -> Generator[None]:
        return gathered(function, options)

    class Function:
        @staticmethod
        def apply(function: Any, preserve: Any, *args: Any) -> Any:
            begin = len(tracer.rows)
            out = function(*args)
            tracer.checkpointed(begin, args, reentrant=True)
            return out

    for name, found in zip(names, (gathered, generator, Function), strict=True):
        if name in usual:
            setattr(module, name, found)
    try:
        yield
    finally:
        for name, found in usual.items():
            setattr(module, name, found)


def _uncompiled() -> AbstractContextManager[Any]:
    """Compiled functions and modules run as they were written, where the compiler is loaded at all."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _as_one(tracer: Any, usual: Any, func: Any, args: Any, kwargs: Any) -> Any:
    def vmap(*given: Any, **named: Any) -> Any:
        return usual(func, *given, **named)

    return fallback.call(tracer, vmap, args, kwargs)


def _is_input(x: Any) -> bool:
    return isinstance(x, Input)


def _plain(tracer: Tracer, output: Any) -> Trace:
    found = [output] if type(output) is Traced else [x for x in tree_leaves(output) if type(x) is Traced]
    return Trace(
        rows=tuple(tracer.rows),
        aliases=tracer.alias,
        slots=tracer.slots,
        slot_dtypes=tracer.slot_dtypes,
        calls=tuple(tracer.calls),
        checkpoints=tuple(tracer.checkpoints),
        lives=tracer.deaths,
        outputs=tuple(x.node for x in found if x.node is not None),
        output_keys=tuple(x.key for x in found if x.key is not None),
        output=tuple(output.shape) if type(output) is Traced else tree_map(_shape_of, output),
        params=tracer.total_params,
        unclaimed=tracer.unclaimed,
    )


def _shape_of(x: Any) -> Any:
    return tuple(x.shape) if isinstance(x, torch.Tensor) else x


def _where(tracer: Tracer, request: Request, message: str) -> str:
    path = tracer.path or type(request.net).__name__
    shapes = " and ".join(str(tuple(s)) for s in request.shapes)
    return f"layer {path!r}: {message} (network input {shapes})"


def _device_of(net: nn.Module) -> torch.device:
    for p in net.parameters():
        return p.device
    return torch.device("cpu")


def _works(request: Request, px: int) -> bool:
    shape = request.shapes[0]
    changed = replace(request, shapes=((*shape[:2], *(px,) * (len(shape) - 2)), *request.shapes[1:]))
    try:
        trace(changed)
    except SizingError:
        return False
    return True


# A size below the input's is looked for up to this many px.
_LEAST, _MOST = 512, 2048


def min_input_size(request: Request, seconds: float | None = None) -> int | None:
    """The smallest px for which the forward passes.

    Args:
        request: network, inputs and mode.
        seconds: how long to look; default: until an answer is found.

    Returns:
        px; None if none up to 512 (or the input, up to 2048) passes.
    """
    shape = request.shapes[0]
    if len(shape) < 3:
        return None
    limit = min(max(_LEAST, *shape[2:]), _MOST)
    end = None if seconds is None else time.monotonic() + seconds
    for px in range(1, limit + 1):
        if _works(request, px):
            return px
        if end is not None and time.monotonic() > end:
            return None
    return None
