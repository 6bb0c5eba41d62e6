"""Traces a forward pass, and finds the smallest input for which it passes."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from . import rules as _rules  # noqa: F401  # pyright: ignore[reportUnusedImport]
from .errors import SizingError
from .request import Input, Request
from .tensor import Traced, spare
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
    net = request.net
    tracer = Tracer(request.dtype, _device_of(net), request.cast, use_leaves, lives)
    with _LOCK:
        collecting = gc.isenabled()
        # A trace makes thousands of small objects that live on; collecting while it does takes most of its
        # time.
        gc.disable()
        try:
            tracer.install(net, request.train if train is None else train)
            output = _called(net, tracer, request)
            tracer.uninstall()
            found = _plain(tracer, output)
            made, tracer.made = tracer.made, None
            if made is not None:
                spare(made)
        except SizingError as error:
            raise type(error)(_where(tracer, request, str(error))) from error
        except Exception as error:
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


def _is_input(x: Any) -> bool:
    return isinstance(x, Input)


def _plain(tracer: Tracer, output: Any) -> Trace:
    found = [output] if type(output) is Traced else [x for x in tree_leaves(output) if type(x) is Traced]
    return Trace(
        rows=tuple(tracer.rows),
        aliases=tracer.alias,
        slots=tracer.slots,
        slot_dtypes=tracer.slot_dtypes,
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
