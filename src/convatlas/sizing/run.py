"""`size`: one forward pass of shapes."""

from __future__ import annotations

import gc
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from . import rules as _rules  # noqa: F401  # pyright: ignore[reportUnusedImport]
from .errors import DataDependentError, SizingError
from .sheet import Request, Sheet
from .tensor import Traced, spare
from .tracer import Tracer

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw")
# Modules are entered through their instances, so two traces of one network must not overlap.
_LOCK = threading.RLock()

# How the networks of this package end such a message.
_SAID = re.compile(r"; the smallest size that works is \d+x\d+")

InputSize = int | Sequence[Any] | torch.Tensor


def size(
    net: nn.Module,
    input_size: InputSize,
    *,
    batch_size: int = 1,
    in_chans: int | None = None,
    dtype: torch.dtype | None = None,
    train: bool = False,
    optimizer: str = "momentum",
) -> Sheet:
    """Sizes a network: runs its own forward on tensors that have a shape and no storage.

    The network is left as it was, on whichever device (meta included) and in whichever mode.

    Args:
        net: any module.
        input_size: height and width in px; or a shape without the batch, such as (3, 224, 224); or a list of
            such shapes for several inputs; or example tensors (batch included), whose values are never read.
        batch_size: B, for shapes; example tensors bring their own.
        in_chans: C, where `input_size` is a number; default: what the network's first convolution takes.
        dtype: of parameters, inputs and activations; default: that of the parameters.
        train: run in training mode (dropout, batch statistics); default: eval.
        optimizer: for `training_bytes`: sgd, momentum, rmsprop, adam or adamw.

    Returns:
        The sheet, with a row per operation.

    Raises:
        TypeError: if `net` is no module or `input_size` no size.
        SizingError: if the input does not fit; names the layer and the smallest input that works.
        DataDependentError: if the forward reads values.
    """
    if not isinstance(net, nn.Module):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"`net`={type(net).__name__}; expected a torch.nn.Module")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"`optimizer`={optimizer!r}; expected one of {', '.join(OPTIMIZERS)}")
    if batch_size < 1:
        raise ValueError(f"`batch_size`={batch_size}; expected at least 1")
    net = getattr(net, "_orig_mod", net)
    if isinstance(net, torch.jit.ScriptModule):
        raise TypeError(
            "`net` is a ScriptModule, whose forward is not Python; size the module it was made from"
        )
    if dtype is None:
        dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.get_default_dtype())
    shapes, dtypes = _inputs(net, input_size, batch_size, in_chans, dtype)
    request = Request(net, shapes, dtypes, dtype, train, optimizer)
    try:
        return run(request)
    except DataDependentError:
        raise
    except SizingError as error:
        smallest = _smallest_that_works(request)
        # Networks that check their input say it too; once is enough.
        message = _SAID.sub("", str(error)) if smallest else str(error)
        raise type(error)(f"{message}{smallest}") from error


def run(request: Request, train: bool | None = None, use_leaves: bool = True, lives: bool = False) -> Sheet:
    """Traces what was asked, once, without advice on errors; `lives` watches how long storages live."""
    train = request.train if train is None else train
    if train is not request.train:
        request = replace(request, train=train)
    net = request.net
    tracer = Tracer(request.dtype, _device_of(net), use_leaves, lives)
    sheet = Sheet.__new__(Sheet)
    tracer.trace = sheet
    with _LOCK:
        collecting = gc.isenabled()
        # A trace makes thousands of small objects that live on; collecting while it does takes most of its
        # time.
        gc.disable()
        try:
            tracer.install(net, train)
            # As a caller would hold them: until the forward returns.
            inputs = [tracer.input(i, *given) for i, given in enumerate(zip(request.shapes, request.dtypes))]  # noqa: B905
            output = net(*inputs)
            tracer.uninstall()
            _finish(sheet, request, tracer, output)
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
    return sheet


def _finish(sheet: Sheet, request: Request, tracer: Tracer, output: Any) -> None:
    found = [output] if type(output) is Traced else [x for x in tree_leaves(output) if type(x) is Traced]
    tracer.output_keys = tuple(x.key for x in found if x.key is not None)
    nodes = tuple(x.node for x in found if x.node is not None)
    shapes = tuple(output.shape) if type(output) is Traced else tree_map(_shape_of, output)
    sheet.__init__(request, tracer, shapes, nodes)


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


def _inputs(
    net: nn.Module, given: Any, batch: int, in_chans: int | None, dtype: torch.dtype
) -> tuple[tuple[tuple[int, ...], ...], tuple[torch.dtype, ...]]:
    if isinstance(given, torch.Tensor):
        given = [given]
    if isinstance(given, int) and not isinstance(given, bool):
        axes, chans = _first_conv(net)
        given = [(in_chans or chans, *(given,) * axes)]
    elif isinstance(given, Sequence) and given and all(isinstance(s, int) for s in given):
        given = [tuple(given)]
    if not isinstance(given, Sequence) or not given or isinstance(given, str):
        raise TypeError(
            f"`input_size`={given!r}; expected px, a shape such as (3, 224, 224), shapes or tensors"
        )
    shapes: list[tuple[int, ...]] = []
    dtypes: list[torch.dtype] = []
    for item in given:
        if isinstance(item, torch.Tensor):
            shapes.append(tuple(item.shape))
            dtypes.append(dtype if item.is_floating_point() else item.dtype)
        elif isinstance(item, Sequence) and all(isinstance(s, int) for s in item):
            shapes.append((batch, *item))
            dtypes.append(dtype)
        else:
            raise TypeError(
                f"`input_size` holds {item!r}; expected a shape such as (3, 224, 224) or a tensor"
            )
        if any(s < 1 for s in shapes[-1]):
            raise ValueError(f"`input_size`={tuple(shapes[-1])}; every size must be at least 1")
    return tuple(shapes), tuple(dtypes)


def _first_conv(net: nn.Module) -> tuple[int, int]:
    for module in net.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return len(module.kernel_size), module.in_channels
    return 2, 3


def _works(request: Request, px: int) -> bool:
    shape = request.shapes[0]
    changed = replace(request, shapes=((*shape[:2], *(px,) * (len(shape) - 2)), *request.shapes[1:]))
    try:
        run(changed)
    except SizingError:
        return False
    return True


def min_input_size(request: Request) -> int | None:
    """The smallest px for which the forward passes; None if none up to 512 (or the input) does."""
    shape = request.shapes[0]
    if len(shape) < 3:
        return None
    limit = max(512, *shape[2:])
    return next((px for px in range(1, limit + 1) if _works(request, px)), None)


def _smallest_that_works(request: Request) -> str:
    smallest = min_input_size(request)
    if smallest is None:
        return ""
    shape = request.shapes[0]
    best = (*shape[1:2], *(smallest,) * (len(shape) - 2))
    return f"; the smallest input that works is {best}"
